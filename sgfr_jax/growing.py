"""A bank that learns more of what is nominal, without the patches that it was made of.

New nominal patches are first coded by the bank as it is. What it mimics as well as it does its own
kind teaches it nothing and is left out; the others and the old atoms are two cores, merged by
greedy k-center as in `streaming`, so that the bank covers both and stays within its size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sgfr_jax import (
    checks,
    linalg,
    pipeline,
    reconstruction,
    self_expression,
    streaming,
    types,
)
from sgfr_jax.self_expression import MakeCode


@types.exportable
class Growth(NamedTuple):
    """A bank of `M'` slots that has seen `N` new patches."""

    bank: types.Bank  # what is left of the old atoms in their old slots, new ones in free slots
    sources: jax.Array  # [M'] int32: which new patch an atom is; -1: it was there, or is padding
    scores: jax.Array  # [N]: residual norms against the old bank
    known: jax.Array  # [N] bool: what the old bank could already mimic


def nominal_level(
    bank: types.Bank, *, code: MakeCode, quantile: float | jax.Array = 0.9, chunk_size: int = 256
) -> jax.Array:
    """The residual at which a patch is as new to a bank as its own atoms are to each other.

    Every atom is coded by all others. Atoms of a good sampler are the patches that are hardest to
    mimic, so most of them leave more than nearly all nominal patches do. Of unseen patches of the
    demo's bricks 85 to 99.9% were within this level of one bank or another (256 to 1000 atoms),
    and of patches on defects less than 1%; but 31 and 39% of these in banks of the two finest
    levels, which see nothing wrong inside a large defect. The default quantile was picked among
    five with these same images in view.

    Args:
      bank: `M` atoms that are patches, not learned bases.
      code: the coder that scores, with its hyperparameters bound.
      quantile: of the atoms' residuals, 0 to 1.
      chunk_size: how many atoms to code at a time.

    Returns:
      `[]`; NaN for a bank of padding.

    Raises:
      ValueError: if `quantile` is out of range, or what `code` raises.
    """
    checks.share(quantile=quantile)
    bank = types.clear_padding(jax.tree.map(jnp.asarray, bank))
    slots = jnp.arange(len(bank.atoms), dtype=jnp.int32)
    others = bank._replace(indices=slots)

    def left(atom_and_slot):
        atom, slot = (x[None] for x in atom_and_slot)
        found = self_expression.leave_one_out(atom, slot, others, code=code)
        return reconstruction.residual_norm(atom, bank.atoms, found)[0]

    residuals = jax.lax.map(left, (bank.atoms, slots), batch_size=chunk_size)
    return jnp.nanquantile(jnp.where(bank.weights > 0, residuals, jnp.nan), quantile)


def update(
    key: jax.Array,
    bank: types.Bank,
    patches: jax.Array,
    weights: jax.Array,
    *,
    code: MakeCode,
    level: jax.Array | float,
    num_atoms: int | None = None,
    chunk_size: int | None = 256,
) -> Growth:
    """Extends a bank by the new nominal patches that it cannot mimic yet.

    Where all of them fit beside the old atoms they are all taken. Else `M'` of both are chosen
    farthest first (`streaming.fold`), and old atoms close to others make room. A patch within
    `level` leaves the bank as it is, bit for bit; so does one of its own atoms, unless others are
    so near (`linalg.squared_distances`) that it is not found again, and its residual above `level`.

    Args:
      key: consumed by the choice of the first atom, where atoms must be chosen.
      bank: `M` atoms that are patches.
      patches: `[N, D]` new nominal patches.
      weights: `[N]`; 0 for padding. Patches that are not finite are treated as padding.
      code: the coder that scores, with its hyperparameters bound.
      level: `[]`, the residual up to which a patch counts as mimicked, as from `nominal_level`.
      num_atoms: `M'`, at least `M`; by default `M`.
      chunk_size: as of `pipeline.score`.

    Returns:
      A `Growth`. In its bank's `indices` new patches are numbered on from the largest of the old,
      as if the bank had been chosen from both.

    Raises:
      ValueError: if shapes do not fit, `num_atoms` is less than `M`, or what `code` raises.
    """
    num_slots = len(bank.atoms) if num_atoms is None else num_atoms
    missing = num_slots - len(bank.atoms)
    if missing < 0:
        raise ValueError(f"num_atoms={num_atoms}, but the bank has {len(bank.atoms)} slots already")
    if weights.shape != patches.shape[:1]:
        raise ValueError(
            f"weights must be [N], one for each patch, got {weights.shape} and {patches.shape}"
        )
    bank = jax.tree.map(jnp.asarray, bank)
    atoms, patches = linalg.in_one_precision(bank.atoms, patches)
    bank = bank._replace(atoms=atoms, weights=bank.weights.astype(atoms.dtype))
    scores = pipeline.score(bank, patches, code=code, chunk_size=chunk_size)
    # A coder that shrinks leaves something even of an atom itself.
    nearest, distances = linalg.nearest_distances(patches, bank.atoms, bank.weights)
    known = (scores <= level) | ((distances == 0) & (bank.weights[nearest] > 0))

    old = jax.tree.map(lambda x: jnp.pad(x, ((0, missing), *[(0, 0)] * (x.ndim - 1))), bank)
    slots = jnp.arange(num_slots, dtype=jnp.int32)
    core = streaming.Core(
        old.atoms, old.weights, slots, jnp.zeros_like(old.weights), jnp.int32(num_slots)
    )
    merged = streaming.fold(key, core, patches, jnp.where(known, 0, weights))

    chosen = merged.weights > 0
    staying = chosen & (merged.indices < num_slots)
    stays = jnp.zeros(num_slots, bool).at[jnp.where(staying, merged.indices, num_slots)].set(
        True, mode="drop"
    )  # fmt: skip
    # The new atoms, in the order of their choice, into the slots that nothing stays in.
    fresh = chosen & ~staying
    free = jnp.argsort(stays, stable=True)
    places = jnp.where(fresh, free[jnp.cumsum(fresh) - 1], num_slots)
    patch = merged.indices - num_slots
    first = jnp.max(jnp.where(bank.weights > 0, bank.indices, -1)) + 1

    def put(into: jax.Array, values: jax.Array) -> jax.Array:
        return into.at[places].set(values, mode="drop")

    grown = types.Bank(
        put(old.atoms, merged.atoms),
        put(jnp.where(stays, old.weights, 0), merged.weights),
        put(old.indices, first + patch),
    )
    return Growth(grown, put(jnp.full(num_slots, -1, jnp.int32), patch), scores, known)
