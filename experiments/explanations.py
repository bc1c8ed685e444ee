"""Where an image is anomalous, what tried to mimic it there, and what that could not mimic.

The highest places of an image's anomaly map are explained, each by every bank: how much of the map
the bank adds there, which of its atoms rebuilt the patch, and which levels carry the residual. With
several streams (such as of `--layers=auto`) a stream's part is its weighed, calibrated map; the
parts add up to the anomaly map, and are blurred as it is, while atoms and residual are those of the
one patch that lies there.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import assembly, choices, detectors, loading, models, nulls, places
from sgfr_jax import explanation
from sgfr_jax.backbones.architectures import ARCHITECTURES

# Places of an image that are explained, and how many atoms of each bank are named.
NUM_PLACES, NUM_ATOMS = 3, 5
# The distance between two places, as a share of the map's side.
_APART = 1 / 5


class Atom(NamedTuple):
    """An atom that took part in rebuilding a patch."""

    number: int  # row of the bank
    weight: float  # its coefficient
    image: int  # the training image that it is a patch of; -1: learned from many
    cell: int  # and which of its patches; -1: the same


class View(NamedTuple):
    """What one bank makes of a place."""

    stream: str  # the levels and image size that the bank sees
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


class _Stream(NamedTuple):
    """What explains the patches of one bank."""

    name: str
    levels: tuple[str, ...]
    grid: int
    explain: Callable  # (bank, patches [NUM_PLACES, D]) -> explanation.Explanation


def make_explainer(
    model: models.Model, detector: detectors.Detector, *, least: float
) -> Callable[[Sequence[np.ndarray]], Iterator[tuple[Place, ...]]]:
    """What explains images: `[uint8 [H, W] or [H, W, 3], ...] -> (Place, ...), ...`, in order.

    Args:
      model: from `models.load`.
      detector: from `models.make_detector`.
      least: of an image's places all but the highest must have more in the anomaly map.

    Returns:
      A function whose places are highest first: 1 to `NUM_PLACES` of each image.
    """
    streams = _streams(model)
    parts_of = detector.parts[model.config.solver]

    def explain(images: Sequence[np.ndarray]) -> Iterator[tuple[Place, ...]]:
        seen = loading.views(models.as_split(images))
        for batch in assembly.batches(detector, seen):
            parts = np.asarray(parts_of(model.state, batch.patches))
            each = [np.asarray(x) for x in jax.tree.leaves(batch.patches)]
            for i in range(batch.num):
                yield _explain(model, streams, [x[i] for x in each], parts[:, i], least)

    return explain


def peaks(values: np.ndarray, num: int, *, apart: float, least: float) -> list[tuple[int, int]]:
    """Row and column of the highest pixel of `[H, W]`, and of the highest ones away from it.

    Args:
      values: an anomaly map.
      num: at most so many.
      apart: in pixels, between any two of them; more than 0.
      least: all but the first are above this.
    """
    left = np.array(values, np.float64)
    rows, columns = np.ogrid[: left.shape[0], : left.shape[1]]
    found = []
    while len(found) < num and (not found or left.max() > least):
        row, column = (int(i) for i in np.unravel_index(np.argmax(left), left.shape))
        found.append((row, column))
        left[(rows - row) ** 2 + (columns - column) ** 2 < apart**2] = -np.inf
    return found


def describe(place: Place, shape: tuple[int, ...], train: Sequence[str]) -> dict[str, Any]:
    """A place as JSON takes it, in pixels of the image.

    Args:
      place: of the image.
      shape: the image's, height and width first.
      train: names of the training images.
    """
    return {
        "x": round(place.x * shape[1], 1),
        "y": round(place.y * shape[0], 1),
        "value": place.value,
        "streams": [
            {
                "name": view.stream,
                "part": view.part,
                "residual": view.score,
                "levels": view.levels,
                "box": places.cell_box(view.cell, view.grid, shape[:2]),
                "atoms": [_describe_atom(atom, view.grid, train) for atom in view.atoms],
            }
            for view in place.views
        ],
    }


def _describe_atom(atom: Atom, grid: int, train: Sequence[str]) -> dict[str, Any]:
    """Where an atom comes from: its cell, counted from 0, as the training image may be gone."""
    named = {"atom": atom.number, "weight": atom.weight}
    if atom.image < 0:
        return named | {"learned": True}
    row, column = divmod(atom.cell, grid)
    return named | {"image": train[atom.image], "row": row, "column": column, "grid": grid}


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


def _explain(
    model: models.Model,
    streams: Sequence[_Stream],
    patches: Sequence[np.ndarray],
    parts: np.ndarray,
    least: float,
) -> tuple[Place, ...]:
    """The places of one image, from the patches `[P, D]` and the parts `[S, S]` of every bank."""
    whole = parts.sum(axis=0)
    size = len(whole)
    highest = peaks(whole, NUM_PLACES, apart=_APART * size, least=least)
    views = [[] for _ in highest]
    banks = nulls.banks(model.state)
    for stream, bank, origin, of_bank, part in zip(
        streams, banks, model.origins, patches, parts, strict=True
    ):
        cells = [places.cell_at(*place, stream.grid, whole.shape) for place in highest]
        padded = cells + [0] * (NUM_PLACES - len(cells))  # one shape compiles once
        found = jax.device_get(stream.explain(bank, of_bank[np.array(padded)]))
        for i, (place, cell) in enumerate(zip(highest, cells, strict=True)):
            views[i].append(
                View(
                    stream.name, stream.grid, cell, float(part[place]), float(found.scores[i]),
                    dict(zip(stream.levels, map(float, found.shares[i]), strict=True)),
                    tuple(_atoms(found, i, origin)),
                )
            )  # fmt: skip
    return tuple(
        Place(
            (column + 0.5) / size,
            (row + 0.5) / size,
            float(whole[row, column]),
            tuple(sorted(of_place, key=lambda view: -view.part)),
        )
        for (row, column), of_place in zip(highest, views, strict=True)
    )


def _atoms(found: explanation.Explanation, i: int, origin: detectors.Origins) -> Iterator[Atom]:
    for number, weight in zip(found.atoms[i], found.coefficients[i], strict=True):
        if number >= 0:
            image, cell = int(origin.images[number]), int(origin.cells[number])
            yield Atom(int(number), float(weight), image, cell)
