"""Where an image is anomalous, what tried to mimic it there, and what that could not mimic.

The highest places of an image's anomaly map are explained, each by every bank: how much of the map
the bank adds there, which of its atoms rebuilt the patch, and which levels carry the residual. With
several streams (such as of `--layers=auto`) a stream's part is its weighed, calibrated map; with
several looks (such as of `--geometry=square+tile`) it is that of its look, standardized and divided
by their number. The parts add up to the anomaly map, and are blurred as it is, while atoms and
residual are those of the one patch that lies there: of the window in which the place lies deepest.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from sgfr_jax import explanation, types
from sgfr_jax.backbones.architectures import ARCHITECTURES
from sgfr_jax.datasets import Example
from sgfr_jax.datasets.geometry import Geometry, Window, to_size, windows
from sgfr_jax.detector import (
    assembly,
    choices,
    detectors,
    loading,
    looks,
    models,
    nulls,
    parts,
    places,
)

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


class _Stream(NamedTuple):
    """What explains the patches of one bank."""

    name: str
    levels: tuple[str, ...]
    grid: int
    explain: Callable  # (bank, patches [NUM_PLACES, D]) -> explanation.Explanation


class _Look(NamedTuple):
    """One of the ways in which a model looks at images."""

    geometry: Geometry
    prefix: str  # of the names of its streams
    banks: tuple[types.Bank, ...]
    origins: tuple[detectors.Origins, ...]
    weights: np.ndarray  # [S]: what each stream counts in the look's map; their sum is 1
    # `(map - mean) / divisor` is the look's part of the anomaly map.
    mean: float
    divisor: float


def make_explainer(
    model: models.Model, detector: detectors.Detector, *, least: float
) -> Callable[[Sequence[np.ndarray]], Iterator[Explained]]:
    """What scores and explains images: `[uint8 [H, W] or [H, W, 3], ...] -> Explained, ...`.

    Args:
      model: from `models.load`.
      detector: from `models.make_detector`.
      least: of an image's places all but the highest must have more in the anomaly map.

    Returns:
      A function that scores as `models.make_scorer` does, image by image in order, and names 1 to
      `NUM_PLACES` places of each.
    """
    solver, state = model.config.solver, looks.each(detector.place, model.state)
    streams, of_looks = _streams(model), _looks(model)
    grids = [stream.grid for stream in streams]

    def explain(images: Sequence[np.ndarray]) -> Iterator[Explained]:
        split = loading.laid(models.as_split(images), model.config.geometries)
        apart = looks.apart(split, detector, {solver: state}, [0.0])
        scored = [
            _score(model, detector, example, of_image, least)
            for example, (of_image,) in zip(split.examples, apart, strict=True)
        ]
        marked = [one.marked for one in scored]
        found = zip(*(
            parts.at_places(seen, detector, solver, own, grids, marked)
            for seen, own in zip(loading.looks(split), looks.states(state), strict=True)
        ), strict=True)  # fmt: skip
        for example, one, of_image in zip(split.examples, scored, found, strict=True):
            whole = models.with_surroundings(one.whole, example)
            yield Explained(*whole, _explain(of_looks, streams, example, one, of_image))

    return explain


def peaks(values: np.ndarray, num: int, *, apart: float, least: float) -> list[tuple[int, int]]:
    """Row and column of the highest pixel of `[H, W]`, and of the highest ones away from it.

    Args:
      values: an anomaly map.
      num: at most so many.
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
    marked: parts.Marked  # its highest places
    values: np.ndarray  # [n]: of the anomaly map there
    of_looks: np.ndarray  # [L, n]: and of the map of each look


def _looks(model: models.Model) -> list[_Look]:
    each = zip(
        model.config.geometries, looks.states(model.state),
        nulls.by_look(model.state, model.origins), looks.scales(model.state), strict=True,
    )  # fmt: skip
    several = len(model.config.geometries) > 1
    return [
        _Look(
            of, f"{of.kind}: " if several else "", nulls.banks(state), origins, _weights(state),
            *scale,
        )
        for of, state, origins, scale in each
    ]  # fmt: skip


def _weights(state: Any) -> np.ndarray:
    """What each bank of a look counts in its map; they add up to 1."""
    return np.ones(1) if isinstance(state, types.Bank) else np.asarray(state.map_weights)


def _streams(model: models.Model) -> list[_Stream]:
    config = model.config
    widths, code = ARCHITECTURES[config.backbone].widths, choices.make_coder(config.solver, config)
    found = []
    for image_size, names, grid in models.layout(config):
        levels = tuple(names.split("+"))
        explain = partial(
            explanation.explain,
            code=code, level_widths=[widths[name] for name in levels], num_atoms=NUM_ATOMS,
        )  # fmt: skip
        found.append(_Stream(f"{names}@{image_size}", levels, grid, jax.jit(explain)))
    return found


def _score(
    model: models.Model,
    detector: detectors.Detector,
    example: Example,
    of_looks: Sequence[assembly.Whole],
    least: float,
) -> _Scored:
    """What all looks make of an image together, and its highest places."""
    whole = looks.together(detector, model.state, of_looks)
    anomaly_map = whole.anomaly_map
    if model.config.geometry not in _ONE_SQUARE:
        # As it comes if other images of the same call are no squares.
        anomaly_map = to_size(anomaly_map, example.image.shape[:2])
    apart = _APART * math.sqrt(anomaly_map.size)
    highest = peaks(anomaly_map, NUM_PLACES, apart=apart, least=least)
    marked = parts.Marked(highest, anomaly_map.shape, whole.anomaly_map.shape)
    values = np.array([anomaly_map[pixel] for pixel in highest])
    each = np.stack([marked.read(one.anomaly_map) for one in of_looks])
    return _Scored(whole, marked, values, each)


def _explain(
    of_looks: Sequence[_Look],
    streams: Sequence[_Stream],
    example: Example,
    scored: _Scored,
    found: Sequence[parts.Found],
) -> tuple[Place, ...]:
    """The places of one image, from what each look has there."""
    views = [[] for _ in scored.values]
    standard = [
        (values - look.mean) / look.divisor
        for look, values in zip(of_looks, scored.of_looks, strict=True)
    ]
    # What the image as a whole adds to its map, which all looks share, and all streams of each.
    prior = (scored.values - np.sum(standard, axis=0)) / len(of_looks)
    for look, values, here in zip(of_looks, standard, found, strict=True):
        whole = here.parts.sum(axis=0) / look.divisor
        # By so much the look's share is lower than all parts: its halo, less what an only look
        # adds as a whole, and what is nominal.
        lower = whole - values - prior
        added = here.parts / look.divisor - look.weights[:, None] * lower[None]
        banks = zip(streams, look.banks, look.origins, strict=True)
        for s, (stream, bank, origin) in enumerate(banks):
            patches = here.patches[s]
            # One shape compiles once.
            rebuilt = stream.explain(bank, np.resize(patches, (NUM_PLACES, patches.shape[1])))
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


def _atoms(found: explanation.Explanation, i: int, origin: detectors.Origins) -> Iterator[Atom]:
    for number, weight in zip(found.atoms[i], found.coefficients[i], strict=True):
        if number >= 0:
            yield Atom(int(number), float(weight), *(int(of[number]) for of in origin))
