import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import choices, stages
from sgfr_jax import fit, greedy_k_center, uniform
from sgfr_jax.datasets import DatasetError


def embed(images):
    """Stands for a network: one patch per pixel, of its three colours."""
    features = jnp.asarray(images, jnp.float32).reshape(len(images), -1, 3)
    features = jnp.where(features == 255, jnp.nan, features)
    return features, jnp.all(jnp.isfinite(features), axis=(1, 2))


def test_patches_come_image_after_image_whatever_the_batch(rng):
    images = [rng.integers(0, 200, (2, 2, 3)).astype(np.uint8) for _ in range(5)]
    expected = np.stack(images).reshape(-1, 3)
    for batch_size in (1, 2, 5, 8):
        done = []
        found = stages.embed_all(embed, images, list("abcde"), batch_size, done.append)
        np.testing.assert_array_equal(found, expected)
        assert sum(done) == 5


def test_features_that_are_not_finite_name_their_image(rng):
    images = [np.full((2, 2, 3), 7, np.uint8) for _ in range(4)]
    images[2][1, 1, 1] = 255
    with pytest.raises(DatasetError, match=r"^c: its features are NaN"):
        stages.embed_all(embed, images, list("abcd"), 3, lambda n: None)


@pytest.mark.parametrize("name,whole", [("k_center", greedy_k_center), ("random", uniform)])
def test_sampling_with_progress_is_fit(rng, name, whole, monkeypatch):
    monkeypatch.setattr(stages, "SAMPLER_STRIDE", 7)
    points, done = jnp.float32(rng.normal(size=(60, 4))), []
    key = jax.random.key(3)
    bank = stages.sample(choices.SAMPLERS[name], key, points, 24, done.append)
    expected = fit(key, points, jnp.ones(60), sample=whole, num_atoms=24)
    np.testing.assert_array_equal(bank.indices, expected.indices)
    np.testing.assert_array_equal(bank.atoms, expected.atoms)
    assert sum(done) == 24
