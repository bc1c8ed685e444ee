"""From the squares that a network sees to whole images: batches of squares, maps put together."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from sgfr_jax.datasets import geometry
from sgfr_jax.detector.programs import Programs
from sgfr_jax.detector.services import pad
from sgfr_jax.detector.splits import Split, Views
from sgfr_jax.detector.stages import Stages
from sgfr_jax.detector.state import Look


class Batch(NamedTuple):
    """Some squares of a split, embedded, and zeros up to the size of a batch."""

    patches: Any  # of every stream `[B, P, D]`, on the device
    extents: np.ndarray | None  # [B, 2] float32; None: all squares are full
    num: int  # squares that are no padding


class Whole(NamedTuple):
    """What a solver makes of an image."""

    anomaly_map: np.ndarray  # [S, S], or [H, W] at the image's own size where it has windows
    score: float


def batches(stages: Stages, seen: Views) -> Iterator[Batch]:
    """What programs take, square by square in the order of the views.

    Raises:
      DatasetError: if features are not finite.
    """
    size, done = stages.services.batch_size, 0
    for found in stages.batches(seen.split) if len(seen.owners) else ():
        num = len(found[0])
        extents = None if seen.extents is None else pad(seen.extents[done : done + num], size)
        patches = stages.services.put(tuple(pad(features, size) for features in found))
        yield Batch(patches, extents, num)
        done += num


class Assembly:
    """Takes the maps and scores of squares in their order, and gives those of whole images."""

    def __init__(
        self, split: Split, programs: Programs, look: Look, *, alone: bool, at_once: bool = True
    ):
        """Begins with the first image of a split.

        Args:
          split: whose squares will be scored.
          programs: that score them.
          look: whose nominal scores say what these mean; its banks do not matter.
          alone: whether the images are looked at in no other way.
          at_once: whether an image in one square may be scored whole; else `add` does, as with
            windows, what its map as a whole decides.
        """
        self._windows, self._overlap = split.windows, split.geometry.overlap
        self._complete = at_once and alone and split.windows is None
        self.score = programs.score if self._complete else programs.score_windows
        self._join = partial(programs.join, look, alone=alone)
        self._done, self._maps, self._scores = 0, [], []

    def add(self, maps: np.ndarray, scores: np.ndarray) -> list[Whole]:
        """The images that some more squares complete.

        Args:
          maps: `[n, S, S]`, of `score`.
          scores: `[n, ...]`, of the same.
        """
        if self._complete:
            return [Whole(*one) for one in zip(maps, scores, strict=True)]
        if self._windows is None:
            return [Whole(*self._join(*of)) for of in zip(maps, scores[:, None], strict=True)]
        self._maps.extend(maps)
        self._scores.extend(scores)
        found = []
        while self._done < len(self._windows):
            own = self._windows[self._done]
            num = len(own)
            if num > len(self._maps):
                break
            shape = max(w.box[2] for w in own), max(w.box[3] for w in own)
            whole = geometry.assemble(self._maps[:num], own, shape, overlap=self._overlap)
            found.append(Whole(*self._join(whole, np.stack(self._scores[:num]))))
            del self._maps[:num], self._scores[:num]
            self._done += 1
        return found
