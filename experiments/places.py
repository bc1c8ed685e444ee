"""Where a patch lies in its image: cells of a grid, numbered row by row, and boxes of pixels."""

import math
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle of pixels."""

    left: int
    top: int
    width: int
    height: int


def cell_at(row: float, column: float, grid: int, shape: tuple[int, int]) -> int:
    """The cell of a `grid x grid` that a pixel of an image `[H, W]` lies in."""
    across = (min(int(x * grid / n), grid - 1) for x, n in zip((row, column), shape, strict=True))
    down, right = across
    return down * grid + right


def cell_extent(
    cell: int, grid: int, shape: tuple[int, int], *, around: int = 0
) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a cell in an image, in pixels and fractions of them.

    A patch's features see farther than its cell: the network's receptive field is wider, and levels
    are averaged over 3 x 3 of their own cells.

    Args:
      cell: its number.
      grid: cells per side.
      shape: height and width of the image.
      around: also so many cells on every side, even beyond the image.
    """
    row, column = divmod(cell, grid)
    height, width = (size / grid for size in shape)
    return (
        (column - around) * width, (row - around) * height,
        (column + 1 + around) * width, (row + 1 + around) * height,
    )  # fmt: skip


def cell_box(cell: int, grid: int, shape: tuple[int, int]) -> Box:
    """The pixels of an image that a cell touches; arguments as of `cell_extent`."""
    left, top, right, bottom = cell_extent(cell, grid, shape)
    left, top = math.floor(left), math.floor(top)
    return Box(left, top, math.ceil(right) - left, math.ceil(bottom) - top)
