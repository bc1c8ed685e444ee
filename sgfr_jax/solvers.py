"""Self-expressive codes: a target as a linear combination of few atoms of the bank.

A code is a support (which atoms) and a penalty on its coefficients. A penalty solver is
`solve(target [D], support [K, D], valid [K]) -> coefficients [K]`: it sees one target and its
support, `local_code` finds the supports and maps over the targets.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sgfr_jax import linalg, types

Solve = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def local_code(
    targets: jax.Array, bank: types.Bank, *, num_neighbors: int, solve: Solve
) -> types.Code:
    """Codes every target over its `K` nearest atoms, which span its own local subspace.

    Args:
      targets: `[N, D]`.
      bank: `M` atoms `[M, D]`.
      num_neighbors: `K`, at most `M`.
      solve: a penalty solver with its hyperparameters bound, such as
        `functools.partial(affine_ridge, ridge=1e-3)`.

    Returns:
      A `Code` with indices and coefficients `[N, K]`; padding atoms get coefficient 0.

    Raises:
      ValueError: if the number of features differs or `num_neighbors` is not in `1..M`.
    """
    num_atoms = bank.atoms.shape[0]
    targets = jnp.asarray(targets)
    if targets.ndim != 2 or targets.shape[1:] != bank.atoms.shape[1:]:
        raise ValueError(
            f"targets must be [N, D] with the atoms' D, got targets {targets.shape}"
            f" and atoms {bank.atoms.shape}"
        )
    if not 1 <= num_neighbors <= num_atoms:
        raise ValueError(
            f"num_neighbors={num_neighbors}, but the bank has {num_atoms} atoms;"
            f" use 1 to {num_atoms}, or a larger bank"
        )
    targets, atoms = linalg.at_least_float32(targets), linalg.at_least_float32(bank.atoms)
    indices = linalg.nearest(targets, atoms, bank.weights, num_neighbors=num_neighbors)
    coefficients = jax.vmap(solve)(targets, atoms[indices], bank.weights[indices] > 0)
    return types.Code(indices, coefficients)


def affine_ridge(
    target: jax.Array, support: jax.Array, valid: jax.Array, *, ridge: float
) -> jax.Array:
    """Coefficients that sum to one: the target against the affine hull of its support.

    `min_c |z - A^T c|^2 + ridge tr(G)/K |c|^2` subject to `sum c = 1`. With the differences
    `Z_k = z - a_k` and `G = Z Z^T`, the solution is `w / sum w` where
    `(G + ridge tr(G)/K I) w = 1`: the weights of locally linear embedding (Roweis and Saul 2000).
    Formed from differences, `G` is accurate however close the atoms are. With `K = 1` this is the
    nearest neighbour.

    Args:
      target: `[D]`.
      support: `[K, D]`.
      valid: `[K]` bool; False for padding.
      ridge: the penalty relative to the mean squared difference. Positive, and not below about
        1e-6: with more atoms than features float32 needs that much to factorise the Gram matrix.

    Returns:
      `[K]`; 0 where not valid. A target that equals its whole support gets equal coefficients.
    """
    _check_penalty(ridge)
    differences = jnp.where(valid[:, None], target[None] - support, 0)
    gram = jnp.matmul(differences, differences.T, precision=linalg.HIGHEST)
    weights = linalg.solve_positive_definite(
        _penalised(gram, valid, ridge), valid.astype(gram.dtype)
    )
    total = jnp.sum(weights)
    return weights / jnp.where(total > 0, total, 1)


def ridge(target: jax.Array, support: jax.Array, valid: jax.Array, *, ridge: float) -> jax.Array:
    """Free coefficients: the target against the linear span of its support.

    `min_c |z - A^T c|^2 + ridge tr(A A^T)/K |c|^2`, solved from its normal equations.

    Args:
      target: `[D]`.
      support: `[K, D]`.
      valid: `[K]` bool; False for padding.
      ridge: the penalty relative to the mean squared norm of the support; as of `affine_ridge`.

    Returns:
      `[K]`; 0 where not valid.
    """
    _check_penalty(ridge)
    support = jnp.where(valid[:, None], support, 0)
    gram = jnp.matmul(support, support.T, precision=linalg.HIGHEST)
    correlation = jnp.matmul(support, target, precision=linalg.HIGHEST)
    return linalg.solve_positive_definite(_penalised(gram, valid, ridge), correlation)


def nearest(target: jax.Array, support: jax.Array, valid: jax.Array) -> jax.Array:
    """All weight on the first atom of the support, the nearest: PatchCore's residual.

    Args:
      target: `[D]`.
      support: `[K, D]`, nearest first.
      valid: `[K]` bool; False for padding.

    Returns:
      `[K]`.
    """
    del support
    return jnp.zeros(valid.shape, target.dtype).at[0].set(valid[0])


def _penalised(gram: jax.Array, valid: jax.Array, ridge: float) -> jax.Array:
    """The Gram matrix with its diagonal raised, and padding decoupled from the rest."""
    scale = jnp.trace(gram) / jnp.maximum(jnp.sum(valid), 1)
    # A support that coincides with the target has no scale of its own; any will do.
    penalty = ridge * jnp.where(scale > jnp.finfo(gram.dtype).tiny / ridge, scale, 1)
    return gram + jnp.diag(jnp.where(valid, penalty, 1))


def _check_penalty(ridge: float) -> None:
    if not isinstance(ridge, jax.core.Tracer) and not ridge > 0:
        raise ValueError(f"ridge={ridge}; it must be positive, such as 1e-3")
