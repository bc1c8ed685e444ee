"""Fitting and scoring: the one module that composes the others."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sgfr_jax import reconstruction, types
from sgfr_jax.self_expression import MakeCode

Sample = Callable[[jax.Array, jax.Array, jax.Array, int], types.Selection]


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
    return score_and_owner(bank, patches, code=code, chunk_size=chunk_size)[0]


def score_and_owner(
    bank: types.Bank, patches: jax.Array, *, code: MakeCode, chunk_size: int | None = 256
) -> tuple[jax.Array, jax.Array]:
    """As `score`, and which atom each patch belongs to; arguments and errors are the same.

    Returns:
      Scores `[N]`, and `[N]` int32: the first atom of the patch's support, which for a local code
      is the nearest, or the one of largest coefficient where the code draws on all atoms.
    """
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size}; it must be positive, or None")
    bank = jax.tree.map(jnp.asarray, bank)  # NumPy's, as of a file, cannot be indexed by tracers
    bank = types.clear_padding(bank)

    def of_chunk(targets: jax.Array):
        found = code(targets, bank)
        scores = reconstruction.residual_norm(targets, bank.atoms, found)
        if found.indices is None:
            return scores, jnp.argmax(jnp.abs(found.coefficients), axis=-1).astype(jnp.int32)
        return scores, found.indices[:, 0]

    if chunk_size is None or patches.shape[0] <= chunk_size:
        return of_chunk(patches)
    # `lax.map` maps over single rows of a batch; here the rows of a chunk stay together.
    num_chunks, rest = divmod(patches.shape[0], chunk_size)
    whole = patches[: num_chunks * chunk_size].reshape(num_chunks, chunk_size, -1)
    found = jax.tree.map(lambda x: x.reshape(-1), jax.lax.map(of_chunk, whole))
    if not rest:
        return found
    return jax.tree.map(lambda *x: jnp.concatenate(x), found, of_chunk(patches[-rest:]))


def score_held_out(
    bank: types.Bank,
    sources: jax.Array,
    patches: jax.Array,
    own: jax.Array,
    *,
    code: MakeCode,
    chunk_size: int | None = 256,
) -> tuple[jax.Array, jax.Array]:
    """Scores nominal images as if the bank had not seen them: without the atoms they gave it.

    A nominal image's residual against a bank that holds its own patches says little about the next
    image. Leaving out its atoms alone costs no second fit and no image.

    Args:
      bank: `M` atoms.
      sources: `[M]` int32: the image that each atom comes from; -1 for one that is of no image.
      patches: `[B, P, D]`, image by image.
      own: `[B]` int32: which image of `sources` each one is, or was made from; a negative number
        for one that gave no atom, which leaves none out.
      code: as of `score`.
      chunk_size: as of `score`.

    Returns:
      Scores and owners as of `score_and_owner`, `[B, P]` each. An image that gave all atoms is left
      with none: its code is empty, and its residual the patch itself.

    Raises:
      ValueError: if there is not one source for every atom, or as `score`.
    """
    bank, sources = jax.tree.map(jnp.asarray, (bank, sources))
    if sources.shape != bank.weights.shape:
        raise ValueError(
            f"sources must be [M], the image of every atom, got {sources.shape} for atoms"
            f" {bank.atoms.shape}"
        )

    def of_image(image):
        targets, number = image
        gave = (sources == number) & (number >= 0)
        others = bank._replace(weights=jnp.where(gave, 0, bank.weights))
        return score_and_owner(others, targets, code=code, chunk_size=chunk_size)

    return jax.lax.map(of_image, (patches, own))
