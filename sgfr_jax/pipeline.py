"""Fitting and scoring: the one module that composes the others."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sgfr_jax import reconstruction, types

Sample = Callable[[jax.Array, jax.Array, jax.Array, int], types.Selection]
MakeCode = Callable[[jax.Array, types.Bank], types.Code]


def fit(
    key: jax.Array, patches: jax.Array, weights: jax.Array, *, sample: Sample, num_atoms: int
) -> types.Bank:
    """The bank of atoms that stands for all nominal patches.

    Args:
      key: consumed by the sampler.
      patches: `[N, D]` nominal patches.
      weights: `[N]`; 0 for padding.
      sample: a sampler, such as `samplers.greedy_k_center`.
      num_atoms: `M`, 1 to `N`.

    Returns:
      A `Bank` of `M` atoms.

    Raises:
      ValueError: if shapes do not fit or `num_atoms` is not in `1..N`.
    """
    return types.make_bank(patches, sample(key, patches, weights, num_atoms))


def score(
    bank: types.Bank, patches: jax.Array, *, code: MakeCode, chunk_size: int | None = 256
) -> jax.Array:
    """How badly the bank mimics each patch: the norm of its residual.

    Args:
      bank: from `fit`.
      patches: `[N, D]`.
      code: a coder with its hyperparameters bound, such as `functools.partial(
        solvers.local_code, num_neighbors=10, solve=...)`.
      chunk_size: how many patches to code at a time. On a CPU a few hundred keep the distances to
        a bank of thousands in cache; None codes all at once, for accelerators and small banks.

    Returns:
      `[N]`.

    Raises:
      ValueError: if `chunk_size` is not positive, or what `code` raises.
    """
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size}; it must be positive, or None")

    def residual_norm(targets: jax.Array) -> jax.Array:
        return reconstruction.residual_norm(targets, bank.atoms, code(targets, bank))

    if chunk_size is None or patches.shape[0] <= chunk_size:
        return residual_norm(patches)
    # `lax.map` maps over single rows of a batch; here the rows of a chunk stay together.
    num_chunks, rest = divmod(patches.shape[0], chunk_size)
    whole = patches[: num_chunks * chunk_size].reshape(num_chunks, chunk_size, -1)
    scores = jax.lax.map(residual_norm, whole).reshape(-1)
    return jnp.concatenate([scores, residual_norm(patches[-rest:])]) if rest else scores
