"""Ridge over all atoms at once."""

import jax
import jax.numpy as jnp

from sgfr_jax import linalg, types
from sgfr_jax.solvers import checks


def whole_bank_ridge(targets: jax.Array, bank: types.Bank, *, ridge: float) -> types.Code:
    """Codes every target over all atoms under a ridge: a fixed linear shrinkage.

    `min_c |z - A^T c|^2 + ridge tr(A A^T)/M |c|^2`. One factorisation serves all targets, of
    `A A^T + lambda I [M, M]` or, where there are more atoms than features, of the
    `A^T A + lambda I [D, D]` in `c = A (A^T A + lambda I)^-1 z`. On an atom the residual is at
    most `sqrt(lambda)/2`.

    Args:
      targets: `[N, D]`.
      bank: `M` atoms `[M, D]`.
      ridge: the penalty relative to the mean squared norm of the atoms. Positive, and not below
        about 1e-5 in float32 for banks of thousands.

    Returns:
      A `Code` without indices, coefficients `[N, M]`; 0 for padding.

    Raises:
      ValueError: if the number of features differs, numbers are not floating, or `ridge` is not
        positive.
    """
    targets, atoms = checks.targets_and_atoms(targets, bank)
    checks.positive("such as 1e-3", ridge=ridge)
    atoms = checks.real_atoms(atoms, bank)
    scale = jnp.sum(atoms**2) / jnp.maximum(jnp.sum(bank.weights > 0), 1)
    # A bank of zeros has no scale of its own; any will do.
    penalty = ridge * jnp.where(scale > jnp.finfo(atoms.dtype).tiny / ridge, scale, 1)

    over_atoms = atoms.shape[0] <= atoms.shape[1]
    factor = atoms.T if over_atoms else atoms  # [Q, P], P the smaller side
    right = jnp.matmul(targets, factor, precision=linalg.HIGHEST) if over_atoms else targets

    def apply(rows: jax.Array) -> jax.Array:
        there = jnp.matmul(rows, factor.T, precision=linalg.HIGHEST)
        return jnp.matmul(there, factor, precision=linalg.HIGHEST) + penalty * rows

    matrix = jnp.matmul(factor.T, factor, precision=linalg.HIGHEST)
    matrix = matrix + penalty * jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    cholesky = jax.lax.linalg.cholesky(matrix)
    found = jax.scipy.linalg.cho_solve((cholesky, True), right.T).T
    # The largest eigenvalue may be `M / ridge` times the penalty: rounding in the factor is then
    # a sizeable part of the penalty, and what is left of a target is all penalty.
    for _ in range(2):
        found = found + jax.scipy.linalg.cho_solve((cholesky, True), (right - apply(found)).T).T
    if not over_atoms:
        found = jnp.matmul(found, atoms.T, precision=linalg.HIGHEST)
    return types.Code(None, found)
