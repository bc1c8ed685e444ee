"""One global subspace: what a principal component analysis explains."""

import jax
import jax.numpy as jnp

from sgfr_jax import types
from sgfr_jax.subspaces import bases


def pca(
    key: jax.Array, points: jax.Array, weights: jax.Array, *, rank: int, affine: bool = False
) -> types.Subspaces:
    """The one subspace that leaves the least squared residual (Pearson 1901).

    `min_{B, mu} sum_n w_n |(I - B^T B)(x_n - mu)|^2` over orthonormal rows `B`, `mu = 0` if linear:
    the first eigenvectors of the scatter matrix.

    Args:
      key: not used; learners share a signature.
      points: `[N, D]`.
      weights: `[N]`, how much each counts; 0 for padding.
      rank: `R`, 1 to `min(N, D)`.
      affine: whether the subspace may leave the origin, to pass through the mean.

    Returns:
      `Subspaces` with `S = 1`; rows are zero beyond the rank of the data.

    Raises:
      ValueError: if shapes or dtypes do not fit, or the points cannot have that rank.
    """
    del key
    points, weights = bases.check(points, weights, rank)
    basis, mean = bases.principal(points, weights, rank=rank, affine=affine)
    used = (jnp.sum(weights) > 0).astype(points.dtype)
    return types.Subspaces(basis[None], mean[None], used[None])
