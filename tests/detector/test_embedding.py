import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax.datasets import DatasetError
from sgfr_jax.detector import embedding, streams
from tests.detector.pretended import (
    FEATURES,
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

    compiled = embedding.make_embedding(dataclasses.replace(SETTINGS, unit_norm=unit_norm))
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
    monkeypatch.setattr(embedding.cache, "source_digest", lambda *parts: "of another version")
    assert made.entry(hashes) != before


@pytest.mark.parametrize("maker", ["make_embedding", "make_stream_embedding", "_merged"])
def test_whatever_makes_embeddings_counts(images, monkeypatch, maker):
    made, hashes = embedder(), split_of(images).hashes
    before = made.entry(hashes)
    monkeypatch.setattr(embedding, maker, expected_patches)
    assert made.entry(hashes) != before


def test_the_rule_of_streams_counts():
    # Their grids are in no other part of the name.
    assert streams in embedding._EMBEDDING


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


def test_short_batches_are_padded_to_one_shape():
    padded = embedding.pad(np.ones((2, 3)), 4)
    np.testing.assert_array_equal(padded, [[1] * 3, [1] * 3, [0] * 3, [0] * 3])
    whole = np.ones((4, 3))
    assert embedding.pad(whole, 4) is whole
