"""Blocks of a square's patches, held out of the rest where there is one training image.

Without the atoms that it gave, the only image would be left with none. So its blocks are coded in
turn, each without the atoms that it gave itself.
"""

from collections.abc import Callable

import numpy as np

# Blocks in a row and in a column.
SIDE = 4


def numbers(grid: int) -> np.ndarray:
    """The block of each cell of a square grid, counted row by row: `[grid * grid]` int32.

    Blocks are as large as can be alike; a grid of fewer than four cells a side has no cell in some.
    """
    lines = np.arange(grid, dtype=np.int32) * SIDE // grid
    return (lines[:, None] * SIDE + lines).ravel()


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
    of_cells = numbers(grid)
    own = np.unique(of_cells)
    each = [np.flatnonzero(of_cells == number) for number in own]
    # Smaller blocks have some of their cells scored twice.
    most = max(map(len, each))
    cells = np.stack([np.resize(of_block, most) for of_block in each])
    apart = features[:, cells].reshape(-1, most, features.shape[-1])
    together = []
    for found in score(apart, np.tile(own, len(features))):
        whole = np.empty(features.shape[:2], found.dtype)
        whole[:, cells] = found.reshape(len(features), *cells.shape)
        together.append(whole)
    return together
