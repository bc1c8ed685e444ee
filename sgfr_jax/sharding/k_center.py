"""Farthest-first traversal of patches that no device holds all of."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from sgfr_jax import linalg, types
from sgfr_jax.samplers import eligibility, k_center
from sgfr_jax.sharding.mesh import DATA


class _State(NamedTuple):
    """Replicated but for the distances."""

    atoms: jax.Array  # [M, D]
    indices: jax.Array  # [M] int32
    count: jax.Array  # [] int32
    farthest: jax.Array  # []: largest distance of all devices
    distances: jax.Array  # [n], of this device's points


def k_center_over_patches(
    key: jax.Array,
    points: jax.Array,
    weights: jax.Array,
    num: int,
    *,
    mesh: Mesh,
    pool_size: int = 256,
    block_size: int = 128,
) -> tuple[types.Bank, jax.Array]:
    """The bank that `samplers.greedy_k_center` chooses, of points split over devices.

    Exact, with its lookahead: every device offers its `pool_size` farthest points, and all run one
    traversal inside the pool of these for as long as its farthest is at least as far as anything
    left outside. So a round of choices costs one all-gather of `[pool_size, D + 2]` a device and
    two all-reduced numbers, and the points themselves never move.

    Args:
      key: consumed by the choice of the first point.
      points: `[N, D]`; split over the mesh's data axis, which must divide `N`.
      weights: `[N]`; 0 for padding.
      num: `M`, how many to choose.
      mesh: from `make_mesh`.
      pool_size: points that each device offers.
      block_size: choices that one matrix product covers.

    Returns:
      A replicated `Bank` of `M` atoms whose indices count all `N` points, and the covering radius.

    Raises:
      ValueError: if `num` is not in `1..N`, shapes do not fit, or the devices do not divide `N`.
    """
    points, eligible = eligibility.check(points, weights, num)
    num_points, parts = points.shape[0], mesh.shape[DATA]
    if num_points % parts:
        raise ValueError(
            f"{num_points} points cannot be split over {parts} devices; pad them with `pad_rows`"
        )
    # Numbers for all points, as the sampler of one device draws them: small beside the points.
    draws = jnp.where(eligible, jax.random.uniform(key, eligible.shape), -1.0)

    def of_part(points: jax.Array, eligible: jax.Array, draws: jax.Array):
        state = _start(points, eligible, draws, num)
        norms = jnp.sum(points**2, axis=-1)

        def unfinished(state: _State):
            return (state.count < num) & (state.farthest > -jnp.inf)

        def advance(state: _State):
            ahead = _look_ahead(state, points, min(pool_size, len(points)))
            return _learn(ahead, state, points, norms, min(block_size, num))

        state = jax.lax.while_loop(unfinished, advance, state)
        filled = (jnp.arange(num) < state.count).astype(points.dtype)
        bank = types.Bank(state.atoms, filled, state.indices)
        return bank, jnp.sqrt(jnp.maximum(state.farthest, 0))

    return jax.shard_map(
        of_part, mesh=mesh, in_specs=(P(DATA),) * 3, out_specs=P(), check_vma=False
    )(points, eligible, draws)


def _start(points, eligible, draws, num) -> _State:
    """The state with the first, random choice made."""
    (values, rows, indices), _ = _offer(draws, points, 1)
    best = jnp.argmax(values)
    first, filled = rows[best], jax.lax.pmax(jnp.max(draws), DATA) >= 0
    first = jnp.where(filled, first, 0)
    distances = linalg.squared_distances(points, first[None])[:, 0]
    distances = jnp.where(eligible, distances, -jnp.inf)
    distances = _take_out(distances, jnp.where(filled, indices[best], -1)[None])
    return _State(
        atoms=jnp.zeros((num, points.shape[1]), points.dtype).at[0].set(first),
        indices=jnp.zeros(num, jnp.int32).at[0].set(jnp.where(filled, indices[best], 0)),
        count=filled.astype(jnp.int32),
        farthest=jax.lax.pmax(jnp.max(distances), DATA),
        distances=distances,
    )


def _offer(values, points, size):
    """The pool of every device's `size` points of largest value, and the largest value left out.

    Returns:
      `([parts size], [parts size, D], [parts size] int32)` values, points and global indices, in
      the order of the points where values are equal; and `[]`.
    """
    found, order = jax.lax.top_k(values, min(size + 1, len(values)))
    left = found[size] if len(values) > size else -jnp.inf
    mine = order[:size] + jax.lax.axis_index(DATA) * len(values)
    offered = (found[:size], points[order[:size]], mine.astype(jnp.int32))
    pool = jax.tree.map(lambda x: jax.lax.all_gather(x, DATA, tiled=True), offered)
    return pool, jax.lax.pmax(left, DATA)


def _look_ahead(state: _State, points, pool_size) -> _State:
    """Goes on inside the pool for as long as that is sure to be right; alike on every device."""
    (values, rows, indices), bound = _offer(state.distances, points, pool_size)
    num = state.indices.shape[0]
    places, count = k_center.traverse_pool(
        rows, jnp.sum(rows**2, axis=-1), values, bound, start=state.count, upto=num, num_slots=num
    )
    fresh = k_center.fresh_slots(state, count)
    return state._replace(
        atoms=jnp.where(fresh[:, None], rows[places], state.atoms),
        indices=jnp.where(fresh, indices[places], state.indices),
        count=count,
    )


def _learn(state: _State, before: _State, points, norms, block_size) -> _State:
    """Lowers this device's distances to those from the choices made since `before`."""

    def centres(slots):
        chosen = state.atoms[slots]
        return chosen, jnp.sum(chosen**2, axis=-1)

    distances = k_center.learn(
        state.distances, points, norms, centres,
        start=before.count, count=state.count, block_size=block_size,
    )  # fmt: skip
    fresh = k_center.fresh_slots(before, state.count)
    distances = _take_out(distances, jnp.where(fresh, state.indices, -1))
    return state._replace(distances=distances, farthest=jax.lax.pmax(jnp.max(distances), DATA))


def _take_out(distances, indices):
    """-inf at those of the global indices that are this device's; negative ones are none."""
    local = indices - jax.lax.axis_index(DATA) * len(distances)
    inside = (indices >= 0) & (local >= 0) & (local < len(distances))
    return distances.at[jnp.where(inside, local, len(distances))].set(-jnp.inf, mode="drop")
