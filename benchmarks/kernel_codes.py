"""Kernel codes, a non-linear variant that lives here until it wins.

Affine ridge on the nearest atoms, in the feature space of a Gaussian kernel. With
`g(x, y) = 1 - exp(-|x - y|^2 / (2 s^2))` the Gram matrix of the differences `phi(z) - phi(a_k)` is
`G_ij = g(z, a_i) + g(z, a_j) - g(a_i, a_j)`; the rest is `solvers.affine_ridge`, to which the limit
of a wide kernel leads back (Scholkopf et al. 1998 for the kernel, Roweis and Saul 2000 for the
weights).
"""

import jax
import jax.numpy as jnp

from sgfr_jax import linalg, types


def kernel_scores(
    targets: jax.Array, bank: types.Bank, *, num_neighbors: int, ridge: float, bandwidth: float
) -> jax.Array:
    """The distance in feature space of every target to the affine hull of its `K` nearest atoms.

    Args:
      targets: `[N, D]`.
      bank: `M` atoms, none of them padding.
      num_neighbors: `K`.
      ridge: as of `solvers.affine_ridge`.
      bandwidth: `s`, in the unit of the features; may be traced.

    Returns:
      `[N]`, times `s` so that it tends to the linear code's residual as `s` grows.
    """
    indices = linalg.nearest(targets, bank.atoms, bank.weights, num_neighbors=num_neighbors)

    def gap(squared):
        return -jnp.expm1(-squared / (2 * bandwidth**2))

    def of_one(target, support):
        between = support[:, None] - support[None]
        near = gap(jnp.sum((target[None] - support) ** 2, axis=-1))
        gram = near[:, None] + near[None] - gap(jnp.sum(between**2, axis=-1))
        scale = jnp.maximum(jnp.trace(gram) / num_neighbors, jnp.finfo(gram.dtype).tiny)
        penalised = gram + ridge * scale * jnp.eye(num_neighbors, dtype=gram.dtype)
        weights = linalg.solve_positive_definite(penalised, jnp.ones_like(near))
        weights = weights / jnp.sum(weights)
        squared = jnp.matmul(weights, jnp.matmul(gram, weights, precision=linalg.HIGHEST))
        return jnp.sqrt(jnp.maximum(squared, 0)) * bandwidth

    return jax.vmap(of_one)(targets, bank.atoms[indices])
