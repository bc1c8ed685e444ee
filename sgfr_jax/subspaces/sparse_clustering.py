"""Sparse subspace clustering: points that code each other lie in one subspace."""

import jax
import jax.numpy as jnp

from sgfr_jax import self_expression, types
from sgfr_jax.subspaces import bases
from sgfr_jax.subspaces.spectral import spectral_clustering


def sparse_clustering(
    key: jax.Array,
    points: jax.Array,
    weights: jax.Array,
    *,
    num_subspaces: int,
    rank: int,
    code: self_expression.MakeCode,
    affine: bool = False,
    num_restarts: int = 10,
) -> types.Subspaces:
    """The principal components of the clusters of `sparse_labels`.

    Args:
      key: consumed.
      points: `[N, D]`, such as the atoms of a bank: time grows with the cube of `N`.
      weights: `[N]`; 0 for padding.
      num_subspaces: `S`, 1 to `N`.
      rank: `R`, 1 to `min(N, D)`.
      code: a coder `(targets, bank) -> Code`, as of `sparse_labels`.
      affine: whether each subspace may leave the origin, to pass through the mean of its points.
      num_restarts: starts of k-means.

    Returns:
      `Subspaces`; one that serves no point is padding.

    Raises:
      ValueError: if shapes or dtypes do not fit, a number is out of range, or `code` raises.
    """
    points, weights = bases.check(points, weights, rank)
    labels = sparse_labels(
        key, points, weights, num_subspaces=num_subspaces, code=code, num_restarts=num_restarts
    )
    return bases.principal_by_label(
        points, weights, labels, num_subspaces=num_subspaces, rank=rank, affine=affine
    )


def sparse_labels(
    key: jax.Array,
    points: jax.Array,
    weights: jax.Array,
    *,
    num_subspaces: int,
    code: self_expression.MakeCode,
    num_restarts: int = 10,
) -> jax.Array:
    """Which subspace each point lies in (Elhamifar and Vidal 2013, Algorithm 1).

    Every point is coded over all others; coefficients are scaled to a largest of 1 per point; the
    affinity `|C| + |C|^T` is cut by spectral clustering.

    Args:
      key: consumed.
      points: `[N, D]`.
      weights: `[N]`; 0 for padding.
      num_subspaces: `S`, 1 to `N`.
      code: a coder `(targets, bank) -> Code` with its hyperparameters bound, such as
        `functools.partial(solvers.elastic_net_code, l1=0.05, l2=0.5)`. It never sees a point among
        the atoms that the point is coded with. Very sparse codes, such as OMP's, keep to one
        subspace but tie its points so loosely that one may fall into several clusters (You,
        Robinson and Vidal 2016); the elastic net's `l2` is there to tie them (You, Li, Robinson
        and Vidal 2016).
      num_restarts: starts of k-means.

    Returns:
      `[N]` int32 labels; -1 for padding and for points that are not finite.

    Raises:
      ValueError: as `sparse_clustering`.
    """
    points, weights = bases.check(points, weights, 1)
    affinity = self_affinity(points, weights, code=code)
    return spectral_clustering(
        key, affinity, weights, num_clusters=num_subspaces, num_restarts=num_restarts
    )


def self_affinity(
    points: jax.Array, weights: jax.Array, *, code: self_expression.MakeCode, chunk_size: int = 256
) -> jax.Array:
    """How strongly any two points code each other, `|C| + |C|^T`.

    Args:
      points: `[N, D]`, zero where they weigh nothing.
      weights: `[N]`; 0 for padding.
      code: as of `sparse_labels`.
      chunk_size: how many points to code at a time.

    Returns:
      `[N, N]`, symmetric, with a diagonal of zeros.

    Raises:
      ValueError: if shapes or dtypes do not fit, or what `code` raises.
    """
    points, weights = bases.check(points, weights, 1)
    num_points = len(points)
    own = jnp.arange(num_points, dtype=jnp.int32)
    bank = types.Bank(points, weights, own)

    def row(point: jax.Array, own: jax.Array) -> jax.Array:
        found = self_expression.leave_one_out(point[None], own[None], bank, code=code)
        return jnp.abs(self_expression.dense(found, num_points))[0]

    rows = jax.lax.map(lambda point: row(*point), (points, own), batch_size=chunk_size)
    largest = jnp.max(rows, axis=1, keepdims=True)
    # A point that no code could be found for ties to nothing.
    rows = jnp.where(largest > 0, rows / jnp.where(largest > 0, largest, 1), 0)
    rows = jnp.where(weights[:, None] > 0, rows, 0)
    return rows + rows.T
