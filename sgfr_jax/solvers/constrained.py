"""Penalties with corners, on a support: non-negative least squares, the elastic net, the lasso."""

import jax
import jax.numpy as jnp

from sgfr_jax import checks, frames, linalg
from sgfr_jax.solvers import active_set


def nonnegative(target: jax.Array, support: jax.Array, valid: jax.Array) -> jax.Array:
    """Non-negative coefficients: the target against the cone of its support.

    `min_c |z - A^T c|^2` subject to `c >= 0`, solved exactly (Lawson and Hanson 1974, chapter 23).

    Args:
      target: `[D]`.
      support: `[K, D]`.
      valid: `[K]` bool; False for padding.

    Returns:
      `[K]`, none negative; 0 where not valid. Of dependent atoms some have coefficient 0.
    """
    checks.support(target, support, valid)
    support = jnp.where(valid[:, None], support, 0)
    target, support, factor = frames.in_units(target, support)
    return factor * active_set.minimize(target, support, penalty=0.0, l1=0.0, free=False)


def elastic_net(
    target: jax.Array, support: jax.Array, valid: jax.Array, *, l1: float, l2: float
) -> jax.Array:
    """Few, small coefficients on the support (Zou and Hastie 2005).

    `min_c 1/2 |z - A^T c|^2 + l1 max|A z| |c|_1 + l2/2 tr(A A^T)/K |c|^2`, solved exactly.

    Args:
      target: `[D]`.
      support: `[K, D]`.
      valid: `[K]` bool; False for padding.
      l1: positive, relative to the penalty at which all coefficients become 0, which is `l1=1`.
      l2: relative to the mean squared norm of the support, as of `ridge`; 0 is the lasso.

    Returns:
      `[K]`; 0 where not valid. Of dependent atoms some have coefficient 0.
    """
    checks.support(target, support, valid)
    checks.positive("such as 0.1; without it this is `ridge`", l1=l1)
    checks.not_negative("such as 1e-3", l2=l2)
    support = jnp.where(valid[:, None], support, 0)
    target, support, factor = frames.in_units(target, support)
    scale = jnp.sum(support**2) / jnp.maximum(jnp.sum(valid, dtype=support.dtype), 1)
    largest = jnp.max(jnp.abs(jnp.matmul(support, target, precision=linalg.HIGHEST)))
    found = active_set.minimize(target, support, penalty=l2 * scale, l1=l1 * largest, free=True)
    return factor * found


def lasso(target: jax.Array, support: jax.Array, valid: jax.Array, *, l1: float) -> jax.Array:
    """Few coefficients on the support: `elastic_net` with `l2=0` (Tibshirani 1996).

    Args:
      target: `[D]`.
      support: `[K, D]`.
      valid: `[K]` bool; False for padding.
      l1: as of `elastic_net`.

    Returns:
      `[K]`; 0 where not valid.
    """
    return elastic_net(target, support, valid, l1=l1, l2=0.0)
