"""In which ways the images of a category are looked at: as `--geometry` says, or as they are."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from sgfr_jax.commands.flags.config import AUTO, Config
from sgfr_jax.datasets.geometry import Geometry

# What images that differ are looked at by.
_OF_DIFFERENT = ("square", "tile")
# Heights, or widths, of which the 90th percentile is more than so many times the 10th, differ.
_ALIKE = 1.25


def of_images(config: Config, shapes: Sequence[tuple[int, int]]) -> list[Geometry]:
    """The ways for a category, with the side of a tile where there are tiles.

    Where `--geometry=auto` leaves it open, images of one size are looked at as squares alone: all
    are squeezed alike. Images of different sizes or shapes are also looked at through tiles, which
    show all at one scale.

    Args:
      config: of the run.
      shapes: heights and widths of the training images; not needed if `settled(config)`.
    """
    found = _of_auto(config, shapes) if config.geometry == AUTO else config.geometries
    if config.tile is not None or all(geometry.kind != "tile" for geometry in found):
        return list(found)
    side = int(np.median([min(shape) for shape in shapes]))
    return [dataclasses.replace(g, tile=side) if g.kind == "tile" else g for g in found]


def settled(config: Config) -> bool:
    """Whether images have no say in it."""
    return config.geometry != AUTO and (not config.tiled or config.tile is not None)


def _of_auto(config: Config, shapes: Sequence[tuple[int, int]]) -> tuple[Geometry, ...]:
    low, high = np.quantile(shapes, (0.1, 0.9), axis=0)
    kinds = ("square",) if (high <= _ALIKE * low).all() else _OF_DIFFERENT
    return dataclasses.replace(config, geometry="+".join(kinds)).geometries
