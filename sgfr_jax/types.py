"""The containers that the modules hand to each other: plain pytrees of arrays."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Selection(NamedTuple):
    """Which of `N` points a sampler chose; also the state it resumes from.

    Slots that are not (or cannot be) filled, because the sampler has not come so far or there are
    fewer points than slots, hold index 0 and weight 0.
    """

    indices: jax.Array  # [M] int32, in the order of choice
    weights: jax.Array  # [M] float32: 1 in the filled slots
    count: jax.Array  # [] int32: filled slots
    distances: jax.Array  # [N] squared distance to the nearest choice; -inf: not eligible


class Bank(NamedTuple):
    """The fitted state: the nominal patches that stand for all the others."""

    atoms: jax.Array  # [M, D] float32
    weights: jax.Array  # [M] float32: 1 for an atom, 0 for padding
    indices: jax.Array  # [M] int32: which of the patches given to `fit` each atom is


class Code(NamedTuple):
    """Sparse self-expression: target `n` is about `coefficients[n] @ atoms[indices[n]]`."""

    indices: jax.Array  # [N, K] int32: rows of the bank
    coefficients: jax.Array  # [N, K] float32


def make_bank(patches: jax.Array, selection: Selection) -> Bank:
    """The bank that a selection makes of the patches it was made on.

    Args:
      patches: `[N, D]`.
      selection: of `M` slots.

    Returns:
      A `Bank` of `M` atoms; unfilled slots are zero atoms of weight 0.
    """
    atoms = jnp.where(selection.weights[:, None] > 0, patches[selection.indices], 0)
    return Bank(atoms, selection.weights, selection.indices)
