"""The compiled stages of a run: embed, sample, score. Devices and batches are known here only."""

import math
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments import choices
from experiments.config import Config
from sgfr_jax import backbones, maps, patches, pipeline, types
from sgfr_jax.datasets import DatasetError

# Choices between two reports of a sampler's progress.
SAMPLER_STRIDE = 512
# Patches coded at a time: what keeps a CPU's caches, or an accelerator, busy.
CODING_CHUNK = {"cpu": 256}
ACCELERATOR_CHUNK = 8192

Report = Callable[[int], None]


def make_embedder(backbone: backbones.Backbone, config: Config) -> Callable:
    """A compiled `images [B, S, S, 3] -> (patches [B, P, D], finite [B])`."""
    grid = (config.grid, config.grid)

    @jax.jit
    def embed(state, images):
        features = patches.merge_levels(backbone.embed(state, images), grid)
        if config.unit_norm:
            features = patches.unit_norm(features)
        features = features.reshape(features.shape[0], -1, features.shape[-1])
        return features, jnp.all(jnp.isfinite(features), axis=(1, 2))

    return lambda images: embed(backbone.state, images)


def make_scorer(config: Config, solver: str) -> Callable:
    """A compiled `(bank, patches [B, P, D]) -> (maps [B, S, S], image scores [B])`."""
    code = choices.make_coder(solver, num_neighbors=config.num_neighbors, ridge=config.ridge)
    chunk_size = CODING_CHUNK.get(jax.default_backend(), ACCELERATOR_CHUNK)
    size = (config.image_size, config.image_size)

    @jax.jit
    def score(bank: types.Bank, features: jax.Array):
        batch = features.shape[0]
        flat = features.reshape(-1, features.shape[-1])
        scores = pipeline.score(bank, flat, code=code, chunk_size=chunk_size)
        scores = scores.reshape(batch, config.grid, config.grid)
        found = maps.anomaly_map(scores, size, sigma=config.sigma)
        return found, maps.image_score(found)

    return score


def embed_in_batches(
    embed: Callable, images: Sequence[np.ndarray], names: Sequence[str], batch_size: int
) -> Iterator[tuple[int, jax.Array]]:
    """Patches of a batch at a time, with the number of images that they belong to.

    The last batch is padded, so that all have one shape and compile once; only the first `count`
    entries of what is yielded mean anything.

    Args:
      embed: from `make_embedder`.
      images: each `[S, S, 3]` uint8.
      names: of the images, for messages.
      batch_size: `B`.

    Yields:
      `count` and patches `[B, P, D]`.

    Raises:
      DatasetError: names the first image with features that are not finite.
    """
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        padded = np.zeros((batch_size, *batch[0].shape), np.uint8)
        padded[: len(batch)] = batch
        features, finite = embed(padded)
        finite = np.asarray(finite)[: len(batch)]
        if not finite.all():
            bad = names[start + int(np.argmin(finite))]
            raise DatasetError(
                f"{bad}: its features are NaN or infinite; look at the image, and at --weights"
            )
        yield len(batch), features


def embed_all(
    embed: Callable, images: Sequence[np.ndarray], names: Sequence[str], batch_size: int,
    report: Report,
) -> jax.Array:  # fmt: skip
    """The patches of all images, `[N, D]`, image after image."""
    stored, done = None, 0
    for count, features in embed_in_batches(embed, images, names, batch_size):
        if stored is None:
            stored = np.empty((len(images), *features.shape[1:]), np.float32)
        stored[done : done + count] = features[:count]
        done += count
        report(count)
    return jnp.asarray(stored.reshape(-1, stored.shape[-1]))


def sample(
    sampler: choices.Sampler, key: jax.Array, points: jax.Array, num_atoms: int, report: Report
) -> types.Bank:
    """The bank that a sampler chooses, as `pipeline.fit` would, with progress."""
    weights = jnp.ones(points.shape[0], jnp.float32)
    advance = jax.jit(sampler.advance, donate_argnums=0)
    selection = jax.jit(sampler.start, static_argnums=3)(key, points, weights, num_atoms)
    done = 0
    for step in range(1, math.ceil(num_atoms / SAMPLER_STRIDE) + 1):
        upto = min(step * SAMPLER_STRIDE, num_atoms)
        selection = advance(selection, points, upto)
        count = int(selection.count)
        report(count - done)
        done = count
    return pipeline.make_bank(points, selection)
