"""A uniform random subset: what every other sampler has to beat."""

import jax
import jax.numpy as jnp

from sgfr_jax import types
from sgfr_jax.samplers import eligibility


def uniform(key: jax.Array, points: jax.Array, weights: jax.Array, num: int) -> types.Selection:
    """A uniform random subset, without replacement.

    Every subset has probability `1 / binomial(N, M)`: the `M` smallest of `N` random keys (simple
    random sampling: Cochran 1977, chapter 2).

    Args:
      key: consumed.
      points: `[N, D]`.
      weights: `[N]`; 0 for padding.
      num: `M`, how many to choose.

    Returns:
      A complete `Selection` of `M` slots; its distances are not computed (inf).

    Raises:
      ValueError: if `num` is not between 1 and `N`, or shapes do not fit.
    """
    points, eligible = eligibility.check(points, weights, num)
    order = jnp.where(eligible, jax.random.uniform(key, eligible.shape), jnp.inf)
    indices = jnp.argsort(order)[:num]
    distances = jnp.where(eligible, jnp.inf, -jnp.inf).astype(points.dtype)
    return eligibility.make_selection(indices, eligible[indices], distances)
