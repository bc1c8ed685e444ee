"""From a code back to features, and what the code could not explain."""

import jax
import jax.numpy as jnp

from sgfr_jax import linalg, types


def reconstruct(atoms: jax.Array, code: types.Code) -> jax.Array:
    """The features that a code stands for, `A^T c`.

    Args:
      atoms: `[M, D]`; finite, padding too: see `types.clear_padding`.
      code: of `N` targets, over atoms that it names or, without indices, over all of them.

    Returns:
      `[N, D]`.

    Raises:
      ValueError: if a code over all atoms is one of another number of them.
    """
    if code.indices is None and code.coefficients.shape[-1] != atoms.shape[0]:
        raise ValueError(
            f"coefficients {code.coefficients.shape} without indices must be [N, M], one for each"
            f" of the atoms {atoms.shape}; give the bank that the code was made with"
        )
    if code.indices is None:
        coefficients, atoms = linalg.in_one_precision(code.coefficients, atoms)
        return jnp.matmul(coefficients, atoms, precision=linalg.HIGHEST)
    support = jnp.asarray(atoms)[code.indices]
    coefficients, support = linalg.in_one_precision(code.coefficients, support)
    return jnp.einsum("nk,nkd->nd", coefficients, support, precision=linalg.HIGHEST)


def residual(targets: jax.Array, atoms: jax.Array, code: types.Code) -> jax.Array:
    """`z - A^T c`: which features of each target its code could not mimic.

    Args:
      targets: `[N, D]`.
      atoms: `[M, D]`.
      code: of the targets.

    Returns:
      `[N, D]`.
    """
    if targets.ndim != 2 or targets.shape[1:] != atoms.shape[1:]:
        raise ValueError(
            f"targets must be [N, D] with the atoms' D, got targets {targets.shape}"
            f" and atoms {atoms.shape}"
        )
    targets, rebuilt = linalg.in_one_precision(targets, reconstruct(atoms, code))
    return targets - rebuilt


def residual_norm(targets: jax.Array, atoms: jax.Array, code: types.Code) -> jax.Array:
    """The patch scores `|z - A^T c|`.

    Args:
      targets: `[N, D]`.
      atoms: `[M, D]`.
      code: of the targets.

    Returns:
      `[N]`; its gradient is zero where the residual is.
    """
    return linalg.norm(residual(targets, atoms, code))
