"""Farthest-first traversal: no point may be far from all choices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sgfr_jax import checks, frames, linalg, loops, types
from sgfr_jax.samplers import eligibility

# Points that are compared with a block of choices at a time.
_ROWS = 1 << 16


def greedy_k_center(
    key: jax.Array, points: jax.Array, weights: jax.Array, num: int
) -> types.Selection:
    """Farthest-first traversal: every choice is the point farthest from all earlier ones.

    `i_{m+1} = argmax_n min_{j <= m} |x_n - x_{i_j}|`: a
    2-approximation of the smallest covering radius (Gonzalez 1985), the coreset of PatchCore
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
    """The first, random choice of `greedy_k_center`.

    Args:
      key: consumed.
      points: `[N, D]`.
      weights: `[N]`; 0 for padding.
      num: `M`, how many are to be chosen in all.

    Returns:
      A `Selection` of `M` slots, the first of them filled, to go on from with `k_center_advance`.

    Raises:
      ValueError: as `greedy_k_center`.
    """
    points, eligible = eligibility.check(points, weights, num)
    draws = jnp.where(eligible, jax.random.uniform(key, eligible.shape), -1.0)
    first = jnp.argmax(draws).astype(jnp.int32)
    distances = jnp.sum((points - points[first][None]) ** 2, axis=-1)
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

    Raises:
      ValueError: if the points are not those of the selection, or a size is not positive.
    """
    checks.same_points(points, selection)
    checks.positive("such as 2048", pool_size=pool_size)
    checks.positive("such as 128", block_size=block_size)
    points = linalg.at_least_float32(points)
    num_points, num_slots = points.shape[0], selection.indices.shape[0]
    # All that may be or was chosen, so that the origin is the same however far the search is.
    eligible = selection.distances > -jnp.inf
    chosen = jnp.where(jnp.arange(num_slots) < selection.count, selection.indices, num_points)
    eligible = eligible.at[chosen].set(True, mode="drop")
    origin, _ = frames.frame(points, eligible)
    norms = jnp.sum((points - origin[None]) ** 2, axis=-1)
    upto = jnp.minimum(jnp.asarray(upto, jnp.int32), num_slots)

    def unfinished(state: types.Selection):
        return (state.count < upto) & (jnp.max(state.distances) > -jnp.inf)

    def advance(state: types.Selection):
        indices, count = _look_ahead(state, points, origin, norms, upto, min(pool_size, num_points))

        def centres(slots):
            return points[indices[slots]] - origin[None], norms[indices[slots]]

        distances = learn(
            state.distances, points, origin, norms, centres,
            start=state.count, count=count, block_size=min(block_size, num_slots),
        )  # fmt: skip
        # What was chosen, and what was never eligible, stays out.
        fresh = fresh_slots(state, count)
        distances = distances.at[jnp.where(fresh, indices, num_points)].set(-jnp.inf, mode="drop")
        weights = (jnp.arange(num_slots) < count).astype(points.dtype)
        return types.Selection(indices, weights, count, distances)

    start = loops.begin(selection, points, upto)
    return jax.lax.while_loop(unfinished, advance, start)


def _look_ahead(state, points, origin, norms, upto, pool_size):
    """Goes on inside the pool of the farthest points for as long as that is sure to be right.

    Returns:
      The indices with the new choices, and how many slots they fill.
    """
    num_points = points.shape[0]
    values, pool = jax.lax.top_k(state.distances, min(pool_size + 1, num_points))
    bound = values[pool_size] if num_points > pool_size else -jnp.inf
    pool = pool[:pool_size]
    # Points that are not eligible may hold anything; their distance keeps them out.
    places, count = traverse_pool(
        points[pool] - origin[None], norms[pool], values[:pool_size], bound,
        start=state.count, upto=upto, num_slots=state.indices.shape[0],
    )  # fmt: skip
    return jnp.where(fresh_slots(state, count), pool[places], state.indices), count


def fresh_slots(state, count: jax.Array) -> jax.Array:
    """Which slots have been filled since `state`, of whatever has `count` and `indices [M]`."""
    slot = jnp.arange(state.indices.shape[0])
    return (slot >= state.count) & (slot < count)


def traverse_pool(
    candidates: jax.Array,
    norms: jax.Array,
    distances: jax.Array,
    bound: jax.Array | float,
    *,
    start: jax.Array,
    upto: int | jax.Array,
    num_slots: int,
) -> tuple[jax.Array, jax.Array]:
    """Farthest-first traversal of a pool, for as long as its farthest is the farthest of all.

    Args:
      candidates: `[P, D]`, the pool, as seen from an origin near it.
      norms: `[P]`, squared.
      distances: `[P]`, squared, to all earlier choices; -inf of what may not be chosen.
      bound: the largest distance outside the pool.
      start: how many slots earlier choices fill.
      upto: how many to fill in all.
      num_slots: `M`.

    Returns:
      `[M]` int32: places in the pool, in the slots from `start`; and how many slots are filled.
    """

    def choosing(carry):
        _, count, distances = carry
        farthest = jnp.max(distances)
        fresh = (farthest >= bound) | (count == start)
        return (count < upto) & (farthest > -jnp.inf) & fresh

    def choose(carry):
        places, count, distances = carry
        best = jnp.argmax(distances)
        products = jnp.matmul(candidates, candidates[best], precision=linalg.HIGHEST)
        to_best = jnp.maximum(norms + norms[best] - 2 * products, 0)
        distances = _lower(distances, to_best).at[best].set(-jnp.inf)
        return places.at[count].set(best.astype(jnp.int32)), count + 1, distances

    carry = (jnp.zeros(num_slots, jnp.int32), start, distances)
    carry = loops.begin(carry, candidates, norms, bound, upto)
    places, count, _ = jax.lax.while_loop(choosing, choose, carry)
    return places, count


def learn(
    distances: jax.Array,
    points: jax.Array,
    origin: jax.Array,
    norms: jax.Array,
    centres: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    *,
    start: jax.Array,
    count: jax.Array,
    block_size: int,
) -> jax.Array:
    """Lowers squared distances `[N]` to those from the choices in the slots `start:count`.

    Args:
      distances: to the choices before `start`; -inf stays.
      points: `[N, D]`.
      origin: `[D]`, near the points (`frames.frame`).
      norms: `[N]`, squared, from the origin.
      centres: of slots `[b]` the choices `[b, D]` from the origin, and their squared norms `[b]`.
      start: the first slot.
      count: the slot after the last.
      block_size: how many choices one matrix product covers.
    """

    def one_block(block, distances):
        # The last block may begin early: seeing a choice twice changes nothing.
        slots = start + block * block_size + jnp.arange(block_size)
        chosen, chosen_norms = centres(jnp.minimum(slots, count - 1))

        def some_rows(part, distances):
            # The last part begins early, and lowers some distances twice.
            first = jnp.minimum(part * num_rows, len(points) - num_rows)
            rows, own, known = (
                jax.lax.dynamic_slice_in_dim(x, first, num_rows) for x in (points, norms, distances)
            )
            products = jnp.matmul(rows - origin[None], chosen.T, precision=linalg.HIGHEST)
            lowest = own + jnp.min(chosen_norms[None] - 2 * products, axis=1)
            lowered = _lower(known, jnp.maximum(lowest, 0))
            return jax.lax.dynamic_update_slice_in_dim(distances, lowered, first, axis=0)

        return jax.lax.fori_loop(0, num_parts, some_rows, distances)

    # A part at a time is seen from the origin: a copy of all points would double the memory.
    num_rows = min(_ROWS, len(points))
    num_parts = -(-len(points) // num_rows)

    num_blocks = (count - start + block_size - 1) // block_size
    return jax.lax.fori_loop(0, num_blocks, one_block, distances)


def _lower(distances, others):
    """The minimum, but what is out stays out, even where the other is NaN."""
    return jnp.where(distances > -jnp.inf, jnp.minimum(distances, others), -jnp.inf)
