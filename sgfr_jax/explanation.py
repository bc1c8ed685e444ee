"""Why a patch scored what it did: which atoms tried to mimic it, and what they could not.

A residual is not the last word of a reconstruction: the atoms that it was made of are patches that
can be looked at, and the features that it missed belong to levels of a network that see different
things.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax import linalg, reconstruction, types
from sgfr_jax.self_expression import MakeCode


@types.exportable
class Explanation(NamedTuple):
    """What rebuilt each of `N` patches, and where that failed."""

    atoms: jax.Array  # [N, T] int32 rows of the bank, largest contribution first; -1: no more
    coefficients: jax.Array  # [N, T]: of these atoms; 0 where there are no more
    scores: jax.Array  # [N]: norms of the residuals
    shares: jax.Array  # [N, L]: of the squared residual, by level; they add up to 1, or all are 0


def explain(
    bank: types.Bank,
    patches: jax.Array,
    *,
    code: MakeCode,
    level_widths: Sequence[int],
    num_atoms: int = 10,
) -> Explanation:
    """Which atoms rebuilt each patch, with what weights, and which levels carry the residual.

    Atoms are ranked by the norm of what they contribute, `|c_m| |a_m|`, so that a bank of patches
    and one of bases, whatever their norms, are read alike.

    Args:
      bank: `M` atoms `[M, D]`, of patches or learned.
      patches: `[N, D]`.
      code: the coder that scores, with its hyperparameters bound; over a support or the whole bank.
      level_widths: how many features each of `L` levels has, in the order in which
        `patches.merge_levels` concatenated them; they add up to `D`.
      num_atoms: `T`, of the atoms in a code at most so many; fewer if its support is smaller.

    Returns:
      An `Explanation` with `T = min(num_atoms, K)`.

    Raises:
      ValueError: if the widths do not add up to `D` or one is not positive, `num_atoms` is not
        positive, or what `code` raises.
    """
    if sum(level_widths) != patches.shape[-1] or min(level_widths, default=0) < 1:
        raise ValueError(
            f"level_widths={tuple(level_widths)} must be positive and add up to the features of"
            f" patches {patches.shape}"
        )
    if num_atoms < 1:
        raise ValueError(f"num_atoms={num_atoms}; it must be positive")
    bank = types.clear_padding(bank)
    found = code(patches, bank)
    residual = reconstruction.residual(patches, bank.atoms, found)
    norms = jnp.sqrt(jnp.sum(linalg.at_least_float32(bank.atoms) ** 2, axis=-1))
    norms = norms[None] if found.indices is None else norms[found.indices]
    contributions = jnp.abs(found.coefficients) * norms
    largest, places = jax.lax.top_k(contributions, min(num_atoms, contributions.shape[-1]))
    rows = places if found.indices is None else jnp.take_along_axis(found.indices, places, axis=-1)
    return Explanation(
        atoms=jnp.where(largest > 0, rows, -1).astype(jnp.int32),
        coefficients=jnp.where(
            largest > 0, jnp.take_along_axis(found.coefficients, places, axis=-1), 0
        ),
        scores=reconstruction.residual_norm(patches, bank.atoms, found),
        shares=_shares(residual, level_widths),
    )


def _shares(residual: jax.Array, level_widths: Sequence[int]) -> jax.Array:
    """The share of each level in the squared residuals `[N, D]`: `[N, L]`."""
    # Divided by the largest first, so that squares of small residuals do not vanish.
    largest = jnp.max(jnp.abs(residual), axis=-1, keepdims=True)
    squares = (residual / jnp.where(largest > 0, largest, 1)) ** 2
    ends = np.cumsum(level_widths)[:-1]
    parts = jnp.stack([jnp.sum(x, axis=-1) for x in jnp.split(squares, ends, axis=-1)], axis=-1)
    total = jnp.sum(parts, axis=-1, keepdims=True)
    return parts / jnp.where(total > 0, total, 1)
