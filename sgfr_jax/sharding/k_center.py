"""Farthest-first traversal of patches that no device holds all of."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from sgfr_jax import checks, frames, linalg, types
from sgfr_jax.samplers import eligibility, k_center
from sgfr_jax.sharding.mesh import DATA


@types.exportable
class Traversal(NamedTuple):
    """How far a traversal has come; replicated but for the distances."""

    atoms: jax.Array  # [M, D]
    indices: jax.Array  # [M] int32
    count: jax.Array  # [] int32
    farthest: jax.Array  # []: largest distance of all devices
    distances: jax.Array  # [N], split over the devices as the points are
    origin: jax.Array  # [D]: near the points; distances are expanded about it


_SPECS = Traversal(P(), P(), P(), P(), P(DATA), P())


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
    two all-reduced numbers, and the points themselves never move; their mean is all-reduced once.

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
      ValueError: if `num` is not in `1..N`, shapes do not fit, the devices do not divide `N`, or
        `pool_size` or `block_size` is not positive.
    """
    state = k_center_start_over_patches(key, points, weights, num, mesh=mesh)
    state = k_center_advance_over_patches(
        state, points, num, mesh=mesh, pool_size=pool_size, block_size=block_size
    )
    return bank_of(state), jnp.sqrt(jnp.maximum(state.farthest, 0))


def k_center_start_over_patches(
    key: jax.Array, points: jax.Array, weights: jax.Array, num: int, *, mesh: Mesh
) -> Traversal:
    """The first, random choice of `k_center_over_patches`; arguments and errors are the same."""
    points, eligible = eligibility.check(points, weights, num)
    num_points, parts = points.shape[0], mesh.shape[DATA]
    if num_points % parts:
        raise ValueError(
            f"{num_points} points cannot be split over {parts} devices; pad them with `pad_rows`"
        )
    # Numbers for all points, as the sampler of one device draws them: small beside the points.
    draws = jnp.where(eligible, jax.random.uniform(key, eligible.shape), -1.0)

    def of_part(points: jax.Array, eligible: jax.Array, draws: jax.Array):
        return _start(points, eligible, draws, num)

    return jax.shard_map(
        of_part, mesh=mesh, in_specs=(P(DATA),) * 3, out_specs=_SPECS, check_vma=False
    )(points, eligible, draws)


def k_center_advance_over_patches(
    state: Traversal,
    points: jax.Array,
    upto: int | jax.Array,
    *,
    mesh: Mesh,
    pool_size: int = 256,
    block_size: int = 128,
) -> Traversal:
    """Goes on until `upto` slots are filled, as `samplers.k_center_advance` does on one device.

    Args:
      state: from `k_center_start_over_patches` or an earlier call, over the same points.
      points: `[N, D]`, split as they were.
      upto: how many slots to fill in all; may be traced, so that stepping compiles once.
      mesh: from `make_mesh`.
      pool_size: points that each device offers.
      block_size: choices that one matrix product covers.

    Raises:
      ValueError: if the points are not those of the state, or a size is not positive.
    """
    checks.positive("such as 128", pool_size=pool_size, block_size=block_size)
    expected = (len(state.distances), state.atoms.shape[1])
    if points.shape != expected:
        raise ValueError(
            f"the traversal is over points {expected}, got {points.shape}; give those it was"
            " started with"
        )
    points, num = linalg.at_least_float32(points), state.indices.shape[0]
    upto = jnp.minimum(jnp.asarray(upto, jnp.int32), num)

    def of_part(state: Traversal, points: jax.Array, upto: jax.Array):
        norms = jnp.sum((points - state.origin[None]) ** 2, axis=-1)

        def unfinished(state: Traversal):
            return (state.count < upto) & (state.farthest > -jnp.inf)

        def advance(state: Traversal):
            ahead = _look_ahead(state, points, upto, min(pool_size, len(points)))
            return _learn(ahead, state, points, norms, min(block_size, num))

        return jax.lax.while_loop(unfinished, advance, state)

    return jax.shard_map(
        of_part, mesh=mesh, in_specs=(_SPECS, P(DATA), P()), out_specs=_SPECS, check_vma=False
    )(state, points, upto)


def bank_of(state: Traversal) -> types.Bank:
    """The bank of the choices made so far; the slots after them are padding."""
    filled = (jnp.arange(len(state.indices)) < state.count).astype(state.atoms.dtype)
    return types.Bank(state.atoms, filled, state.indices)


def _start(points, eligible, draws, num) -> Traversal:
    """The state with the first, random choice made."""
    (values, rows, indices), _ = _offer(draws, points, 1)
    best = jnp.argmax(values)
    first, filled = rows[best], jax.lax.pmax(jnp.max(draws), DATA) >= 0
    first = jnp.where(filled, first, 0)
    distances = jnp.sum((points - first[None]) ** 2, axis=-1)
    distances = jnp.where(eligible, distances, -jnp.inf)
    distances = _take_out(distances, jnp.where(filled, indices[best], -1)[None])
    unit = frames.power_of_two(jax.lax.pmax(frames.typical_size(points, eligible), DATA))
    sums, total = jax.lax.psum(frames.weighed_sums(points, eligible, unit), DATA)
    return Traversal(
        atoms=jnp.zeros((num, points.shape[1]), points.dtype).at[0].set(first),
        indices=jnp.zeros(num, jnp.int32).at[0].set(jnp.where(filled, indices[best], 0)),
        count=filled.astype(jnp.int32),
        farthest=jax.lax.pmax(jnp.max(distances), DATA),
        distances=distances,
        origin=frames.origin_of(sums, total, unit),
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


def _look_ahead(state: Traversal, points, upto, pool_size) -> Traversal:
    """Goes on inside the pool for as long as that is sure to be right; alike on every device."""
    (values, rows, indices), bound = _offer(state.distances, points, pool_size)
    num = state.indices.shape[0]
    seen = rows - state.origin[None]
    places, count = k_center.traverse_pool(
        seen, jnp.sum(seen**2, axis=-1), values, bound, start=state.count, upto=upto, num_slots=num
    )
    fresh = k_center.fresh_slots(state, count)
    return state._replace(
        atoms=jnp.where(fresh[:, None], rows[places], state.atoms),
        indices=jnp.where(fresh, indices[places], state.indices),
        count=count,
    )


def _learn(state: Traversal, before: Traversal, points, norms, block_size) -> Traversal:
    """Lowers this device's distances to those from the choices made since `before`."""

    def centres(slots):
        chosen = state.atoms[slots] - state.origin[None]
        return chosen, jnp.sum(chosen**2, axis=-1)

    distances = k_center.learn(
        state.distances, points, state.origin, norms, centres,
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
