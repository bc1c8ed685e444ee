"""Codes over the nearest atoms."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sgfr_jax import checks, linalg, types

Search = Callable[..., jax.Array]
Solve = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def local_code(
    targets: jax.Array,
    bank: types.Bank,
    *,
    num_neighbors: int,
    solve: Solve,
    search: Search = linalg.nearest,
) -> types.Code:
    """Codes every target over its `K` nearest atoms, which span its own local subspace.

    With an affine penalty this is the code of locally linear embedding (Roweis and Saul 2000), and
    of locality-constrained linear coding in its fast form (Wang et al. 2010).

    Args:
      targets: `[N, D]`.
      bank: `M` atoms `[M, D]`.
      num_neighbors: `K`, at most `M`.
      solve: a penalty solver with its hyperparameters bound, such as
        `functools.partial(affine_ridge, ridge=1e-3)`.
      search: `search(targets, atoms, weights [M], num_neighbors=K) -> [N, K]` int32, nearest first.

    Returns:
      A `Code` with indices and coefficients `[N, K]`; padding atoms get coefficient 0.

    Raises:
      ValueError: if the number of features differs, numbers are not floating, or `num_neighbors`
        is not in `1..M`.
    """
    targets, atoms = checks.targets_and_atoms(targets, bank)
    checks.number_of_atoms("num_neighbors", num_neighbors, bank)
    indices = search(targets, atoms, bank.weights, num_neighbors=num_neighbors)
    coefficients = jax.vmap(solve)(targets, atoms[indices], bank.weights[indices] > 0)
    return types.Code(indices, coefficients)


def nearest(target: jax.Array, support: jax.Array, valid: jax.Array) -> jax.Array:
    """All weight on the first atom of the support, the nearest, `c = e_1`.

    The residual is then the distance to it, `min_m |z - a_m|`: PatchCore (Roth et al. 2022).

    Args:
      target: `[D]`.
      support: `[K, D]`, nearest first.
      valid: `[K]` bool; False for padding.

    Returns:
      `[K]`.
    """
    checks.support(target, support, valid)
    return jnp.zeros(valid.shape, target.dtype).at[0].set(valid[0].astype(target.dtype))
