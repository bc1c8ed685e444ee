"""A network that is none, and images for it: quick, and known by heart."""

import jax.numpy as jnp
import numpy as np

from sgfr_jax.commands.flags import config
from sgfr_jax.datasets import Example, Loaded
from sgfr_jax.detector import embedding, loading

# Patches of 40 + 112 + 192 features on a grid of 2 x 2.
SETTINGS = config.resolve(config.Config(layers=("fast",), image_size=32, grid=2, bank_size=6))
FEATURES = 344


def pretend(backbone, images):
    """Stands for a network: features that follow from the first pixels of an image."""
    features = jnp.asarray(images, jnp.float32).reshape(len(images), -1)[:, : 4 * FEATURES]
    features = jnp.where(features == 255, jnp.nan, features).reshape(len(images), 4, FEATURES)
    return features, jnp.all(jnp.isfinite(features), axis=(1, 2))


def split_of(images):
    examples = tuple(
        Example(f"image {i}", image, 0, "good", None) for i, image in enumerate(images)
    )
    kept = tuple(Loaded(image, None) for image in images)
    return loading.Split(examples, tuple(loading.content_hash(i) for i in images), kept)


def embedder(settings=SETTINGS, batch_size=4, cache_dir=None, compiled=pretend):
    return embedding.Embedder(
        settings, lambda: None, "digest", compiled, batch_size, cache_dir, 10**9
    )


def made_images(rng):
    return [rng.integers(0, 200, (32, 32, 3)).astype(np.uint8) for _ in range(10)]


def expected_patches(images):
    return np.stack(images).reshape(10, -1)[:, : 4 * FEATURES].reshape(-1, FEATURES)
