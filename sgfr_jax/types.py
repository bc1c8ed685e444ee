"""The containers that the modules hand to each other: plain pytrees of arrays."""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import export

from sgfr_jax import linalg

Named = TypeVar("Named", bound=tuple)


def exportable(named: type[Named]) -> type[Named]:
    """The `NamedTuple`, which functions that `jax.export` serializes may take and return."""
    name = f"sgfr_jax.{named.__name__}"
    return export.register_namedtuple_serialization(named, serialized_name=name)


@exportable
class Selection(NamedTuple):
    """Which of `N` points a sampler chose; also the state it resumes from.

    Slots that are not (or cannot be) filled, because the sampler has not come so far or there are
    fewer points than slots, hold index 0 and weight 0.
    """

    indices: jax.Array  # [M] int32, in the order of choice
    weights: jax.Array  # [M] float32: 1 in the filled slots
    count: jax.Array  # [] int32: filled slots
    # [N] squared distance to the nearest choice, or the sampler's own cost, of which it may be an
    # upper bound; -inf: chosen, or not eligible.
    distances: jax.Array


@exportable
class Bank(NamedTuple):
    """The fitted state: the nominal patches that stand for all the others.

    Its indices have no gradient, and `jax.grad` refuses integers. Differentiate by the atoms,
    `jax.grad(lambda atoms: f(bank._replace(atoms=atoms)))(bank.atoms)`, or by all of the bank with
    `jax.grad(f, allow_int=True)(bank)`, whose indices are zeros of type `jax.dtypes.float0`.
    """

    atoms: jax.Array  # [M, D] float32
    weights: jax.Array  # [M] float32: 1 for an atom, 0 for padding
    indices: jax.Array  # [M] int32: which patch given to `fit` an atom is; -1: it is none


@exportable
class Code(NamedTuple):
    """Self-expression: target `n` is about `coefficients[n] @ atoms[indices[n]]`.

    Where `indices` is None there is one coefficient for every atom of the bank, in its order
    (`K = M`): target `n` is about `coefficients[n] @ atoms`, and nothing need be gathered.
    """

    indices: jax.Array | None  # [N, K] int32: rows of the bank
    coefficients: jax.Array  # [N, K] float32


@exportable
class Subspaces(NamedTuple):
    """`S` linear or affine subspaces of rank up to `R`: `mean + span(rows of the basis)`.

    A subspace of lower rank has zero rows in its basis; a padding subspace has weight 0.
    """

    bases: jax.Array  # [S, R, D] float32: orthonormal rows, or zero rows for padding
    means: jax.Array  # [S, D] float32: zero for a linear subspace
    weights: jax.Array  # [S] float32: 1 for a subspace, 0 for padding


def make_bank(patches: jax.Array, selection: Selection) -> Bank:
    """The bank that a selection makes of the patches it was made on.

    Args:
      patches: `[N, D]`.
      selection: of `M` slots.

    Returns:
      A `Bank` of `M` atoms; unfilled slots are zero atoms of weight 0.
    """
    chosen = linalg.at_least_float32(jnp.asarray(patches)[selection.indices])
    atoms = jnp.where(selection.weights[:, None] > 0, chosen, 0)
    return Bank(atoms, selection.weights, selection.indices)


def clear_padding(bank: Bank) -> Bank:
    """The bank with zeros for its padding atoms, whatever they hold.

    Their coefficients are 0, but what is rebuilt with them would be NaN where they are: 0 times NaN
    is NaN.
    """
    return bank._replace(atoms=jnp.where(bank.weights[:, None] > 0, bank.atoms, 0))


def subspace_bank(subspaces: Subspaces) -> Bank:
    """The bank of all subspaces' atoms: of each its mean, then the rows of its basis.

    Any coder runs on it: OMP and ridge over concatenated bases are `solvers.omp` and
    `solvers.whole_bank_ridge` of this bank; `solvers.project` codes over one subspace of it.

    Args:
      subspaces: `S` of rank `R`.

    Returns:
      A `Bank` of `S (R + 1)` atoms, that of row `r` of subspace `s` at `s (R + 1) + 1 + r`, which
      are no patches: their indices are -1. Zero atoms (the mean of a linear subspace, padding rows)
      and padding subspaces weigh 0.
    """
    rows = jnp.concatenate([subspaces.means[:, None], subspaces.bases], axis=1)
    used = jnp.any(rows != 0, axis=-1) & (subspaces.weights[:, None] > 0)
    atoms = jnp.where(used[..., None], rows, 0).reshape(-1, rows.shape[-1])
    indices = jnp.full(atoms.shape[0], -1, jnp.int32)
    return Bank(atoms, used.reshape(-1).astype(atoms.dtype), indices)
