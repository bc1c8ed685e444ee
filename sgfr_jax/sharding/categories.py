"""Categories that fit on a device together, fitted and scored together."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from sgfr_jax import pipeline, types
from sgfr_jax.self_expression import MakeCode


def stack_categories(patches: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The patches of several categories as one array, padded with points of weight 0.

    Args:
      patches: of each category `[N_c, D]`.

    Returns:
      `[C, N, D]` and weights `[C, N]`, with `N = max N_c`.

    Raises:
      ValueError: if there is no category, or numbers of features differ.
    """
    shapes = [part.shape for part in patches]
    if not shapes or any(len(s) != 2 for s in shapes) or len({s[1] for s in shapes}) > 1:
        raise ValueError(f"patches must be [N_c, D] of one D, got {shapes}")
    most = max(shape[0] for shape in shapes)
    stacked = jnp.stack([jnp.pad(p, ((0, most - len(p)), (0, 0))) for p in patches])
    counts = jnp.asarray([shape[0] for shape in shapes])
    return stacked, (jnp.arange(most)[None] < counts[:, None]).astype(stacked.dtype)


def fit_categories(
    key: jax.Array,
    patches: jax.Array,
    weights: jax.Array,
    *,
    sample: pipeline.Sample,
    num_atoms: int,
) -> types.Bank:
    """`pipeline.fit` of every category, as a bank whose arrays have a leading `C`.

    Args:
      key: consumed; the same for every category.
      patches: `[C, N, D]`, and
      weights: `[C, N]`, from `stack_categories`.
      sample: as of `pipeline.fit`.
      num_atoms: slots of each bank; of a category of fewer patches the rest are padding.
    """

    def fit(patches: jax.Array, weights: jax.Array) -> types.Bank:
        return pipeline.fit(key, patches, weights, sample=sample, num_atoms=num_atoms)

    return jax.vmap(fit)(patches, weights)


def score_categories(
    banks: types.Bank, patches: jax.Array, *, code: MakeCode, chunk_size: int | None = 256
) -> jax.Array:
    """`pipeline.score` of every category.

    Args:
      banks: from `fit_categories`.
      patches: `[C, N, D]`.
      code: as of `pipeline.score`.
      chunk_size: as of `pipeline.score`.

    Returns:
      `[C, N]`; padding has scores too, which mean nothing.
    """

    def score(bank: types.Bank, patches: jax.Array) -> jax.Array:
        return pipeline.score(bank, patches, code=code, chunk_size=chunk_size)

    return jax.vmap(score)(banks, patches)
