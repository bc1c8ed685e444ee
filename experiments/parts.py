"""What each bank of a look adds to the maps of images at a few places, and the patches there.

Maps of streams are weighed and added, those of windows averaged, and all are resized on the way to
the anomaly map: every step is linear, so that parts go the same way and add up to it. They are
wanted at a few pixels, so only windows that show one of these are embedded again, and the maps of
one bank are put together at a time: photographs are large.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import assembly, detectors, loading, places
from sgfr_jax.datasets import geometry
from sgfr_jax.datasets.geometry import Window


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


def windows(look: loading.Split, number: int) -> tuple[Window, ...]:
    """The windows through which an image of a split is seen, in pixels of the image.

    Args:
      look: the split, as it is looked at in one way.
      number: of the image, whose example holds an array.
    """
    if look.windows is not None:
        return look.windows[number]
    example = look.examples[number]
    return (example.window or places.whole(example.image.shape[:2]),)


def at_places(
    look: loading.Split,
    detector: detectors.Detector,
    solver: str,
    state: Any,
    grids: Sequence[int],
    marked: Sequence[Marked],
) -> Iterator[Found]:
    """What the banks of one look have at some places of images, in order.

    Args:
      look: the images, as they are looked at in one way.
      detector: that scores.
      solver: with which.
      state: of the look.
      grids: patches per side, of every bank.
      marked: the places, of every image.

    Raises:
      DatasetError: if features are not finite.
    """
    seen = loading.views(look)
    first = np.searchsorted(seen.owners, np.arange(len(marked)))
    images = [_needed(look, number, of_image) for number, of_image in enumerate(marked)]
    chosen = [first[i] + number for i, image in enumerate(images) for number in image.windows]
    squares = _squares(detector, solver, state, seen.take(chosen))
    for i, image in enumerate(images):
        shown = dict(zip(image.windows, itertools.islice(squares, len(image.windows)), strict=True))
        yield _found(look, windows(look, i), marked[i], image.deepest, shown, grids)


class _Needed(NamedTuple):
    """Of the windows of an image, by their numbers."""

    windows: list[int]  # that have part in what the map is at the places
    deepest: list[int]  # [n]: in which each place lies deepest


class _Square(NamedTuple):
    """What is made of one window."""

    parts: np.ndarray  # [S, s, s]
    patches: list[np.ndarray]  # of every bank [P, D]


def _needed(look: loading.Split, number: int, marked: Marked) -> _Needed:
    if look.windows is None:
        return _Needed([0], [0] * len(marked.pixels))
    own = look.windows[number]
    weights = np.stack([
        geometry.weights_at(pixel, own, marked.shape, overlap=look.geometry.overlap)
        for pixel in marked.pixels
    ])  # fmt: skip
    # Where the map was resized, so that of a small image, pixels take from those around them.
    direct = marked.joined == marked.shape
    some = np.flatnonzero(weights.any(axis=0)) if direct else range(len(own))
    return _Needed([int(i) for i in some], [int(i) for i in weights.argmax(axis=1)])


def _squares(
    detector: detectors.Detector, solver: str, state: Any, seen: loading.Views
) -> Iterator[_Square]:
    for batch in assembly.batches(detector, seen):
        parts = np.asarray(detector.parts[solver](state, batch.patches, batch.extents))
        patches = [np.asarray(of_bank) for of_bank in jax.tree.leaves(batch.patches)]
        for i in range(batch.num):
            yield _Square(parts[:, i], [of_bank[i] for of_bank in patches])


def _found(
    look: loading.Split,
    own: Sequence[Window],
    marked: Marked,
    deepest: Sequence[int],
    shown: Mapping[int, _Square],
    grids: Sequence[int],
) -> Found:
    """What is found at the places of one image.

    Args:
      look: that has the image.
      own: its windows.
      marked: the places.
      deepest: of the windows, for every place.
      shown: what is made of those that are needed.
      grids: patches per side, of every bank.
    """
    # The map shows what the one window of a square or a crop does.
    on_map = own if look.windows is not None else [places.whole(marked.shape)]
    parts, cells, patches = [], [], []
    for i, grid in enumerate(grids):
        maps = [square.parts[i] for square in shown.values()]
        if look.windows is None:
            (joined,) = maps
        else:
            joined = geometry.assemble(
                maps, [own[number] for number in shown], marked.shape,
                overlap=look.geometry.overlap,
            )  # fmt: skip
        parts.append(marked.read(joined))
        here = [
            places.cell_at(*pixel, grid, marked.shape, on_map[number])
            for pixel, number in zip(marked.pixels, deepest, strict=True)
        ]
        cells.append(here)
        of_places = zip(deepest, here, strict=True)
        patches.append(np.stack([shown[n].patches[i][cell] for n, cell in of_places]))
    return Found(
        np.stack(parts), tuple(own[number] for number in deepest), np.array(cells), tuple(patches)
    )
