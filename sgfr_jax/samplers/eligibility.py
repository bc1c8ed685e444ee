"""What every sampler starts with: which points can be chosen, and how many are wanted."""

import jax
import jax.numpy as jnp

from sgfr_jax import checks, linalg, types


def check(points: jax.Array, weights: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    """The points, in float32 at least, and which can be chosen: of positive weight, and finite.

    None can if their squares vanish or overflow and that shows under `jax.jit` only.

    Args:
      points: `[N, D]`.
      weights: `[N]`; 0 for padding.
      num: `M`, how many are wanted.

    Returns:
      `[N, D]` and `[N]` bool.

    Raises:
      ValueError: if `num` is not between 1 and `N`, or shapes or dtypes do not fit, or as
        `checks.squarable`.
    """
    points, weights = jnp.asarray(points), jnp.asarray(weights)
    if points.ndim != 2 or weights.shape != points.shape[:1]:
        raise ValueError(
            f"points must be [N, D] and weights [N], got {points.shape} and {weights.shape}"
        )
    if not jnp.issubdtype(points.dtype, jnp.floating):
        raise ValueError(f"points must be floating, got {points.dtype}; convert them to float32")
    if not 1 <= num <= points.shape[0]:
        raise ValueError(
            f"a sampler was asked for {num} of {points.shape[0]} points;"
            " ask for at least 1 and at most all of them"
        )
    points = linalg.at_least_float32(points)
    eligible = (weights > 0) & jnp.all(jnp.isfinite(points), axis=-1)
    return points, eligible & checks.squarable(points, eligible)


def budget(num_points: int, *, size: int | None = None, ratio: float | None = None) -> int:
    """How many points to choose, from a number or from a share of all.

    Args:
      num_points: `N`.
      size: the number itself, 1 to `N`.
      ratio: or the share, above 0 and at most 1; at least one point is chosen.

    Raises:
      ValueError: if not exactly one of `size` and `ratio` is given, or it is out of range.
    """
    if (size is None) == (ratio is None):
        raise ValueError(f"give a size or a ratio, not size={size} and ratio={ratio}")
    if ratio is not None:
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio={ratio}; it must be above 0 and at most 1")
        size = max(1, round(ratio * num_points))
    if not 1 <= size <= num_points:
        raise ValueError(f"size={size} of {num_points} points; it must be 1 to {num_points}")
    return size


def make_selection(indices: jax.Array, filled: jax.Array, distances: jax.Array) -> types.Selection:
    """A selection made at once.

    Args:
      indices: `[M]`, distinct where filled; anything elsewhere.
      filled: `[M]` bool, filled slots first.
      distances: `[N]`, -inf where a point cannot be chosen.

    Returns:
      A complete `Selection` of `M` slots.
    """
    return types.Selection(
        indices=jnp.where(filled, indices, 0).astype(jnp.int32),
        weights=filled.astype(distances.dtype),
        count=jnp.sum(filled, dtype=jnp.int32),
        distances=distances,
    )
