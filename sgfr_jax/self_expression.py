"""Codes of points over a bank that may contain them: no point may stand for itself."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sgfr_jax import types

MakeCode = Callable[[jax.Array, types.Bank], types.Code]


def leave_one_out(
    targets: jax.Array, own: jax.Array, bank: types.Bank, *, code: MakeCode
) -> types.Code:
    """Codes every target over the bank without the atom that the target itself is.

    For one target that atom's weight is zero, so a coder treats it as padding.

    Args:
      targets: `[N, D]`.
      own: `[N]` int32, which of the patches that the bank was made of each target is; an atom is
        left out where `bank.indices` says the same. -1 for a target that is none of them.
      bank: `M` atoms.
      code: a coder `(targets, bank) -> Code` that gives padding atoms coefficient 0.

    Returns:
      A `Code` of the targets.

    Raises:
      ValueError: if shapes do not fit, or what `code` raises.
    """
    if own.shape != targets.shape[:1]:
        raise ValueError(f"own must be [N] for targets {targets.shape}, got {own.shape}")
    bank = jax.tree.map(jnp.asarray, bank)

    def of_one(target: jax.Array, own: jax.Array) -> types.Code:
        its_own = (bank.indices == own) & (own >= 0)  # -1 of an atom says that it is no patch
        others = bank._replace(weights=jnp.where(its_own, 0, bank.weights))
        return jax.tree.map(lambda part: part[0], code(target[None], others))

    return jax.vmap(of_one)(targets, own)


def dense(code: types.Code, num_atoms: int) -> jax.Array:
    """The code as one coefficient per atom of the bank.

    Args:
      code: of `N` targets.
      num_atoms: `M`.

    Returns:
      `[N, M]`; coefficients that name one atom twice are added.
    """
    if code.indices is None:
        return code.coefficients
    rows = jnp.arange(code.coefficients.shape[0])[:, None]
    zeros = jnp.zeros((code.coefficients.shape[0], num_atoms), code.coefficients.dtype)
    return zeros.at[rows, code.indices].add(code.coefficients)
