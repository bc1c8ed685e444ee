"""Fitting and scoring over many devices: the same functions, through `jax.shard_map`.

A mesh has the axes `DATA`, which batches and nominal patches are split over, and `ATOMS`, which a
bank too large for one device is. Nothing here calls `jax.jit`; plain `jit` of a sharded batch
would replicate it on some platforms, and `shard_map` cannot.

A mesh of explicit axes, as `jax.make_mesh` makes by default in newer JAX, serves the functions here
as one of `make_mesh` does. Those of the core gather, sort and cut rows in ways whose sharding JAX
does not tell by itself: give such arrays to them inside `jax.shard_map`, where `check_vma=True` is
no obstacle, or, where all devices work together, inside `jax.sharding.auto_axes`:

    score = jax.sharding.auto_axes(partial(pipeline.score, code=code), out_sharding=P(DATA))
    sample = jax.sharding.auto_axes(partial(samplers.greedy_k_center, num=100), out_sharding=P())
"""

from sgfr_jax.sharding.atoms import score_over_atoms
from sgfr_jax.sharding.batches import data_parallel
from sgfr_jax.sharding.categories import fit_categories, score_categories, stack_categories
from sgfr_jax.sharding.k_center import (
    Traversal,
    bank_of,
    k_center_advance_over_patches,
    k_center_over_patches,
    k_center_start_over_patches,
)
from sgfr_jax.sharding.mesh import ATOMS, DATA, make_mesh, pad_rows

__all__ = [
    "ATOMS",
    "DATA",
    "Traversal",
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
