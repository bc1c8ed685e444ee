"""Least squares on a chosen part of a support."""

import jax
import jax.numpy as jnp

from sgfr_jax import linalg


def penalized_gram(support: jax.Array, penalty: jax.Array | float) -> jax.Array:
    """`A A^T + penalty I [K, K]` of a support `A [K, D]`."""
    gram = jnp.matmul(support, support.T, precision=linalg.HIGHEST)
    return gram + penalty * jnp.eye(support.shape[0], dtype=gram.dtype)


def slopes(
    target: jax.Array, support: jax.Array, coefficients: jax.Array, penalty: jax.Array | float
) -> jax.Array:
    """`A (z - A^T c) - penalty c [K]`: how the objective falls with each coefficient."""
    left = target - jnp.matmul(coefficients, support, precision=linalg.HIGHEST)
    return jnp.matmul(support, left, precision=linalg.HIGHEST) - penalty * coefficients


def factorize(gram: jax.Array, chosen: jax.Array) -> jax.Array:
    """The Cholesky factor of a Gram matrix on the chosen rows, of the identity elsewhere.

    The diagonal is raised by a few roundings of the trace, so that dependent atoms factorise;
    `fit` takes the trace of that out again.

    Args:
      gram: `[K, K]`, symmetric positive semidefinite.
      chosen: `[K]` bool.

    Returns:
      `[K, K]`, lower triangular, for `solve`.
    """
    gram = jnp.where(chosen[:, None] & chosen[None, :], gram, 0)
    rounding = 4 * jnp.finfo(gram.dtype).eps * jnp.trace(gram) + jnp.finfo(gram.dtype).tiny
    return jax.lax.linalg.cholesky(gram + jnp.diag(jnp.where(chosen, rounding, 1)))


def solve(factor: jax.Array, vector: jax.Array, chosen: jax.Array) -> jax.Array:
    """`x [K]` that is 0 off the chosen rows, with `gram x = vector [K]` on them."""
    return jax.scipy.linalg.cho_solve((factor, True), jnp.where(chosen, vector, 0))


def fit(
    target: jax.Array,
    support: jax.Array,
    chosen: jax.Array,
    *,
    penalty: jax.Array | float = 0.0,
    shift: jax.Array | float = 0.0,
    gram: jax.Array | None = None,
) -> jax.Array:
    """The coefficients on the chosen atoms where `A (z - A^T c) - penalty c = shift` there.

    The normal equations, and one step of refinement with the residual itself: their error alone
    would go with the square of the support's condition number (Björck 1967).

    Args:
      target: `[D]`.
      support: `[K, D]`.
      chosen: `[K]` bool.
      penalty: on half the squared coefficients.
      shift: `[K]` or a number: the gradient of what else is minimised, such as `l1 sign(c)`.
      gram: `A A^T + penalty I [K, K]`, where it is at hand.

    Returns:
      `[K]`; 0 where not chosen.
    """
    support = jnp.where(chosen[:, None], support, 0)
    gram = penalized_gram(support, penalty) if gram is None else gram
    # Once: XLA on a CPU hung where two batches were factorised at the same time.
    factor = factorize(gram, chosen)

    def improve(coefficients: jax.Array) -> jax.Array:
        error = slopes(target, support, coefficients, penalty) - shift
        return coefficients + solve(factor, error, chosen)

    return improve(improve(jnp.zeros(chosen.shape, gram.dtype)))
