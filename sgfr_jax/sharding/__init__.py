"""Fitting and scoring over many devices: the same functions, through `jax.shard_map`.

A mesh has the axes `DATA`, which batches and nominal patches are split over, and `ATOMS`, which a
bank too large for one device is. Nothing here calls `jax.jit`; plain `jit` of a sharded batch
would replicate it on some platforms, and `shard_map` cannot.
"""

from sgfr_jax.sharding.atoms import score_over_atoms
from sgfr_jax.sharding.batches import data_parallel
from sgfr_jax.sharding.categories import fit_categories, score_categories, stack_categories
from sgfr_jax.sharding.k_center import (
    bank_of,
    k_center_advance_over_patches,
    k_center_over_patches,
    k_center_start_over_patches,
)
from sgfr_jax.sharding.mesh import ATOMS, DATA, make_mesh, pad_rows

__all__ = [
    "ATOMS",
    "DATA",
    "bank_of",
    "data_parallel",
    "fit_categories",
    "k_center_advance_over_patches",
    "k_center_over_patches",
    "k_center_start_over_patches",
    "make_mesh",
    "pad_rows",
    "score_categories",
    "score_over_atoms",
    "stack_categories",
]
