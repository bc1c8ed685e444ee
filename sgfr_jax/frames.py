"""Where squares are taken: an origin and a unit in which they neither round much nor overflow.

A squared distance does not depend on the origin or, but for a factor, on the unit. Its expansion
`|z|^2 + |a|^2 - 2 z.a` in floating point does: the rounding grows with squared norms, which a mean
that all features share makes large, and squares of 1e-20 or 1e20 leave the range of float32. Units
are powers of two, by which nothing is rounded.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Frame = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def power_of_two(sizes: jax.Array) -> jax.Array:
    """A power of two between a tenth and a fifth of each size; 1 for 0.

    Dividing by it rounds nothing. Found by rounding to one bit after the leading one, 1 or 1.5
    times a power of two, of which a second rounding makes 1 / 4 or 1 / 2 of that: rounding to none
    is more than the converter to ONNX knows, and `exp2` is not exact.
    """
    sizes = jax.lax.stop_gradient(sizes)
    bits = jnp.finfo(sizes.dtype).nexp
    rounded = jax.lax.reduce_precision(sizes / 2, bits, 1)
    found = rounded - jax.lax.reduce_precision(rounded / 1.5, bits, 1)
    return jnp.where(found > 0, found, 1)


def unit_of(array: jax.Array, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """A power of two near a tenth of the largest finite entry.

    Divided by it, entries have squares that neither vanish nor overflow.

    Args:
      array: of any shape.
      axis: what to take the largest over; None for all. The axes are kept.
    """
    sizes = jnp.where(jnp.isfinite(array), jnp.abs(array), 0)
    return power_of_two(jnp.max(sizes, axis=axis, keepdims=True, initial=0))


def in_units(target: jax.Array, support: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A target `[D]` and its support `[K, D]` in units of their own, for homogeneous problems.

    Returns:
      Both, and the factor `[]` that takes coefficients of the one over the other back to those of
      the target over the support as they were.
    """
    own, unit = unit_of(target), unit_of(support)
    return target / own, support / unit, own[0] / unit[0, 0]


def frame(points: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """An origin among the finite points of positive weight, and a unit of their size.

    Distances do not depend on the origin, but the rounding of their expansions does: it grows with
    squared norms. Seen from its mean a cloud of features is no larger than they differ. Those
    beyond the median size count less for it, so that a few that are far off move it little. Eight
    bits of it come close enough, and keep differences exact that were: equal distances stay equal,
    and one device and several, which add up in another order, see the same.

    Args:
      points: `[N, D]`.
      weights: `[N]`; 0 for padding, which may hold anything.

    Returns:
      `[D]`, zeros where no point counts; and `[]`, a power of two.
    """
    unit = power_of_two(typical_size(points, weights))
    return origin_of(*weighed_sums(points, weights, unit), unit), unit


def typical_size(points: jax.Array, weights: jax.Array) -> jax.Array:
    """The median of the largest entries of points that count, their largest if that is 0."""
    counts = _counted(points, weights)
    sizes = jnp.where(counts, jnp.max(jnp.abs(points), axis=-1), jnp.inf)
    middle = jnp.sort(sizes)[jnp.maximum(jnp.sum(counts) - 1, 0) // 2]
    largest = jnp.max(jnp.where(counts, sizes, 0), initial=0)
    return jnp.where((middle > 0) & (middle < jnp.inf), middle, largest)


def weighed_sums(
    points: jax.Array, weights: jax.Array, unit: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Of points that count the sum `[D]` by weight, and the sum of weights, for `origin_of`."""
    counts = _counted(points, weights)[:, None]
    sizes = jnp.maximum(jnp.max(jnp.abs(points), axis=-1, keepdims=True), unit)
    sums = jnp.sum(jnp.where(counts, points / sizes, 0), axis=0)
    return sums, jnp.sum(jnp.where(counts, unit / sizes, 0))


def origin_of(sums: jax.Array, total: jax.Array, unit: jax.Array) -> jax.Array:
    """The origin `[D]` of `frame` from what `weighed_sums` gave."""
    mean = sums / jnp.where(total > 0, total, 1)
    return jax.lax.reduce_precision(mean, jnp.finfo(mean.dtype).nexp, 7) * unit


def _counted(points: jax.Array, weights: jax.Array) -> jax.Array:
    return (weights > jnp.zeros_like(weights)) & jnp.all(jnp.isfinite(points), axis=-1)


@jax.custom_batching.custom_vmap
def shared_frame(points: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """As `frame`, but one for all weights `[B, N]` that `vmap` maps over, of those points.

    Self-expression leaves out another atom for every target. An origin for each would make a copy
    of the bank for each, and one that all share is as good.
    """
    return frame(points, weights)


@shared_frame.def_vmap
def _shared_frame_of_batch(size: int, batched: list[bool], points: jax.Array, weights: jax.Array):
    if not batched[0]:
        return shared_frame(points, jnp.max(weights, axis=0)), (False, False)
    if not batched[1]:
        weights = jnp.broadcast_to(weights, (size, *weights.shape))
    return jax.vmap(frame)(points, weights), (True, True)
