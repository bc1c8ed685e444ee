"""Swaps of medoids for other points, each of which lowers the sum of squared distances."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sgfr_jax import linalg, loops

# Points that are tried as medoids at a time, of which all distances are held.
_BLOCK = 64
# How many of its nearest medoids each point knows: those that swaps take away need not be sought
# among all medoids again until one is left.
_KNOWN = 8
# Rows of distances to all medoids that are held at a time.
_ROWS = 1024


class _Known(NamedTuple):
    """Some of the medoids nearest to each point, in no order; all others are beyond `horizon`."""

    slots: jax.Array  # [N, T] int32
    distances: jax.Array  # [N, T] squared; inf where there is none
    horizon: jax.Array  # [N]


class _State(NamedTuple):
    medoids: jax.Array  # [M] int32
    known: _Known
    tried: jax.Array  # [] int32: how many candidates
    idle: jax.Array  # [] int32: how many of them since the last swap


def swap(
    key: jax.Array,
    points: jax.Array,
    eligible: jax.Array,
    medoids: jax.Array,
    filled: jax.Array,
    num_candidates: int,
) -> jax.Array:
    """Medoids after swaps by FasterPAM's rule (Schubert and Rousseeuw 2021), in blocks.

    For a candidate `c` and a medoid `m`, with `d_1` and `d_2` the squared distances of a point to
    its nearest and second nearest medoid, the swap changes the sum of squared distances by

        sum_n min(d(n, c) - d_1, 0) + sum_{n of m} (clip(d(n, c), d_1, d_2) - d_1).

    The second sum is over the points nearest to `m`, so one pass over the points tells it of all
    medoids. A swap is made as soon as a block of candidates holds one that lowers the sum: the best
    of the block. It ends when as many candidates as there are points have passed without a swap,
    and then no single swap lowers the sum by more than rounding.

    Args:
      key: consumed by the order of the candidates.
      points: `[N, D]`, near the origin; zero where not eligible.
      eligible: `[N]` bool.
      medoids: `[M]` int32, distinct where filled.
      filled: `[M]` bool.
      num_candidates: how many points are tried at most, each `N D` products.

    Returns:
      `[M]` int32.
    """
    num_points, num = points.shape[0], medoids.shape[0]
    norms = jnp.sum(points**2, axis=-1)
    draws = jax.random.uniform(key, eligible.shape)  # the same whatever padding follows
    order = jnp.argsort(jnp.where(eligible, draws, 2)).astype(jnp.int32)
    num_eligible = jnp.sum(eligible, dtype=jnp.int32)
    block = min(_BLOCK, num_points)
    rounding = 10 * jnp.finfo(points.dtype).eps

    def moving(state: _State):
        return (
            (state.tried < num_candidates)
            & (state.idle < num_eligible)
            & (jnp.sum(filled) > 1)  # of one medoid the mean tells the best
        )

    def try_block(state: _State) -> _State:
        places = jnp.arange(block, dtype=jnp.int32)
        candidates = order[(state.tried + places) % jnp.maximum(num_eligible, 1)]
        products = jnp.matmul(points, points[candidates].T, precision=linalg.HIGHEST)
        distances = jnp.maximum(norms[:, None] + norms[candidates][None] - 2 * products, 0)

        def best_swap(medoids: jax.Array, known: _Known):
            slot, nearest, second = _two_nearest(known)
            nearest = jnp.where(eligible, nearest, 0)
            second = jnp.where(eligible, second, 0)
            lowered = jnp.minimum(distances - nearest[:, None], 0)
            gained = jnp.sum(jnp.where(eligible[:, None], lowered, 0), axis=0)
            left = jnp.clip(distances, nearest[:, None], second[:, None]) - nearest[:, None]
            lost = jax.ops.segment_sum(left, slot, num)
            change = jnp.where(filled[:, None], lost + gained[None], jnp.inf)
            taken = jnp.where(filled, medoids, num_points)
            is_medoid = jnp.zeros(num_points, bool).at[taken].set(True, mode="drop")
            usable = ~is_medoid[candidates] & (places < num_eligible)
            change = jnp.where(usable[None], change, jnp.inf)
            best = jnp.argmin(change).astype(jnp.int32)
            lowers = change.reshape(-1)[best] < -rounding * jnp.sum(nearest)
            return best // block, best % block, lowers

        def improves(carry):
            _, _, (_, _, lowers), made = carry
            # What rounding alone lowers could be swapped to and fro.
            return lowers & (made < block)

        def make(carry):
            medoids, known, (slot, place, _), made = carry
            medoids = medoids.at[slot].set(candidates[place])
            known = _after_swap(known, slot, distances[:, place])
            forgotten = jnp.any(eligible & (_two_nearest(known)[2] == jnp.inf))
            known = jax.lax.cond(forgotten, lambda: _know(points, medoids, filled), lambda: known)
            return medoids, known, best_swap(medoids, known), made + 1

        carry = (state.medoids, state.known, best_swap(state.medoids, state.known), jnp.int32(0))
        carry = loops.begin(carry, distances)
        medoids, known, _, made = jax.lax.while_loop(improves, make, carry)
        idle = jnp.where(made > 0, 0, state.idle + block)
        return _State(medoids, known, state.tried + block, idle)

    state = _State(medoids, _know(points, medoids, filled), jnp.int32(0), jnp.int32(0))
    state = loops.begin(state, order, points, filled)
    return jax.lax.while_loop(moving, try_block, state).medoids


def _two_nearest(known: _Known) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The slot of the nearest medoid of each point, and the distances to it and the second."""
    place = jnp.argmin(known.distances, axis=1)[:, None]
    nearest = jnp.take_along_axis(known.distances, place, axis=1)[:, 0]
    others = jnp.where(jnp.arange(known.slots.shape[1])[None] == place, jnp.inf, known.distances)
    return jnp.take_along_axis(known.slots, place, axis=1)[:, 0], nearest, jnp.min(others, axis=1)


def _after_swap(known: _Known, slot: jax.Array, distances: jax.Array) -> _Known:
    """What is known when a slot's medoid is one that is `distances [N]` away."""
    kept = jnp.where(known.slots == slot, jnp.inf, known.distances)
    # It takes the place of the farthest known, which is then the nearest unknown.
    place = jnp.argmax(kept, axis=1)[:, None]
    farthest = jnp.take_along_axis(kept, place, axis=1)
    enters = (distances < known.horizon)[:, None] & (distances[:, None] < farthest)
    here = enters & (jnp.arange(kept.shape[1])[None] == place)
    # What did not enter is unknown, and so is what had to leave.
    beyond = jnp.minimum(known.horizon, jnp.where(enters[:, 0], farthest[:, 0], distances))
    return _Known(
        jnp.where(here, slot, known.slots), jnp.where(here, distances[:, None], kept), beyond
    )


def _know(points: jax.Array, medoids: jax.Array, filled: jax.Array) -> _Known:
    """The nearest medoids of every point, sought among all."""
    atoms = points[medoids]
    num_known = min(_KNOWN, len(medoids))

    def of_rows(rows: jax.Array):
        distances = jnp.where(filled[None], linalg.squared_distances(rows, atoms), jnp.inf)
        closeness, slots = jax.lax.top_k(-distances, num_known)
        return slots.astype(jnp.int32), -closeness

    slots, distances = in_rows(of_rows, points, _ROWS)
    reach = (
        distances[:, -1] if num_known < len(medoids) else jnp.full_like(distances[:, -1], jnp.inf)
    )
    return _Known(slots, distances, reach)


def in_rows(function: Callable, points: jax.Array, num_rows: int):
    """`function(points)` of some rows at a time, in bounded memory."""
    num_rows = min(num_rows, points.shape[0])
    rows = jnp.pad(points, ((0, -points.shape[0] % num_rows), (0, 0)))
    found = jax.lax.map(function, rows.reshape(-1, num_rows, points.shape[1]))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[: len(points)], found)
