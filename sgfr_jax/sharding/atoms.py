"""Scores against a bank that no device holds whole."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from sgfr_jax import checks, linalg, reconstruction, types
from sgfr_jax.sharding.mesh import ATOMS, DATA, pad_rows
from sgfr_jax.solvers import Solve


def score_over_atoms(
    bank: types.Bank,
    patches: jax.Array,
    *,
    mesh: Mesh,
    num_neighbors: int,
    solve: Solve,
    chunk_size: int | None = None,
) -> jax.Array:
    """What `pipeline.score` with `solvers.local_code` finds, of a bank split over devices.

    Every device finds the `K` nearest of its own atoms; the `K` nearest of all are among these.
    Their closeness is gathered, `[parts, n, K]`, and of the atoms only those chosen are summed
    over the devices, `[n, K, D]`, of which one holds each and the others zeros: exact.

    Args:
      bank: `M` atoms; split over the mesh's atoms axis, which must divide `M`. Padding weighs 0.
      patches: `[N, D]`; split over the data axis, which must divide `N`.
      mesh: from `make_mesh`.
      num_neighbors: `K`, at most `M`.
      solve: a penalty, as of `solvers.local_code`.
      chunk_size: how many patches of a device to code at a time; None: all of them.

    Returns:
      `[N]`.

    Raises:
      ValueError: as `solvers.local_code`, and if the mesh does not divide the shapes.
    """
    patches, atoms = checks.targets_and_atoms(patches, types.clear_padding(bank))
    checks.number_of_atoms("num_neighbors", num_neighbors, bank)
    parts, splits = mesh.shape[ATOMS], mesh.shape[DATA]
    if atoms.shape[0] % parts or patches.shape[0] % splits:
        raise ValueError(
            f"{atoms.shape[0]} atoms must divide into {parts} parts, and {patches.shape[0]} patches"
            f" into {splits}; pad them with `pad_rows`"
        )

    def of_chunk(atoms: jax.Array, weights: jax.Array, targets: jax.Array) -> jax.Array:
        support, valid = _gather_nearest(atoms, weights, targets, num_neighbors)
        coefficients = jax.vmap(solve)(targets, support, valid)
        # The atoms of all targets one after the other, as one bank.
        rows = jnp.arange(valid.size, dtype=jnp.int32).reshape(valid.shape)
        flat = support.reshape(-1, support.shape[-1])
        return reconstruction.residual_norm(targets, flat, types.Code(rows, coefficients))

    def of_part(atoms: jax.Array, weights: jax.Array, targets: jax.Array) -> jax.Array:
        if chunk_size is None or len(targets) <= chunk_size:
            return of_chunk(atoms, weights, targets)
        # Every device has as many chunks, so that all meet in each.
        chunks = pad_rows(targets, chunk_size).reshape(-1, chunk_size, targets.shape[1])
        found = jax.lax.map(lambda some: of_chunk(atoms, weights, some), chunks)
        return found.reshape(-1)[: len(targets)]

    return jax.shard_map(
        of_part,
        mesh=mesh,
        in_specs=(P(ATOMS), P(ATOMS), P(DATA)),
        out_specs=P(DATA),
        check_vma=False,
    )(atoms, bank.weights, patches)


def _gather_nearest(atoms, weights, targets, num_neighbors):
    """The `K` nearest atoms of all parts, `[n, K, D]`, and which are no padding, `[n, K]`."""
    num_local = atoms.shape[0]
    found = min(num_neighbors, num_local)
    indices = linalg.nearest(targets, atoms, weights, num_neighbors=found)
    local = atoms[indices]
    # From differences: each device's search saw its own atoms from their own mean.
    closeness = -linalg.norm(targets[:, None] - local)
    closeness = linalg.rank_padding_last(closeness, weights[indices])

    every = jax.lax.all_gather(closeness, ATOMS, axis=1, tiled=True)  # [n, parts found]
    chosen = jax.lax.optimization_barrier(jax.lax.top_k(every, num_neighbors)[1])
    slot = chosen - jax.lax.axis_index(ATOMS) * found
    mine = (slot >= 0) & (slot < found)
    picked = jnp.take_along_axis(local, jnp.clip(slot, 0, found - 1)[..., None], axis=1)
    support = jax.lax.psum(jnp.where(mine[..., None], picked, 0), ATOMS)
    return support, jnp.take_along_axis(every, chosen, axis=1) != -jnp.inf
