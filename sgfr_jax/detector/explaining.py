"""Where an image is anomalous, what tried to mimic it there, and what that could not mimic.

The highest places of an image's anomaly map are explained, each by every bank: how much of the map
the bank adds there, which of its atoms rebuilt the patch, and which levels carry the residual. With
several streams (such as of `--layers=auto`) a stream's part is its weighed, calibrated map; with
several looks (such as of `geometry="square+tile"`) the map is its look's, standardized and divided
by their number. The parts add up to the anomaly map, and are blurred as it is, while atoms and
residual belong to the one patch that lies there, of the window in which the place lies deepest.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from sgfr_jax import explanation
from sgfr_jax.datasets import Example
from sgfr_jax.datasets.geometry import Geometry, Window, to_size, windows
from sgfr_jax.detector import (
    alternatives,
    assembly,
    contributions,
    looks,
    places,
    predicting,
    splits,
)
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.model import Detector
from sgfr_jax.detector.stages import Stages
from sgfr_jax.detector.state import Look, Origins

# Places of an image that are explained, and how many atoms of each bank are named.
NUM_PLACES, NUM_ATOMS = 3, 5
# The distance between two places, as a share of the side of a square as large as the map.
_APART = 1 / 5
# Where all of an image that is looked at is one full square, places are found on its map.
_ONE_SQUARE = ("square", "crop")


class Atom(NamedTuple):
    """An atom that took part in rebuilding a patch."""

    number: int  # row of the bank
    weight: float  # its coefficient
    image: int  # the training image that it is a patch of; -1: learned from many
    window: int  # in which of the image's windows; -1: the same
    cell: int  # and which patch of the window; -1: the same


class View(NamedTuple):
    """What one bank makes of a place."""

    stream: str  # the levels and image size that the bank sees, and how, if there are several ways
    geometry: Geometry  # how it looks at images
    window: Window  # of the image: the one whose patch is meant
    grid: int  # patches per side
    cell: int  # the patch at the place
    part: float  # what the bank adds to the anomaly map there
    score: float  # the norm of the patch's residual
    levels: dict[str, float]  # the share of each level in the squared residual
    atoms: tuple[Atom, ...]  # largest contribution first


class Place(NamedTuple):
    """A peak of an anomaly map."""

    x: float  # from the left, as a share of the image's width
    y: float  # and from the top, of its height
    value: float  # of the anomaly map
    views: tuple[View, ...]  # of all banks, the largest part first


def atom_window(view: View, atom: Atom, shape: tuple[int, int]) -> Window:
    """The window of its training image `[H, W]` that an atom is a patch of."""
    return windows(shape, view.geometry)[atom.window]


class Explained(NamedTuple):
    """What `assembly.Whole` says of an image, and why."""

    anomaly_map: np.ndarray
    score: float
    places: tuple[Place, ...]  # highest first


class _Look(NamedTuple):
    """One of the ways in which a detector looks at images."""

    geometry: Geometry
    prefix: str  # of the names of its streams
    fitted: Look
    # `(map - mean) / divisor` is the look's part of the anomaly map.
    mean: float
    divisor: float


def make_explainer(
    detector: Detector, stages: Stages, *, least: float
) -> Callable[..., Iterator[Explained]]:
    """What scores and explains images: `[uint8 [H, W] or [H, W, 3], ...] -> Explained, ...`.

    Args:
      detector: fitted.
      stages: of it, from `model.stages_of`.
      least: of an image's places all but the highest must have more in the anomaly map.

    Returns:
      A function that scores as `predicting.make_scorer` does, image by image in order, and names 1
      to `NUM_PLACES` places of each. Its second argument is the images' names in errors; None:
      their numbers.
    """
    method = detector.method
    state = stages.services.replicate(detector.state)
    every_look = _looks(detector)

    def explain(
        images: Sequence[np.ndarray], names: Sequence[str] | None = None
    ) -> Iterator[Explained]:
        split = splits.laid(splits.of_arrays(images, names), method.geometries)
        apart = looks.apart(split, stages, {method.solver: state})
        scored = [
            _score(detector, example, each, least)
            for example, (each,) in zip(split.examples, apart, strict=True)
        ]
        marked = [one.marked for one in scored]
        found = zip(*(
            contributions.at_places(seen, stages, look, marked)
            for seen, look in zip(splits.looks(split), state.looks, strict=True)
        ), strict=True)  # fmt: skip
        for example, one, of_image in zip(split.examples, scored, found, strict=True):
            whole = predicting.with_surroundings(one.whole, example)
            yield Explained(*whole, _explain(every_look, stages, example, one, of_image))

    return explain


def peaks(values: np.ndarray, num: int, *, apart: float, least: float) -> list[tuple[int, int]]:
    """Row and column of the highest pixel of `[H, W]`, and of the highest ones away from it.

    Args:
      values: an anomaly map.
      num: how many pixels to name, at most.
      apart: in pixels, between any two of them; more than 0.
      least: all but the first are above this.
    """
    left, reach = np.array(values), math.ceil(apart)
    found = []
    while len(found) < num and (not found or left.max() > least):
        row, column = (int(i) for i in np.unravel_index(np.argmax(left), left.shape))
        found.append((row, column))
        top, start = max(0, row - reach), max(0, column - reach)
        near = left[top : row + reach + 1, start : column + reach + 1]  # photographs are large
        rows, columns = np.ogrid[: near.shape[0], : near.shape[1]]
        near[(top + rows - row) ** 2 + (start + columns - column) ** 2 < apart**2] = -np.inf
    return found


class _Scored(NamedTuple):
    """An image before it is explained."""

    whole: assembly.Whole
    marked: contributions.Marked  # its highest places
    values: np.ndarray  # [n]: of the anomaly map there
    of_looks: np.ndarray  # [L, n]: and of the map of each look


def _looks(detector: Detector) -> list[_Look]:
    geometries = detector.method.geometries
    each = zip(geometries, detector.state.looks, looks.scales(detector.state), strict=True)
    several = len(geometries) > 1
    return [
        _Look(geometry, f"{geometry.kind}: " if several else "", look, *scale)
        for geometry, look, scale in each
    ]


@functools.lru_cache(8)
def _rebuild(method: Method, widths: tuple[int, ...], jit: Callable) -> Callable:
    """`(bank, patches [NUM_PLACES, D]) -> Explanation`, compiled once for equal methods."""
    code = alternatives.make_coder(method.solver, method)
    found = partial(explanation.explain, code=code, level_widths=list(widths), num_atoms=NUM_ATOMS)
    return jit(found)


def _score(
    detector: Detector, example: Example, of_looks: Sequence[assembly.Whole], least: float
) -> _Scored:
    """What all looks make of an image together, and its highest places."""
    whole = looks.together(detector.method, detector.state, of_looks)
    anomaly_map = whole.anomaly_map
    if detector.method.geometry not in _ONE_SQUARE:
        # As it comes if other images of the same call are no squares.
        anomaly_map = to_size(anomaly_map, example.image.shape[:2])
    apart = _APART * math.sqrt(anomaly_map.size)
    highest = peaks(anomaly_map, NUM_PLACES, apart=apart, least=least)
    marked = contributions.Marked(highest, anomaly_map.shape, whole.anomaly_map.shape)
    values = np.array([anomaly_map[pixel] for pixel in highest])
    each = np.stack([marked.read(one.anomaly_map) for one in of_looks])
    return _Scored(whole, marked, values, each)


def _explain(
    every_look: Sequence[_Look],
    stages: Stages,
    example: Example,
    scored: _Scored,
    found: Sequence[contributions.Found],
) -> tuple[Place, ...]:
    """The places of one image, from what each look has there."""
    views = [[] for _ in scored.values]
    standard = [
        (values - look.mean) / look.divisor
        for look, values in zip(every_look, scored.of_looks, strict=True)
    ]
    # What the image as a whole adds to its map, which all looks share, and all streams of each.
    prior = (scored.values - np.sum(standard, axis=0)) / len(every_look)
    for look, values, here in zip(every_look, standard, found, strict=True):
        whole = here.parts.sum(axis=0) / look.divisor
        # By so much the look's share is lower than all parts: its halo, less what an only look
        # adds as a whole, and what is nominal.
        lower = whole - values - prior
        weights = np.asarray(look.fitted.map_weights)
        added = here.parts / look.divisor - weights[:, None] * lower[None]
        banks = zip(stages.streams, look.fitted.banks, look.fitted.origins, strict=True)
        for s, (stream, bank, origin) in enumerate(banks):
            patches = here.patches[s]
            # One shape compiles once.
            explain = _rebuild(stages.method.coding(), stream.widths, stages.services.jit)
            rebuilt = explain(bank, np.resize(patches, (NUM_PLACES, patches.shape[1])))
            rebuilt = jax.device_get(rebuilt)
            for i, of_place in enumerate(views):
                of_place.append(
                    View(
                        look.prefix + stream.name, look.geometry, here.windows[i], stream.grid,
                        int(here.cells[s, i]), float(added[s, i]), float(rebuilt.scores[i]),
                        dict(zip(stream.levels, map(float, rebuilt.shares[i]), strict=True)),
                        tuple(_atoms(rebuilt, i, origin)),
                    )
                )  # fmt: skip
    return tuple(
        Place(
            *_shares_of_sides(example, pixel, scored.marked.shape),
            float(value),
            tuple(sorted(of_place, key=lambda view: -view.part)),
        )
        for pixel, value, of_place in zip(scored.marked.pixels, scored.values, views, strict=True)
    )


def _shares_of_sides(
    example: Example, pixel: tuple[int, int], shape: tuple[int, int]
) -> tuple[float, float]:
    """Where in an image a pixel of its map lies; the map shows the part of it that is meant."""
    height, width = example.image.shape[:2]
    top, left, bottom, right = (example.window or places.whole((height, width))).box
    row, column = ((x + 0.5) / side for x, side in zip(pixel, shape, strict=True))
    return (left + column * (right - left)) / width, (top + row * (bottom - top)) / height


def _atoms(found: explanation.Explanation, i: int, origin: Origins) -> Iterator[Atom]:
    for number, weight in zip(found.atoms[i], found.coefficients[i], strict=True):
        if number >= 0:
            yield Atom(int(number), float(weight), *(int(of[number]) for of in origin))
