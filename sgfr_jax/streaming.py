"""Sampling in one pass and bounded memory: a core of atoms that patches stream into.

`fold` merges a block of patches into the core and reduces both to the core's size by greedy
k-center. Every atom carries its reach, the distance within which all patches lie that it stands
for, so the covering radius of the result over all patches seen is known, not hoped for.

Each reduction is itself a 2-approximation (Gonzalez 1985) of the best `M` centres for points that
are all nominal patches, so it moves a patch's atom by at most twice the best covering radius of the
whole set; after `L` folds the reach is at most `2 L` times that. In practice the atoms cover about
as well as those of the sampler that sees everything at once, and the reach is two or three times
what it need be, since it adds up the ways from one fold to the next. Where the patches can be had
again, as from a cache, a second pass measures it: `uncovered`, then `cover` for every block.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sgfr_jax import checks, linalg, samplers, types


@types.exportable
class Core(NamedTuple):
    """What is kept of the patches seen so far."""

    atoms: jax.Array  # [M, D] float32, or float64 if a block was that
    weights: jax.Array  # [M]: 1 for an atom, 0 for padding
    indices: jax.Array  # [M] int32: which of the patches seen each atom is, counted from 0
    reach: jax.Array  # [M]: how far the patches may lie that the atom stands for
    seen: jax.Array  # [] int32: how many slots of blocks have gone by, padding included


def empty(num_atoms: int, num_features: int, dtype: DTypeLike = jnp.float32) -> Core:
    """A core that has seen nothing.

    Args:
      num_atoms: `M`.
      num_features: `D`.
      dtype: float64 for the carry of a loop over blocks of that, float32 for all others.

    Raises:
      ValueError: if a number is not positive.
    """
    checks.positive("such as 1000", num_atoms=num_atoms)
    checks.positive("such as 272", num_features=num_features)
    return Core(
        atoms=jnp.zeros((num_atoms, num_features), dtype),
        weights=jnp.zeros(num_atoms, dtype),
        indices=jnp.zeros(num_atoms, jnp.int32),
        reach=jnp.zeros(num_atoms, dtype),
        seen=jnp.zeros((), jnp.int32),
    )


def fold(key: jax.Array, core: Core, patches: jax.Array, weights: jax.Array) -> Core:
    """The core after a block of patches has been merged into it.

    Args:
      key: consumed by the choice of the first atom; the same key for every block will do.
      core: `M` atoms.
      patches: `[N, D]`.
      weights: `[N]`; 0 for padding, such as fills up the last block. Patches that are not finite
        are treated as padding.

    Returns:
      A core of `M` atoms that stands for everything seen; in float64 if it or the patches are.

    Raises:
      ValueError: if shapes do not fit.
    """
    core, patches, weights = _checked(core, patches, weights)
    points = jnp.concatenate([core.atoms, patches])
    eligible = jnp.concatenate([core.weights, weights])
    indices = jnp.concatenate([core.indices, core.seen + jnp.arange(len(patches), dtype=jnp.int32)])
    reach = jnp.concatenate([core.reach, jnp.zeros(len(patches), core.reach.dtype)])

    selection = samplers.greedy_k_center(key, points, eligible, len(core.atoms))
    bank = types.make_bank(points, selection)
    owner, distance = linalg.nearest_distances(points, bank.atoms, bank.weights)
    # What lay within a point's reach lies within that and the way to its new atom.
    beyond = jnp.where(eligible > 0, distance + reach, 0)
    return Core(
        atoms=bank.atoms,
        weights=bank.weights,
        indices=indices[bank.indices],
        reach=jnp.zeros_like(core.reach).at[owner].max(beyond),
        seen=core.seen + len(patches),
    )


def uncovered(core: Core) -> Core:
    """The same atoms, standing for nothing yet: where a second pass over the patches begins.

    Args:
      core: `M` atoms.

    Returns:
      The core with a reach `[M]` of 0 and nothing seen.
    """
    return core._replace(reach=jnp.zeros_like(core.reach), seen=jnp.zeros_like(core.seen))


def cover(core: Core, patches: jax.Array, weights: jax.Array) -> Core:
    """The core with its reach measured on a block of patches; the atoms stay.

    After all blocks have gone by, in any order and of any size, the reach of an atom is the
    distance of the farthest patch that is nearest to it, and `covering_radius` is the true one.

    Args:
      core: from `uncovered`, or from this for an earlier block.
      patches: `[N, D]`.
      weights: `[N]`; as of `fold`.

    Returns:
      The core with its reach raised to what the block needs.

    Raises:
      ValueError: if shapes do not fit.
    """
    core, patches, weights = _checked(core, patches, weights)
    owner, distance = linalg.nearest_distances(patches, core.atoms, core.weights)
    distance = jnp.where(weights > 0, distance, 0)
    return core._replace(reach=core.reach.at[owner].max(distance), seen=core.seen + len(patches))


def to_bank(core: Core) -> types.Bank:
    """The core as a bank to score with.

    Args:
      core: `M` atoms.

    Returns:
      A `Bank` of the `M` atoms `[M, D]`, whose indices count the patches seen.
    """
    return types.Bank(core.atoms, core.weights, core.indices)


def covering_radius(core: Core) -> jax.Array:
    """No patch seen lies farther than this from its nearest atom: `max_n min_m |x_n - a_m|`.

    After `fold` it is a bound, after `cover` the largest such distance itself.

    Args:
      core: `M` atoms, with their reach.

    Returns:
      `[]`.
    """
    return jnp.max(core.reach)


def _checked(
    core: Core, patches: jax.Array, weights: jax.Array
) -> tuple[Core, jax.Array, jax.Array]:
    """The same in one precision, the weights 0 where patches are not finite: nothing covers those.

    Raises:
      ValueError: if shapes do not fit.
    """
    if patches.ndim != 2 or patches.shape[1:] != core.atoms.shape[1:]:
        raise ValueError(
            f"patches must be [N, D] with the core's D, got patches {patches.shape}"
            f" and atoms {core.atoms.shape}"
        )
    if weights.shape != patches.shape[:1]:
        raise ValueError(
            f"weights must be [N], one for each patch, got {weights.shape} and {patches.shape}"
        )
    checks.floating(patches=patches)
    atoms, patches = linalg.in_one_precision(core.atoms, patches)
    core = core._replace(
        atoms=atoms, weights=core.weights.astype(atoms.dtype), reach=core.reach.astype(atoms.dtype)
    )
    weights = jnp.where(jnp.all(jnp.isfinite(patches), axis=-1), weights, 0)
    return core, patches, weights.astype(atoms.dtype)
