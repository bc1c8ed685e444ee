"""Ridge over all atoms at once."""

import jax
import jax.numpy as jnp

from sgfr_jax import checks, frames, linalg, types

# What the Gram matrix is raised by to factorise, in roundings of its trace: those of a sum over
# thousands of atoms that coincide add up to seventy on some processors.
_LIFT = 128


def whole_bank_ridge(targets: jax.Array, bank: types.Bank, *, ridge: float) -> types.Code:
    """Codes every target over all atoms under a ridge: a fixed linear shrinkage.

    `min_c |z - A^T c|^2 + ridge tr(A A^T)/M |c|^2` (Hoerl and Kennard 1970). One factorisation
    serves all targets, to solve and to refine once (Wilkinson 1963): of `A A^T + lambda I [M, M]`
    or, where there are more atoms than features, of the `A^T A + lambda I [D, D]` in
    `c = A (A^T A + lambda I)^-1 z`. On an atom the residual is at most `sqrt(lambda)/2`.

    Args:
      targets: `[N, D]`.
      bank: `M` atoms `[M, D]`.
      ridge: the penalty relative to the mean squared norm of the atoms; positive. Down to `M eps`
        (1e-4 for a thousand atoms in float32) residuals are right to some tens of `eps` of their
        target even where all atoms coincide. Below, such banks lose more; others do not.

    Returns:
      A `Code` without indices, coefficients `[N, M]`; 0 for padding.

    Raises:
      ValueError: if the number of features differs, numbers are not floating, or `ridge` is not
        positive and finite.
    """
    targets, atoms = checks.targets_and_atoms(targets, bank)
    checks.positive("such as 1e-3", ridge=ridge)
    atoms = checks.real_atoms(atoms, bank)
    own, unit = frames.unit_of(targets, -1), frames.unit_of(atoms)
    targets, atoms = targets / own, atoms / unit
    scale = jnp.sum(atoms**2) / jnp.maximum(jnp.sum(bank.weights > 0, dtype=atoms.dtype), 1)
    # A bank of zeros has no scale of its own; any will do.
    penalty = ridge * jnp.where(scale > jnp.finfo(atoms.dtype).tiny / ridge, scale, 1)

    over_atoms = atoms.shape[0] <= atoms.shape[1]
    factor = atoms.T if over_atoms else atoms  # the shorter side last
    whitened, whitening, cholesky = _factorize(factor, penalty)
    before, after = (whitened, whitening) if over_atoms else (whitening, whitened)

    def solve(right: jax.Array) -> jax.Array:
        return jax.scipy.linalg.cho_solve((cholesky, True), right.T).T

    first = solve(jnp.matmul(targets, before, precision=linalg.HIGHEST))
    coefficients = jnp.matmul(first, after.T, precision=linalg.HIGHEST)
    # Refined once by what is left: atoms that coincide add their roundings up.
    left = targets - jnp.matmul(coefficients, atoms, precision=linalg.HIGHEST)
    solution = jnp.matmul(first, whitening.T, precision=linalg.HIGHEST)
    right = jnp.matmul(left, before, precision=linalg.HIGHEST)
    right -= penalty * jnp.matmul(solution, whitening, precision=linalg.HIGHEST)
    more = jnp.matmul(solve(right), after.T, precision=linalg.HIGHEST)
    return types.Code(None, (coefficients + more) * (own / unit))


def _factorize(factor: jax.Array, penalty: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`F W`, `W` and `C` with `(F^T F + penalty I)^-1 = W (C C^T)^-1 W^T`.

    Shifted Cholesky QR (Fukaya et al. 2020) of `[F; sqrt(penalty) I]`. The largest eigenvalue of
    the Gram matrix may be `M / ridge` times the penalty, which then drowns in its rounding: with
    its diagonal raised by that it still serves to make the columns of `F W` all but orthonormal,
    and their own Gram matrix is well-conditioned.

    Args:
      factor: `F [Q, P]`.
      penalty: `[]`, positive.

    Returns:
      `[Q, P]`, `[P, P]` and `[P, P]`, lower triangular.
    """
    identity = jnp.eye(factor.shape[1], dtype=factor.dtype)
    gram = jnp.matmul(factor.T, factor, precision=linalg.HIGHEST)
    lift = _LIFT * jnp.finfo(gram.dtype).eps * jnp.trace(gram)
    first = jax.lax.linalg.cholesky(gram + (penalty + lift) * identity)
    whitening = jax.scipy.linalg.solve_triangular(first, identity, lower=True).T
    whitened = jnp.matmul(factor, whitening, precision=linalg.HIGHEST)
    gram = jnp.matmul(whitened.T, whitened, precision=linalg.HIGHEST)
    gram = gram + penalty * jnp.matmul(whitening.T, whitening, precision=linalg.HIGHEST)
    return whitened, whitening, jax.lax.linalg.cholesky(gram)
