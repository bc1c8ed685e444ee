"""What each bank of a look adds to the maps of images at a few places, and the patches there.

Maps of streams are weighed and added, those of windows averaged, and all are resized on the way to
the anomaly map: every step is linear, so that parts go the same way and add up to it. They are
wanted at a few pixels, so only windows that show one of these are embedded again, and the maps of
one bank are put together at a time: photographs are large.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sgfr_jax.datasets import geometry
from sgfr_jax.datasets.geometry import Window
from sgfr_jax.detector import assembly, places, splits
from sgfr_jax.detector.splits import Split, Views
from sgfr_jax.detector.stages import Stages
from sgfr_jax.detector.state import Look


class Marked(NamedTuple):
    """Some pixels of an image's anomaly map."""

    pixels: Sequence[tuple[int, int]]  # [n]: rows and columns
    shape: tuple[int, int]  # of the map
    joined: tuple[int, int]  # and that in which the looks were brought together

    def read(self, look_map: np.ndarray) -> np.ndarray:
        """What the map of one look is there: `[n]`."""
        found = geometry.to_size(geometry.to_size(look_map, self.joined), self.shape)
        return found[tuple(np.transpose(self.pixels))].astype(np.float64)


class Found(NamedTuple):
    """What a look with `S` banks has at `n` places of an image."""

    parts: np.ndarray  # [S, n]: what each bank adds to the look's map; halos are not taken off
    windows: tuple[Window, ...]  # [n]: of those of the image the one in which each lies deepest
    cells: np.ndarray  # [S, n]: the patch of the window's grid
    patches: tuple[np.ndarray, ...]  # of every bank `[n, D]`


def at_places(
    split: Split, stages: Stages, look: Look, marked: Sequence[Marked]
) -> Iterator[Found]:
    """What the banks of one look have at some places of images, in order.

    Args:
      split: the images, as this look sees them.
      stages: whose own solver scores.
      look: what is fitted to it.
      marked: the places, of every image.

    Raises:
      DatasetError: if features are not finite.
    """
    views = splits.views(split)
    first = np.searchsorted(views.owners, np.arange(len(marked)))
    seen = [_seen(split, number, of_image) for number, of_image in enumerate(marked)]
    chosen = [first[i] + number for i, of_image in enumerate(seen) for number in of_image.needed]
    squares = _squares(stages, look, views.take(chosen))
    grids = [stream.grid for stream in stages.streams]
    for of_image, places_of_image in zip(seen, marked, strict=True):
        shown = list(itertools.islice(squares, len(of_image.needed)))
        yield _found(split, of_image, places_of_image, shown, grids)


class _Seen(NamedTuple):
    """How a look sees an image, and which of its windows matter, by their numbers."""

    windows: Sequence[Window]
    on_map: Sequence[Window]  # the same, in pixels of the map that places are marked on
    needed: list[int]  # those that have part in what the map is at the places
    deepest: list[int]  # [n]: that in which each place lies deepest


class _Square(NamedTuple):
    """What is made of one window."""

    parts: np.ndarray  # [S, s, s]
    patches: list[np.ndarray]  # of every bank [P, D]


def _seen(look: Split, number: int, marked: Marked) -> _Seen:
    if look.windows is not None:
        windows = on_map = look.windows[number]
    else:
        example = look.examples[number]
        windows = (example.window or places.whole(example.image.shape[:2]),)
        on_map = (places.whole(marked.shape),)
    weights = np.stack([
        geometry.weights_at(pixel, on_map, marked.shape, overlap=look.geometry.overlap)
        for pixel in marked.pixels
    ])  # fmt: skip
    needed = np.flatnonzero(weights.any(axis=0))
    if marked.joined != marked.shape:
        # The map was resized, as those of small images are: pixels take from those around them.
        needed = np.arange(len(windows))
    return _Seen(windows, on_map, needed.tolist(), weights.argmax(axis=1).tolist())


def _squares(stages: Stages, look: Look, views: Views) -> Iterator[_Square]:
    contribute = stages.programs[stages.method.solver].contributions
    for batch in assembly.batches(stages, views):
        parts = np.asarray(contribute(look, batch.patches, batch.extents))
        patches = [np.asarray(of_bank) for of_bank in batch.patches]
        for i in range(batch.num):
            yield _Square(parts[:, i], [of_bank[i] for of_bank in patches])


def _found(
    look: Split,
    seen: _Seen,
    marked: Marked,
    squares: Sequence[_Square],
    grids: Sequence[int],
) -> Found:
    """What is found at the places of one image, from the windows that it needs."""

    def assembled(maps: Sequence[np.ndarray]) -> np.ndarray:
        if look.windows is None:
            return maps[0]
        needed = [seen.windows[number] for number in seen.needed]
        return geometry.assemble(maps, needed, marked.shape, overlap=look.geometry.overlap)

    deepest = [squares[seen.needed.index(number)] for number in seen.deepest]
    parts, cells, patches = [], [], []
    for i, grid in enumerate(grids):
        parts.append(marked.read(assembled([square.parts[i] for square in squares])))
        here = [
            places.cell_at(*pixel, grid, marked.shape, seen.on_map[number])
            for pixel, number in zip(marked.pixels, seen.deepest, strict=True)
        ]
        cells.append(here)
        patches.append(np.stack([of.patches[i][c] for of, c in zip(deepest, here, strict=True)]))
    windows = tuple(seen.windows[number] for number in seen.deepest)
    return Found(np.stack(parts), windows, np.array(cells), tuple(patches))
