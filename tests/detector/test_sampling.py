import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import fit, greedy_k_center, uniform
from sgfr_jax.commands.flags import config
from sgfr_jax.detector import choices, loading, sampling
from tests.detector.pretended import (
    SETTINGS,
    embedder,
    expected_patches,
    made_images,
    pretend,
    split_of,
)


@pytest.fixture
def images(rng):
    return made_images(rng)


@contextlib.contextmanager
def silent():
    yield lambda done: None


@pytest.mark.parametrize("name,whole", [("k_center", greedy_k_center), ("random", uniform)])
def test_fitting_in_steps_is_fit(images, name, whole, monkeypatch):
    monkeypatch.setattr(sampling, "SAMPLER_STRIDE", 4)
    settings = dataclasses.replace(SETTINGS, sampler=name)
    bank, notes, _ = sampling.fit(
        embedder(settings), loading.views(split_of(images)), silent, silent
    )
    points = jnp.float32(expected_patches(images))
    expected = fit(jax.random.key(0), points, jnp.ones(40), sample=whole, num_atoms=6)
    np.testing.assert_array_equal(bank.indices, expected.indices)
    np.testing.assert_array_equal(bank.atoms, expected.atoms)
    assert notes == []


@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 10])
def test_streaming_does_not_depend_on_the_size_of_a_batch(images, monkeypatch, batch_size):
    monkeypatch.setattr(sampling, "STREAM_PATCHES", 1)  # blocks of 5 images: 18 patches and more
    settings, train = dataclasses.replace(SETTINGS, sampler=choices.STREAMING), split_of(images)
    found = sampling.fit(embedder(settings, batch_size), loading.views(train), silent, silent)
    expected = sampling.fit(embedder(settings, 5), loading.views(train), silent, silent)
    np.testing.assert_array_equal(found[0].indices, expected[0].indices)
    assert found[1] == expected[1]


@pytest.mark.parametrize("cached", [False, True])
def test_streaming_covers_every_patch_as_it_says(images, monkeypatch, tmp_path, cached):
    monkeypatch.setattr(sampling, "STREAM_PATCHES", 1)
    monkeypatch.setattr(sampling, "CACHED_IMAGES", 4)
    settings, calls = dataclasses.replace(SETTINGS, sampler=choices.STREAMING), []

    def counting(backbone, batch):
        calls.append(len(batch))
        return pretend(backbone, batch)

    made = embedder(settings, 2, tmp_path if cached else None, counting)
    bank, notes, _ = sampling.fit(made, loading.views(split_of(images)), silent, silent)
    assert len(calls) == 5  # a second pass embeds nothing
    points = expected_patches(images)
    np.testing.assert_array_equal(bank.atoms, points[bank.indices])
    distances = np.linalg.norm(points[:, None] - np.asarray(bank.atoms)[None], axis=-1)
    radius = float(notes[0].split("within ")[1].split()[0])
    assert distances.min(axis=1).max() <= radius * 1.001
    if cached:
        assert "measured" in notes[0]
        np.testing.assert_allclose(distances.min(axis=1).max(), radius, rtol=1e-3)
    else:
        assert "a bound" in notes[0]


@pytest.mark.parametrize("learner", ["pca", "k_subspaces"])
def test_few_outliers_do_not_turn_the_bases(rng, learner):
    """K-center takes them first of all, and its bank is largely of them."""
    true, foreign = np.split(np.linalg.qr(rng.normal(size=(24, 4)))[0].T, [3])
    patches = rng.normal(size=(2000, 3)) @ true + 0.02 * rng.normal(size=(2000, 24))
    patches[:40] = rng.choice([-1, 1], size=(40, 1)) * foreign + 0.1 * rng.normal(size=(40, 24))
    patches /= np.linalg.norm(patches, axis=1, keepdims=True)

    one = {"num_subspaces": 1} if learner in choices.CLUSTERING_LEARNERS else {}

    def found(**fields):
        settings = config.resolve(
            config.Config(layers=("fast",), subspaces=learner, subspace_rank=3, **one | fields)
        )
        bank = sampling.make_bank(
            settings, jax.random.key(0), jnp.float32(patches), np.ones(2000, np.float32),
            settings.num_atoms(2000), lambda done: None,
        )  # fmt: skip
        bases = np.asarray(bank.atoms)[1:]  # after the mean
        return np.sum((bases @ true.T) ** 2) / 3  # the mean squared cosine of principal angles

    assert found() > 0.99
    assert found(sampler="k_center") < 0.9
