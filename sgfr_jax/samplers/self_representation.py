"""Exemplar selection: the next choice is the point that earlier ones represent worst."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sgfr_jax import checks, linalg, loops, types
from sgfr_jax.samplers import eligibility
from sgfr_jax.samplers.l1_cost import l1_cost

Cost = Callable[[jax.Array, types.Bank], jax.Array]

# Costs against the first exemplar are computed for so many points at a time.
_ROWS = 4096


def self_representation(
    key: jax.Array,
    points: jax.Array,
    weights: jax.Array,
    num: int,
    *,
    cost: Cost = l1_cost,
    pool_size: int = 64,
) -> types.Selection:
    """Farthest-first search on the self-representation cost: ESC-FFS (You et al. 2018, Alg. 1).

    Every choice is the point of the largest cost given all earlier ones. The first is random. The
    whole of `self_representation_start` and `self_representation_advance`, which callers use apart
    to show progress or to grow a bank.

    Args:
      key: consumed by the choice of the first point.
      points: `[N, D]`, of unit norm where costs are to compare.
      weights: `[N]`; 0 for padding.
      num: `M`, how many to choose.
      cost: `cost(targets [P, D], bank) -> [P]`, a coder's objective or residual; `l1_cost` with
        its hyperparameters bound is the paper's. A point whose cost is NaN is never chosen. The
        search is exact if more atoms in the bank never raise the cost: that holds of every
        objective minimised over all atoms (lasso, ridge with a fixed penalty, non-negative least
        squares). With others (the residual over the `K` nearest, OMP) a point's last cost may be
        too low by now, and a choice is then good, not the best.
      pool_size: how many costs are computed at a time.

    Returns:
      A `Selection` of `M` slots, whose `distances` are upper bounds of the points' costs.

    Raises:
      ValueError: if `num` is not between 1 and `N`, `pool_size` is not positive, or shapes do not
        fit.
    """
    start = self_representation_start(key, points, weights, num, cost=cost)
    return self_representation_advance(start, points, num, cost=cost, pool_size=pool_size)


def self_representation_start(
    key: jax.Array, points: jax.Array, weights: jax.Array, num: int, *, cost: Cost = l1_cost
) -> types.Selection:
    """The first, random choice of `self_representation`.

    Args:
      key: consumed.
      points: `[N, D]`.
      weights: `[N]`; 0 for padding.
      num: `M`, how many are to be chosen in all.
      cost: as of `self_representation`.

    Returns:
      A `Selection` of `M` slots, the first of them filled and `distances` the costs `[N]` over it,
      to go on from with `self_representation_advance`.

    Raises:
      ValueError: as `self_representation`.
    """
    points, eligible = eligibility.check(points, weights, num)
    draws = jnp.where(eligible, jax.random.uniform(key, eligible.shape), -1.0)
    first = jnp.argmax(draws).astype(jnp.int32)
    filled = jnp.any(eligible)
    weight = filled.astype(points.dtype)
    one = types.Bank(jnp.where(filled, points[first], 0)[None], weight[None], first[None])

    num_rows = min(_ROWS, points.shape[0])
    rows = jnp.pad(points, ((0, -points.shape[0] % num_rows), (0, 0)))
    rows = rows.reshape(-1, num_rows, points.shape[1])
    costs = jax.lax.map(lambda targets: cost(targets, one), rows).reshape(-1)[: points.shape[0]]
    costs = jnp.where(jnp.isnan(costs), -jnp.inf, costs)
    return types.Selection(
        indices=jnp.zeros(num, jnp.int32).at[0].set(jnp.where(filled, first, 0)),
        weights=jnp.zeros(num, points.dtype).at[0].set(weight),
        count=filled.astype(jnp.int32),
        distances=jnp.where(eligible, costs, -jnp.inf).astype(points.dtype).at[first].set(-jnp.inf),
    )


def self_representation_advance(
    selection: types.Selection,
    points: jax.Array,
    upto: int | jax.Array,
    *,
    cost: Cost = l1_cost,
    pool_size: int = 64,
) -> types.Selection:
    """Goes on with a farthest-first search until `upto` slots are filled.

    Lazily. A cost computed earlier is an upper bound of what it is now, so costs are computed from
    the largest bound downwards, a pool at a time, until the best of them is at least as large as
    every bound that is left.

    Args:
      selection: from `self_representation_start` or an earlier call, over the same points.
      points: `[N, D]`.
      upto: how many slots to fill in all; may be traced, so that stepping compiles once.
      cost: as of `self_representation`.
      pool_size: how many costs are computed at a time.

    Returns:
      The selection, with `min(upto, M, eligible points)` slots filled.

    Raises:
      ValueError: if the points are not those of the selection, or `pool_size` is not positive.
    """
    checks.same_points(points, selection)
    checks.positive("such as 64", pool_size=pool_size)
    points = linalg.at_least_float32(points)
    num_points, num_slots = points.shape[0], selection.indices.shape[0]
    pool_size = min(pool_size, num_points)
    upto = jnp.minimum(jnp.asarray(upto, jnp.int32), num_slots)

    def unfinished(state):
        selection, _ = state
        return (selection.count < upto) & (jnp.max(selection.distances) > -jnp.inf)

    def search(state):
        selection, known = state
        bounds, count = selection.distances, selection.count
        # Costs computed since the last choice are no longer bounds but the costs themselves.
        stale = jnp.where(known == count, -jnp.inf, bounds)
        values, pool = jax.lax.top_k(stale, min(pool_size + 1, num_points))
        rest = values[pool_size] if num_points > pool_size else -jnp.inf
        values, pool = values[:pool_size], pool[:pool_size]
        costs = cost(points[pool], types.make_bank(points, selection)).astype(bounds.dtype)
        # No comparison with NaN is true, so that the search would go on for ever.
        costs = jnp.where(jnp.isnan(costs), -jnp.inf, costs)
        # What is out, or was computed before, stays as it is, even where its cost is NaN.
        costs = jnp.where(values > -jnp.inf, jnp.minimum(values, costs), bounds[pool])
        bounds = bounds.at[pool].set(costs)
        known = known.at[pool].set(count)

        exact = jnp.where(known == count, bounds, -jnp.inf)
        best = jnp.argmax(exact)
        sure = (exact[best] >= rest) & (exact[best] > -jnp.inf)
        slot = jnp.where(sure, count, num_slots)
        selection = types.Selection(
            indices=selection.indices.at[slot].set(best.astype(jnp.int32), mode="drop"),
            weights=selection.weights.at[slot].set(1, mode="drop"),
            count=count + sure.astype(jnp.int32),
            distances=jnp.where(sure, bounds.at[best].set(-jnp.inf), bounds),
        )
        return selection, known

    never = jnp.full(num_points, -1, jnp.int32)
    start = loops.begin((selection, never), points, upto)
    return jax.lax.while_loop(unfinished, search, start)[0]
