"""Farthest-first traversal: no point may be far from all choices."""

import jax
import jax.numpy as jnp

from sgfr_jax import linalg, types
from sgfr_jax.samplers import eligibility


def greedy_k_center(
    key: jax.Array, points: jax.Array, weights: jax.Array, num: int
) -> types.Selection:
    """Farthest-first traversal: every choice is the point farthest from all earlier ones.

    A 2-approximation of the smallest covering radius (Gonzalez 1985), the coreset of PatchCore
    (Roth et al. 2022). The first choice is random. The whole of `k_center_start` and
    `k_center_advance`, which callers use apart to show progress or to grow a bank.

    Args:
      key: consumed by the choice of the first point.
      points: `[N, D]`.
      weights: `[N]`; 0 for padding.
      num: `M`, how many to choose.

    Returns:
      A `Selection` of `M` slots; the square root of the largest distance is the covering radius.

    Raises:
      ValueError: if `num` is not between 1 and `N`, or shapes do not fit.
    """
    return k_center_advance(k_center_start(key, points, weights, num), points, num)


def k_center_start(
    key: jax.Array, points: jax.Array, weights: jax.Array, num: int
) -> types.Selection:
    """A `Selection` of `num` slots with the first, random choice made; see `greedy_k_center`."""
    points, eligible = eligibility.check(points, weights, num)
    first = jnp.argmax(jnp.where(eligible, jax.random.uniform(key, eligible.shape), -1.0))
    distances = linalg.squared_distances(points, points[first][None])[:, 0]
    distances = jnp.where(eligible, distances, -jnp.inf).at[first].set(-jnp.inf)
    filled = jnp.any(eligible)
    return types.Selection(
        indices=jnp.zeros(num, jnp.int32).at[0].set(jnp.where(filled, first, 0)),
        weights=jnp.zeros(num, points.dtype).at[0].set(filled.astype(points.dtype)),
        count=filled.astype(jnp.int32),
        distances=distances,
    )


def k_center_advance(
    selection: types.Selection,
    points: jax.Array,
    upto: int | jax.Array,
    *,
    pool_size: int = 2048,
    block_size: int = 128,
) -> types.Selection:
    """Goes on with a farthest-first traversal until `upto` slots are filled.

    Exact, with lookahead. The `pool_size` farthest points form a pool, and the traversal runs
    inside it for as long as the pool's farthest point is at least as far as anything outside was
    when the pool was taken (outside, distances can only shrink). Then all points learn of the new
    choices at once. The plain traversal reads all points for every choice; this one reads them
    once a block, in a matrix product.

    Args:
      selection: from `k_center_start` or an earlier call, over the same points.
      points: `[N, D]`.
      upto: how many slots to fill in all; may be traced, so that stepping compiles once.
      pool_size: how many points the lookahead holds.
      block_size: how many choices one matrix product covers.

    Returns:
      The selection, with `min(upto, M, eligible points)` slots filled.
    """
    points = jnp.asarray(points)
    num_points, num_slots = points.shape[0], selection.indices.shape[0]
    norms = jnp.sum(points**2, axis=-1)
    upto = jnp.minimum(jnp.asarray(upto, jnp.int32), num_slots)

    def unfinished(state: types.Selection):
        return (state.count < upto) & (jnp.max(state.distances) > -jnp.inf)

    def advance(state: types.Selection):
        indices, count = _look_ahead(state, points, norms, upto, min(pool_size, num_points))
        chosen = (indices, state.count, count)
        distances = _learn(state.distances, points, norms, chosen, min(block_size, num_slots))
        # What was chosen, and what was never eligible, stays out.
        slot = jnp.arange(num_slots)
        fresh = (slot >= state.count) & (slot < count)
        distances = distances.at[jnp.where(fresh, indices, num_points)].set(-jnp.inf, mode="drop")
        weights = (slot < count).astype(points.dtype)
        return types.Selection(indices, weights, count, distances)

    return jax.lax.while_loop(unfinished, advance, selection)


def _look_ahead(state, points, norms, upto, pool_size):
    """Goes on inside the pool of the farthest points for as long as that is sure to be right.

    Returns:
      The indices with the new choices, and how many slots they fill.
    """
    num_points = points.shape[0]
    values, pool = jax.lax.top_k(state.distances, min(pool_size + 1, num_points))
    bound = values[pool_size] if num_points > pool_size else -jnp.inf
    pool = pool[:pool_size]
    # Points that are not eligible may hold anything; their distance keeps them out.
    candidates, candidate_norms = points[pool], norms[pool]

    def choosing(carry):
        _, count, distances = carry
        farthest = jnp.max(distances)
        fresh = (farthest >= bound) | (count == state.count)
        return (count < upto) & (farthest > -jnp.inf) & fresh

    def choose(carry):
        indices, count, distances = carry
        best = jnp.argmax(distances)
        products = jnp.matmul(candidates, candidates[best], precision=linalg.HIGHEST)
        to_best = jnp.maximum(candidate_norms + candidate_norms[best] - 2 * products, 0)
        distances = _lower(distances, to_best).at[best].set(-jnp.inf)
        return indices.at[count].set(pool[best]), count + 1, distances

    carry = (state.indices, state.count, values[:pool_size])
    indices, count, _ = jax.lax.while_loop(choosing, choose, carry)
    return indices, count


def _learn(distances, points, norms, chosen, block_size):
    """Lowers distances to those from the choices `start:count` of `indices`, block by block."""
    indices, start, count = chosen

    def one_block(block, distances):
        # The last block may begin early: seeing a choice twice changes nothing.
        slots = start + block * block_size + jnp.arange(block_size)
        centres = indices[jnp.minimum(slots, count - 1)]
        products = jnp.matmul(points, points[centres].T, precision=linalg.HIGHEST)
        nearest = jnp.min(norms[centres][None] - 2 * products, axis=1)
        return _lower(distances, jnp.maximum(norms + nearest, 0))

    num_blocks = (count - start + block_size - 1) // block_size
    return jax.lax.fori_loop(0, num_blocks, one_block, distances)


def _lower(distances, others):
    """The minimum, but what is out stays out, even where the other is NaN."""
    return jnp.where(distances > -jnp.inf, jnp.minimum(distances, others), -jnp.inf)
