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


def cell_box(cell: int, grid: int, shape: tuple[int, int], *, around: int = 0) -> Box:
    """The pixels of an image that a cell covers, all that it touches.

    A patch's features see farther than its cell: the network's receptive field is wider, and levels
    are averaged over 3 x 3 of their own cells.

    Args:
      cell: its number.
      grid: cells per side.
      shape: height and width of the image.
      around: also so many cells on every side, as far as the image goes.
    """
    row, column = divmod(cell, grid)
    (top, bottom), (left, right) = (
        (
            max(0, math.floor((place - around) * size / grid)),
            min(size, math.ceil((place + 1 + around) * size / grid)),
        )
        for place, size in zip((row, column), shape, strict=True)
    )
    return Box(left, top, right - left, bottom - top)
