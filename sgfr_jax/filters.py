"""Resampling and smoothing along one axis, as small dense matrices.

Averaging, bilinear resizing and Gaussian blurring are linear and separable: each is one matrix per
axis, a chain of them is the product of the matrices, and applying the chain to a grid is
`rows @ grid @ columns.T`. The matrices depend on sizes alone, so they are built with NumPy while
tracing and become constants of the compiled program.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from sgfr_jax import linalg


def mean_matrix(size: int, width: int) -> np.ndarray:
    """A moving average of odd `width` that counts cells beyond the border as zeros.

    Returns:
      `[size, size]` float64; rows sum to one except at the borders.
    """
    cells = np.arange(size)
    return (np.abs(cells[:, None] - cells) <= width // 2) / width


def resize_matrix(size: int, new_size: int) -> np.ndarray:
    """Linear interpolation between cell centres, constant beyond the outermost.

    The convention of `jax.image.resize(..., "linear", antialias=False)` and of torch's
    `interpolate(mode="bilinear", align_corners=False)`: positions at half cells, and only the two
    neighbours of a position count, also when it shrinks.

    Returns:
      `[new_size, size]` float64; rows sum to one.
    """
    centres = (np.arange(new_size) + 0.5) * (size / new_size) - 0.5
    offsets = np.abs(np.clip(centres, 0, size - 1)[:, None] - np.arange(size))
    return np.maximum(1 - offsets, 0)


def gaussian_matrix(size: int, sigma: float) -> np.ndarray:
    """A Gaussian blur of `sigma` cells, cut off at four sigma, mirrored at the borders.

    Returns:
      `[size, size]` float64; rows sum to one. `sigma = 0` gives the identity.
    """
    if sigma == 0:
        return np.eye(size)
    return ndimage.gaussian_filter1d(np.eye(size), sigma, axis=0, mode="reflect")


def apply(rows: np.ndarray, columns: np.ndarray, grid: jax.Array) -> jax.Array:
    """Applies one matrix along the height and another along the width.

    Args:
      rows: `[H, h]`.
      columns: `[W, w]`.
      grid: `[B, h, w, D]`.

    Returns:
      `[B, H, W, D]`, float32 at least. NaN spreads over its grid, also through zeros.
    """
    grid = linalg.at_least_float32(grid)
    rows, columns = (jnp.asarray(matrix, grid.dtype) for matrix in (rows, columns))
    tall = jnp.einsum("Hh,bhwd->bHwd", rows, grid, precision=linalg.HIGHEST)
    return jnp.einsum("Ww,bHwd->bHWd", columns, tall, precision=linalg.HIGHEST)
