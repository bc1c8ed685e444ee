"""Where a patch lies in its image: cells of a grid, numbered row by row, and boxes of pixels.

The grid is laid over the square that a network sees, and so over a window of the image: by default
over the whole image as one full square.
"""

import math
from typing import NamedTuple

from sgfr_jax.datasets.geometry import Window, filled

# Of a pixel. Extents are rounded, and a border between two pixels should stay there.
_DIGITS = 6


class Box(NamedTuple):
    """A rectangle of pixels."""

    left: int
    top: int
    width: int
    height: int


def whole(shape: tuple[int, int]) -> Window:
    """The window that shows an image `[H, W]` as one full square."""
    return Window((0, 0, *shape))


def cell_at(
    row: float, column: float, grid: int, shape: tuple[int, int], window: Window | None = None
) -> int:
    """The cell that a pixel of an image lies in.

    Of a window that fills its square in part, the last cells that show the image: what is left of
    it beyond them has no score of its own (`sgfr_jax.extents`).

    Args:
      row: of the pixel.
      column: of the pixel.
      grid: cells per side.
      shape: height and width of the image.
      window: that shows the pixel.
    """
    (top, left, bottom, right), (tall, wide) = window or whole(shape)
    down = _cell_along(row - top, bottom - top, tall, grid)
    return down * grid + _cell_along(column - left, right - left, wide, grid)


def cell_extent(
    cell: int,
    grid: int,
    shape: tuple[int, int],
    window: Window | None = None,
    *,
    around: int = 0,
) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a cell in an image, in pixels and fractions of them.

    A patch's features see farther than its cell: the network's receptive field is wider, and levels
    are averaged over 3 x 3 of their own cells.

    Args:
      cell: its number.
      grid: cells per side.
      shape: height and width of the image.
      window: that the grid is laid over.
      around: cells to add on every side, even beyond the image.
    """
    row, column = divmod(cell, grid)
    (top, left, bottom, right), (tall, wide) = window or whole(shape)
    height, width = (bottom - top) / grid / tall, (right - left) / grid / wide
    return (
        left + (column - around) * width, top + (row - around) * height,
        left + (column + 1 + around) * width, top + (row + 1 + around) * height,
    )  # fmt: skip


def cell_box(cell: int, grid: int, shape: tuple[int, int], window: Window | None = None) -> Box:
    """The pixels of an image that a cell touches; arguments as of `cell_extent`."""
    found = cell_extent(cell, grid, shape, window)
    left, top, right, bottom = (round(side, _DIGITS) for side in found)
    left, top = math.floor(left), math.floor(top)
    # A cell may reach into padding.
    right, bottom = min(math.ceil(right), shape[1]), min(math.ceil(bottom), shape[0])
    return Box(left, top, right - left, bottom - top)


def _cell_along(place: float, length: int, extent: float, grid: int) -> int:
    """The cell along one side, of a place in a window of some length."""
    return min(int(round(place * grid * extent / length, _DIGITS)), filled(extent, grid) - 1)
