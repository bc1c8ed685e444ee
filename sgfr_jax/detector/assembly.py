"""From the squares that a network sees to whole images: batches of squares, maps put together."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from sgfr_jax.datasets import geometry
from sgfr_jax.detector import detectors, embedding, loading


class Batch(NamedTuple):
    """Some squares of a split, embedded, and zeros up to the size of a batch."""

    patches: Any  # a pytree of arrays `[B, ...]`, on the device
    extents: np.ndarray | None  # [B, 2] float32; None: all squares are full
    num: int  # squares that are no padding


class Whole(NamedTuple):
    """What a scorer makes of an image."""

    anomaly_map: np.ndarray  # [S, S], or [H, W] at the image's own size where it has windows
    score: float


def batches(detector: detectors.Detector, seen: loading.Views) -> Iterator[Batch]:
    """What scorers take, square by square in the order of the views.

    Raises:
      DatasetError: if features are not finite.
    """
    pad, done = partial(embedding.pad, size=detector.batch_size), 0
    for found in detector.batches(seen.split) if len(seen.owners) else ():
        num = len(jax.tree.leaves(found)[0])
        extents = None if seen.extents is None else pad(seen.extents[done : done + num])
        yield Batch(detector.put(jax.tree.map(pad, found)), extents, num)
        done += num


class Assembly:
    """Takes the maps and scores of squares in their order, and gives those of whole images."""

    def __init__(
        self,
        split: loading.Split,
        detector: detectors.Detector,
        solver: str,
        state: Any,
        *,
        alone: bool,
        at_once: bool = True,
    ):
        """Begins with the first image of a split.

        Args:
          split: whose squares will be scored.
          detector: that scores them.
          solver: with which.
          state: of the detector; of what nominal images come to, if not of the banks.
          alone: whether the images are looked at in no other way.
          at_once: whether an image in one square may be scored whole; else `add` does, as with
            windows, what its map as a whole decides.
        """
        self._windows, self._overlap = split.windows, split.geometry.overlap
        found = detectors.of_windows(detector, solver)
        self._complete = at_once and alone and split.windows is None
        self.score = detector.scorers[solver] if self._complete else found.score
        self._join = partial(found.join, state, alone=alone)
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
