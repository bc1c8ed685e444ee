"""Quadratic penalties on a support, whose codes have a closed form."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sgfr_jax import checks, frames, linalg

# The least ridge, in roundings of the trace.
_LEAST_RIDGE = 4

# `(matrix [K, K], vector [K]) -> [K]`, for a symmetric positive definite matrix.
LinearSolve = Callable[[jax.Array, jax.Array], jax.Array]


def affine_ridge(
    target: jax.Array,
    support: jax.Array,
    valid: jax.Array,
    *,
    ridge: float,
    linear_solve: LinearSolve = linalg.solve_positive_definite,
) -> jax.Array:
    """Coefficients that sum to one: the target against the affine hull of its support.

    `min_c |z - A^T c|^2 + ridge tr(G)/K |c|^2` subject to `sum c = 1`. With the differences
    `Z_k = z - a_k` and `G = Z Z^T`, the solution is `w / sum w` where
    `(G + ridge tr(G)/K I) w = 1`: the weights of locally linear embedding (Roweis and Saul 2000).
    Formed from differences, `G` is accurate however close the atoms are. With `K = 1` this is the
    nearest neighbour.

    Args:
      target: `[D]`.
      support: `[K, D]`.
      valid: `[K]` bool; False for padding.
      ridge: the penalty relative to the mean squared difference; positive. Below `4 K eps` (5e-6
        for 10 atoms in float32) it counts as that, which it takes to factorise the Gram matrix of
        dependent atoms, such as duplicates or more than there are features.
      linear_solve: what solves the `K` equations.

    Returns:
      `[K]`; 0 where not valid. A target that equals its whole support gets equal coefficients.
    """
    checks.support(target, support, valid)
    checks.positive("such as 1e-3", ridge=ridge)
    differences = jnp.where(valid[:, None], target[None] - support, 0)
    differences = differences / frames.unit_of(differences)
    gram = jnp.matmul(differences, differences.T, precision=linalg.HIGHEST)
    weights = linear_solve(_penalised(gram, valid, ridge), valid.astype(gram.dtype))
    total = jnp.sum(weights)
    return weights / jnp.where(total > 0, total, 1)


def ridge(
    target: jax.Array,
    support: jax.Array,
    valid: jax.Array,
    *,
    ridge: float,
    linear_solve: LinearSolve = linalg.solve_positive_definite,
) -> jax.Array:
    """Free coefficients: the target against the linear span of its support.

    `min_c |z - A^T c|^2 + ridge tr(A A^T)/K |c|^2` (Hoerl and Kennard 1970), solved from its normal
    equations.

    Args:
      target: `[D]`.
      support: `[K, D]`.
      valid: `[K]` bool; False for padding.
      ridge: the penalty relative to the mean squared norm of the support; as of `affine_ridge`.
      linear_solve: as of `affine_ridge`.

    Returns:
      `[K]`; 0 where not valid.
    """
    checks.support(target, support, valid)
    checks.positive("such as 1e-3", ridge=ridge)
    support = jnp.where(valid[:, None], support, 0)
    target, support, factor = frames.in_units(target, support)
    gram = jnp.matmul(support, support.T, precision=linalg.HIGHEST)
    correlation = jnp.matmul(support, target, precision=linalg.HIGHEST)
    return factor * linear_solve(_penalised(gram, valid, ridge), correlation)


def _penalised(gram: jax.Array, valid: jax.Array, ridge: float) -> jax.Array:
    """The Gram matrix with its diagonal raised, and padding decoupled from the rest."""
    ridge = jnp.maximum(ridge, _LEAST_RIDGE * gram.shape[0] * jnp.finfo(gram.dtype).eps)
    scale = jnp.trace(gram) / jnp.maximum(jnp.sum(valid, dtype=gram.dtype), 1)
    # A support that coincides with the target has no scale of its own; any will do.
    penalty = ridge * jnp.where(scale > jnp.finfo(gram.dtype).tiny / ridge, scale, 1)
    return gram + jnp.diag(jnp.where(valid, penalty, 1))
