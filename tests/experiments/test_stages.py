import contextlib
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import choices, config, loading, stages, streams
from sgfr_jax import fit, greedy_k_center, uniform
from sgfr_jax.datasets import DatasetError, Example, Loaded

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
    return stages.Embedder(settings, lambda: None, "digest", compiled, batch_size, cache_dir, 10**9)


@pytest.fixture
def images(rng):
    return [rng.integers(0, 200, (32, 32, 3)).astype(np.uint8) for _ in range(10)]


def expected_patches(images):
    return np.stack(images).reshape(10, -1)[:, : 4 * FEATURES].reshape(-1, FEATURES)


@contextlib.contextmanager
def silent():
    yield lambda done: None


@pytest.mark.parametrize("batch_size", [1, 3, 10, 16])
def test_patches_come_image_after_image_whatever_the_batch(images, batch_size):
    batches = list(embedder(batch_size=batch_size).batches(split_of(images)))
    assert all(len(batch) == min(batch_size, 10) for batch in batches[:-1])
    found = np.concatenate(batches).reshape(-1, FEATURES)
    np.testing.assert_array_equal(found, expected_patches(images))


def test_features_that_are_not_finite_name_their_image(images):
    images[7][0, 1, 1] = 255
    with pytest.raises(DatasetError, match=r"^image 7: its features are NaN"):
        list(embedder(batch_size=3).batches(split_of(images)))


@pytest.mark.parametrize("unit_norm", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_what_cannot_be_scored_is_seen_whatever_the_norm(unit_norm, bad):
    class Network(NamedTuple):
        state: float

        def embed(self, state, images):
            level = jnp.ones((len(images), 4, 4, 3)).at[1, 2, 2, 0].set(state)
            return {"block4": level}

    compiled = stages.make_embedding(dataclasses.replace(SETTINGS, unit_norm=unit_norm))
    features, finite = compiled(Network(bad), np.zeros((3, 8, 8, 3), np.uint8))
    np.testing.assert_array_equal(finite, [True, False, True])
    assert features.shape == (3, 4, 3)
    assert compiled(Network(1.0), np.zeros((3, 8, 8, 3), np.uint8))[1].all()


def test_nothing_is_embedded_twice(images, tmp_path):
    split, calls = split_of(images), []

    def counting(backbone, batch):
        calls.append(len(batch))
        return pretend(backbone, batch)

    made = embedder(cache_dir=tmp_path, compiled=counting)
    assert not made.known(split.hashes)
    first = np.concatenate(list(made.batches(split)))
    assert made.known(split.hashes) and len(calls) == 3
    second = np.concatenate(list(made.batches(split)))
    np.testing.assert_array_equal(first, second)
    assert len(calls) == 3
    # A damaged entry is made again.
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    np.testing.assert_array_equal(np.concatenate(list(made.batches(split))), first)
    assert len(calls) == 6 and made.known(split.hashes)


def test_an_entry_is_named_by_the_code_that_makes_it(images, monkeypatch):
    made, hashes = embedder(), split_of(images).hashes
    before = made.entry(hashes)
    monkeypatch.setattr(stages.cache, "source_digest", lambda *parts: "of another version")
    assert made.entry(hashes) != before


@pytest.mark.parametrize("maker", ["make_embedding", "make_stream_embedding", "_merged"])
def test_whatever_makes_embeddings_counts(images, monkeypatch, maker):
    made, hashes = embedder(), split_of(images).hashes
    before = made.entry(hashes)
    monkeypatch.setattr(stages, maker, expected_patches)
    assert made.entry(hashes) != before


def test_the_rule_of_streams_counts():
    # Their grids are in no other part of the name.
    assert streams in stages._EMBEDDING


def test_an_entry_is_named_by_what_it_depends_on(images):
    made, hashes = embedder(), split_of(images).hashes
    others = [
        made._replace(digest="other").entry(hashes),
        made.entry(hashes[::-1]),
        *(
            made._replace(config=dataclasses.replace(SETTINGS, **change)).entry(hashes)
            for change in (
                {"layers": ("block4",)}, {"image_size": 64}, {"grid": 3}, {"unit_norm": False},
                {"backbone": "resnet18"},
            )
        ),
    ]  # fmt: skip
    assert len({made.entry(hashes), *others}) == len(others) + 1
    # What comes after embedding does not count, nor does the batch.
    for change in ({"sampler": "random"}, {"solver": "ridge"}, {"seed": 3}, {"bank_ratio": 0.5}):
        other = dataclasses.replace(SETTINGS, **change)
        assert made._replace(config=other, batch_size=9).entry(hashes) == made.entry(hashes)


@pytest.mark.parametrize("name,whole", [("k_center", greedy_k_center), ("random", uniform)])
def test_fitting_in_steps_is_fit(images, name, whole, monkeypatch):
    monkeypatch.setattr(stages, "SAMPLER_STRIDE", 4)
    settings = dataclasses.replace(SETTINGS, sampler=name)
    bank, notes, _ = stages.fit(embedder(settings), loading.views(split_of(images)), silent, silent)
    points = jnp.float32(expected_patches(images))
    expected = fit(jax.random.key(0), points, jnp.ones(40), sample=whole, num_atoms=6)
    np.testing.assert_array_equal(bank.indices, expected.indices)
    np.testing.assert_array_equal(bank.atoms, expected.atoms)
    assert notes == []


@pytest.mark.parametrize("cached", [False, True])
def test_streaming_covers_every_patch_as_it_says(images, monkeypatch, tmp_path, cached):
    monkeypatch.setattr(stages, "STREAM_PATCHES", 1)
    monkeypatch.setattr(stages, "CACHED_IMAGES", 4)
    settings, calls = dataclasses.replace(SETTINGS, sampler=choices.STREAMING), []

    def counting(backbone, batch):
        calls.append(len(batch))
        return pretend(backbone, batch)

    made = embedder(settings, 2, tmp_path if cached else None, counting)
    bank, notes, _ = stages.fit(made, loading.views(split_of(images)), silent, silent)
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


def test_short_batches_are_padded_to_one_shape():
    padded = stages.pad(np.ones((2, 3)), 4)
    np.testing.assert_array_equal(padded, [[1] * 3, [1] * 3, [0] * 3, [0] * 3])
    whole = np.ones((4, 3))
    assert stages.pad(whole, 4) is whole
