"""Codes over the best of several subspaces."""

import jax
import jax.numpy as jnp

from sgfr_jax import checks, frames, linalg, types


def project(targets: jax.Array, bank: types.Bank, *, rank: int) -> types.Code:
    """Codes every target by its projection on the subspace nearest to it.

    `mu + B^T B (z - mu)` with mean `mu` and orthonormal rows `B` of the subspace that leaves the
    smallest `|z - mu|^2 - |B (z - mu)|^2` (K-subspaces: Bradley and Mangasarian 2000). With one
    subspace this is the residual of principal components; with rank 0, of the nearest mean.

    Args:
      targets: `[N, D]`.
      bank: `types.subspace_bank` of `S` subspaces: `[S (R + 1), D]`, of each its mean and then its
        basis.
      rank: `R` of that bank.

    Returns:
      A `Code` with indices and coefficients `[N, R + 1]`: 1 for the mean and `B (z - mu)` for the
      basis; 0 for padding. If all subspaces are padding all coefficients are 0.

    Raises:
      ValueError: if the number of features differs, numbers are not floating, or the bank does not
        consist of subspaces of this rank.
    """
    targets, atoms = checks.targets_and_atoms(targets, bank)
    num_rows, num_features = atoms.shape
    size = rank + 1
    if rank < 0 or num_rows % size:
        raise ValueError(
            f"rank={rank}, but the bank's {num_rows} atoms are not groups of a mean and {rank}"
            " basis rows; give the bank and the rank of one `types.subspace_bank`"
        )
    used = (bank.weights > 0).reshape(-1, size)
    subspaces = checks.real_atoms(atoms, bank).reshape(-1, size, num_features)

    best = _nearest_subspace(targets, subspaces, used)
    chosen = subspaces[best]
    centred = targets - chosen[:, 0]
    along = jnp.einsum("nrd,nd->nr", chosen[:, 1:], centred, precision=linalg.HIGHEST)
    coefficients = jnp.concatenate([jnp.ones_like(along, shape=(len(best), 1)), along], axis=1)
    indices = best[:, None] * size + jnp.arange(size, dtype=jnp.int32)[None]
    return types.Code(indices, jnp.where(used[best], coefficients, 0))


def _nearest_subspace(targets: jax.Array, subspaces: jax.Array, used: jax.Array) -> jax.Array:
    """Which of `subspaces [S, R + 1, D]` leaves least of each target, `[N]` int32.

    Expanded, so that the work is one matrix product; accurate as `linalg.squared_distances`.
    """
    # From the middle of the means, which affine subspaces of features that share one lie around.
    origin, _ = frames.frame(subspaces[:, 0], jnp.any(used, axis=-1))
    means, targets = subspaces[:, 0] - origin[None], targets - origin[None]
    bases = subspaces[:, 1:]
    # Each target in a unit of its own that is no less than that of the means; bases have none.
    unit, own = frames.unit_of(means), frames.unit_of(targets, -1)
    own = jnp.where(jnp.any(means != 0), jnp.maximum(own, unit), own)
    targets, means, share = targets / own, means / unit, unit / own
    rows = jnp.concatenate([means[:, None], bases], axis=1)
    products = jnp.einsum("nd,srd->nsr", targets, rows, precision=linalg.HIGHEST)
    offsets = jnp.einsum("srd,sd->sr", bases, means, precision=linalg.HIGHEST)
    # Without |z|^2, which all subspaces share.
    left = jnp.sum(means**2, axis=-1)[None] * share**2 - 2 * products[..., 0] * share
    inside = products[..., 1:] - offsets[None] * share[..., None]
    left = left - jnp.sum(inside**2, axis=-1)
    return jnp.argmin(jnp.where(jnp.any(used, axis=-1)[None], left, jnp.inf), 1).astype(jnp.int32)
