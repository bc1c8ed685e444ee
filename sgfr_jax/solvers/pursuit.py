"""Orthogonal matching pursuit."""

import jax
import jax.numpy as jnp

from sgfr_jax import checks, frames, linalg, loops, types
from sgfr_jax.solvers import restricted


def omp(
    targets: jax.Array, bank: types.Bank, *, sparsity: int, tolerance: float = 1e-6
) -> types.Code:
    """Codes every target over atoms chosen greedily, at most `K` of them.

    Orthogonal matching pursuit (Pati, Rezaiifar and Krishnaprasad 1993): the next atom is the one
    at the smallest angle to the residual `r = z - A_S^T c`, `argmax_m |a_m . r| / |a_m|`, then all
    coefficients are fitted anew by least squares, `c = argmin |z - A_S^T c|^2`.
    Atoms are normalised for this choice only; the coefficients belong to the atoms as they are. An
    atom is used once. A target is done before `K` atoms when its residual is at most `tolerance`
    of its norm, or when no atom is left that is independent of those chosen.

    Args:
      targets: `[N, D]`.
      bank: `M` atoms `[M, D]`.
      sparsity: `K`, at most `M`.
      tolerance: relative residual to stop at. In float32 1e-6 is as good as zero.

    Returns:
      A `Code` with indices and coefficients `[N, K]` in the order of choice; slots not filled hold
      index 0 and coefficient 0.

    Raises:
      ValueError: if the number of features differs, numbers are not floating, `sparsity` is not in
        `1..M`, or `tolerance` is negative.
    """
    targets, atoms = checks.targets_and_atoms(targets, bank)
    checks.number_of_atoms("sparsity", sparsity, bank)
    checks.not_negative("such as 1e-6", tolerance=tolerance)
    norms = linalg.norm(atoms)[:, None]
    eligible = (bank.weights > 0) & (norms[:, 0] > 0)
    directions = jnp.where(eligible[:, None], atoms / jnp.where(norms > 0, norms, 1), 0)

    def choose(target: jax.Array) -> jax.Array:
        return _choose(target, directions, eligible, sparsity=sparsity, tolerance=tolerance)

    chosen = jax.vmap(choose)(jax.lax.stop_gradient(targets))
    filled = chosen < atoms.shape[0]
    indices = jnp.where(filled, chosen, 0)
    coefficients = jax.vmap(_fit)(targets, atoms[indices], filled)
    # No comparison chooses an atom with NaN, nor any for such a target.
    broken = linalg.nan_unless_finite(checks.real_atoms(atoms, bank))
    return types.Code(
        indices, coefficients + linalg.nan_unless_finite(targets, -1)[:, None] + broken
    )


def _fit(target: jax.Array, support: jax.Array, filled: jax.Array) -> jax.Array:
    """`restricted.fit` of any scale."""
    support = jnp.where(filled[:, None], support, 0)
    target, support, factor = frames.in_units(target, support)
    return factor * restricted.fit(target, support, filled)


def _choose(
    target: jax.Array,
    directions: jax.Array,
    eligible: jax.Array,
    *,
    sparsity: int,
    tolerance: float,
) -> jax.Array:
    """Indices `[K]` int32 of the chosen atoms; `M` in slots that are not filled."""
    directions, target = jax.lax.stop_gradient(directions), target / frames.unit_of(target)
    num_atoms, num_features = directions.shape
    enough = tolerance * jnp.sqrt(jnp.sum(target**2))
    # Nearer than this to the span of the others an atom adds noise: the normal equations that
    # give the coefficients see the square of it.
    independent = jnp.sqrt(jnp.finfo(target.dtype).eps)

    def add(slot, state):
        indices, basis, residual, going = state
        angles = jnp.abs(jnp.matmul(directions, residual, precision=linalg.HIGHEST))
        angles = jnp.where(eligible, angles, -jnp.inf).at[indices].set(-jnp.inf, mode="drop")
        best = jnp.argmax(angles).astype(jnp.int32)

        fresh = directions[best]
        for _ in range(2):  # once leaves a part along the basis where little is left in all
            along = jnp.matmul(basis, fresh, precision=linalg.HIGHEST)
            fresh = fresh - jnp.matmul(along, basis, precision=linalg.HIGHEST)
        length = jnp.sqrt(jnp.sum(fresh**2))

        going &= (jnp.sqrt(jnp.sum(residual**2)) > enough) & (angles[best] > 0)
        going &= length > independent
        fresh = jnp.where(going, fresh / jnp.where(length > 0, length, 1), 0)
        return (
            indices.at[slot].set(jnp.where(going, best, num_atoms)),
            basis.at[slot].set(fresh),
            residual - jnp.sum(fresh * residual) * fresh,
            going,
        )

    start = (
        jnp.full(sparsity, num_atoms, jnp.int32),
        jnp.zeros((sparsity, num_features), target.dtype),
        target,
        jnp.array(True),
    )
    start = loops.begin(start, directions, eligible, tolerance)
    return jax.lax.fori_loop(0, sparsity, add, start)[0]
