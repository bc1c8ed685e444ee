"""Blocks of a square's patches, held out of the rest where there is one training image.

Without the atoms that it gave, the only image would be left with none. So its blocks are coded in
turn, each without the atoms that it gave itself.
"""

from collections.abc import Callable

import numpy as np

# Blocks in a row and in a column.
_SIDE = 4


def of_grid(grid: int) -> np.ndarray:
    """The cells of the blocks of a square grid.

    Args:
      grid: cells in a row and in a column.

    Returns:
      `[K, n]`: the cells, counted row by row, of each of at most 16 blocks that are as large as can
      be alike; smaller ones name some of their cells again.
    """
    lines = np.array_split(np.arange(grid), min(_SIDE, grid))
    cells = np.arange(grid**2).reshape(grid, grid)
    found = [cells[np.ix_(rows, columns)].ravel() for rows in lines for columns in lines]
    most = max(map(len, found))
    return np.stack([np.resize(block, most) for block in found])


def numbers(grid: int) -> np.ndarray:
    """The block of each cell of a grid, `[grid * grid]` int32."""
    found = np.empty(grid**2, np.int32)
    for number, cells in enumerate(of_grid(grid)):
        found[cells] = number
    return found


def held_out(
    score: Callable[[np.ndarray, np.ndarray], list[np.ndarray]], grid: int, features: np.ndarray
) -> list[np.ndarray]:
    """Scores patches without the atoms that their blocks gave.

    Args:
      score: `(features [B, n, D], own [B]) -> (scores [B, n], owners [B, n])`, of patches without
        the atoms of a block.
      grid: of the squares.
      features: `[V, P, D]` of squares.

    Returns:
      Scores and owners, `[V, P]` each.
    """
    cells = of_grid(grid)
    apart = features[:, cells].reshape(-1, cells.shape[1], features.shape[-1])
    own = np.tile(np.arange(len(cells), dtype=np.int32), len(features))
    together = []
    for found in score(apart, own):
        whole = np.empty(features.shape[:2], found.dtype)
        whole[:, cells] = found.reshape(len(features), *cells.shape)
        together.append(whole)
    return together
