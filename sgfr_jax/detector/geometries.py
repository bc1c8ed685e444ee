"""In which ways the images of a category are looked at: as the method says, or as they are."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from sgfr_jax.datasets import Example
from sgfr_jax.datasets.geometry import Geometry
from sgfr_jax.detector import splits
from sgfr_jax.detector.method import AUTO, Method

# What images that are long, or differ, are looked at by.
_BOTH = ("square", "tile")
# Heights, or widths, differ if their 90th percentile is more than this multiple of their 10th.
_ALIKE = 1.25
# Images of longer sides than cameras' 4:3 and 3:2 lose too much where a square squeezes them.
_LONG = 1.6


def of_training_images(method: Method, train: Sequence[Example]) -> list[Geometry]:
    """The ways for a category, with the side of a tile where there are tiles.

    Where `geometry` is `auto`, images of one size that are nearly square are looked at as squares
    alone: all are squeezed alike. Images that are long, or of different sizes or shapes, are also
    looked at through tiles, which show all at one scale.

    Args:
      method: from `settle.settle`.
      train: the training images, whose shapes may decide.

    Raises:
      DatasetError: if a training image is needed to tell, and cannot be read.
    """
    shapes = () if settled(method) else splits.shapes(train)
    found = _of_auto(method, shapes) if method.geometry == AUTO else method.geometries
    if method.tile is not None or all(geometry.kind != "tile" for geometry in found):
        return list(found)
    side = int(np.median([min(shape) for shape in shapes]))
    return [dataclasses.replace(g, tile=side) if g.kind == "tile" else g for g in found]


def settled(method: Method) -> bool:
    """Whether images have no say in it."""
    return method.geometry != AUTO and (not method.tiled or method.tile is not None)


def as_seen(method: Method, geometries: Sequence[Geometry]) -> Method:
    """The method that names how a category's images were looked at, and nothing else."""
    kinds = "+".join(geometry.kind for geometry in geometries)
    sides = {geometry.kind: geometry.tile for geometry in geometries}
    overlap = method.overlap if "tile" in sides else Method.overlap
    large = method.large_image_size if method.is_large else None
    return dataclasses.replace(
        method, geometry=kinds, tile=sides.get("tile"), overlap=overlap, large_image_size=large
    )


def different(each: Sequence[Geometry], *found: splits.Split) -> list[tuple]:
    """The ways that do not come to the same windows, each with the splits as it sees them.

    Args:
      each: ways of looking.
      *found: splits that are looked at alike, such as training and test images.
    """
    by_windows = {}
    for geometry in each:
        seen = [splits.with_windows(split, geometry) for split in found]
        by_windows.setdefault(tuple(split.windows for split in seen), (geometry, *seen))
    return list(by_windows.values())


def _of_auto(method: Method, shapes: Sequence[tuple[int, int]]) -> tuple[Geometry, ...]:
    low, high = np.quantile(shapes, (0.1, 0.9), axis=0)
    long = np.median(np.max(shapes, axis=1) / np.min(shapes, axis=1)) >= _LONG
    kinds = _BOTH if long or (high > _ALIKE * low).any() else ("square",)
    return dataclasses.replace(method, geometry="+".join(kinds)).geometries
