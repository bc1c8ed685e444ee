"""Squares that an image fills in part: which cells show it, and what to do about the others.

An extent is the share of a square's height and width that the image fills, from the top left
corner; what is left is padding, which must never score. A cell, be it a patch or a pixel, shows the
image if its centre does, and the first one always.
"""

import jax
import jax.numpy as jnp


def inside(extents: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Which cells show the image.

    Args:
      extents: `[B, 2]` in (0, 1].
      grid: `(h, w)`, the cells of the whole square.

    Returns:
      `[B, h, w]` bool.
    """
    rows, columns = _filled(extents, grid)
    down = jnp.arange(grid[0])[None] < rows[:, None]
    across = jnp.arange(grid[1])[None] < columns[:, None]
    return down[:, :, None] & across[:, None, :]


def extend(scores: jax.Array, extents: jax.Array) -> jax.Array:
    """The scores of the image's last cells, carried on over the padding.

    So resizing and blurring near the image's border see what they see at a square's border.

    Args:
      scores: `[B, h, w]`.
      extents: `[B, 2]` in (0, 1].

    Returns:
      `[B, h, w]`.
    """
    rows, columns = _filled(extents, scores.shape[1:])
    down = jnp.minimum(jnp.arange(scores.shape[1])[None], rows[:, None] - 1)
    across = jnp.minimum(jnp.arange(scores.shape[2])[None], columns[:, None] - 1)
    scores = jnp.take_along_axis(scores, down[:, :, None], axis=1)
    return jnp.take_along_axis(scores, across[:, None, :], axis=2)


def border_distance(extents: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """How many cells lie between each cell and the nearest border of the image.

    Args:
      extents: `[B, 2]` in (0, 1].
      grid: `(h, w)`.

    Returns:
      `[B, h, w]` int32: 0 in the outermost cells of the image; negative in the padding.
    """
    to_border = [
        jnp.minimum(jnp.arange(size)[None], length[:, None] - 1 - jnp.arange(size)[None])
        for length, size in zip(_filled(extents, grid), grid, strict=True)
    ]
    return jnp.minimum(to_border[0][:, :, None], to_border[1][:, None, :])


def _filled(extents: jax.Array, grid: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """How many rows and columns show the image, `[B]` int32 each."""
    cells = jnp.asarray(grid, jnp.float32)[None]
    counts = jnp.floor(jnp.asarray(extents) * cells + 0.5).astype(jnp.int32)
    counts = jnp.maximum(counts, 1)
    return counts[:, 0], counts[:, 1]
