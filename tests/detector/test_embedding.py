import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import merge_levels, unit_norm
from sgfr_jax.datasets import DatasetError
from sgfr_jax.detector import embedding, splits, streams
from sgfr_jax.detector.services import PLAIN
from sgfr_jax.errors import ArgumentError
from tests.detector import pretended

ONE_BANK = pretended.settled(layers=("fast",), image_size=32)
PLANNED = streams.plan(ONE_BANK, pretended.NETWORK)


def embedder(seen=pretended.NETWORK, planned=PLANNED, **services):
    (made,) = embedding.make_embedders(
        seen, planned, unit_norm=True, services=PLAIN._replace(**services)
    )
    return made


@pytest.fixture
def images(rng):
    return pretended.images(rng, 10, (32, 32, 3))


def without_255(state, images):
    """Features of images that are not finite where a pixel is white."""
    levels = pretended.embed(state, images)
    white = jnp.any(images == 255, axis=(1, 2, 3))[:, None, None, None]
    return {name: jnp.where(white, jnp.nan, level) for name, level in levels.items()}


def test_patches_come_image_after_image_whatever_the_batch(images):
    """Against each image alone, by the functions that the paper's patches follow from."""

    @jax.jit
    def alone(image):
        levels = pretended.embed(pretended.NETWORK.load(()).state, image[None])
        both = {name: levels[name] for name in ("fine", "coarse")}
        return unit_norm(merge_levels(both, (4, 4))).reshape(16, 12)

    expected = np.stack([alone(image) for image in images])
    for batch_size in (1, 3, 16):
        batches = list(embedder(batch_size=batch_size).batches(pretended.split_of(images)))
        assert all(len(own) == min(batch_size, 10) for (own,) in batches[:-1])
        found = np.concatenate([own for (own,) in batches])
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_an_image_does_not_depend_on_its_batch(images):
    split = pretended.split_of(images)
    ((whole,),) = embedder(batch_size=10).batches(split)
    ((some,),) = embedder(batch_size=10).batches(split.take([7, 2]))
    np.testing.assert_array_equal(some, whole[[7, 2]])


def test_features_that_are_not_finite_name_their_image(images):
    images[7][0, 1, 1] = 255
    seen = dataclasses.replace(
        pretended.NETWORK,
        load=lambda levels: pretended.NETWORK.load(levels)._replace(embed=without_255),
    )
    with pytest.raises(DatasetError, match=r"^image 7: its features are NaN.*`weights`"):
        list(embedder(seen, batch_size=3).batches(pretended.split_of(images)))


@pytest.mark.parametrize("unit_norm", [True, False])
def test_what_cannot_be_scored_is_seen_whatever_the_norm(unit_norm):
    planned = (streams.Stream(8, ("only",), 2, (3,), (2,)),)

    def embed(state, images):
        return {"only": jnp.ones((len(images), 4, 4, 3)).at[1, 2, 2, 0].set(state)}

    @jax.jit
    def embedded(state):
        pixels = np.zeros((3, 8, 8, 3), np.uint8)
        return embedding.embed_squares(state, pixels, embed, planned, unit_norm=unit_norm)

    for bad in (np.nan, np.inf, 1e30):
        (features,), finite = embedded(bad)
        np.testing.assert_array_equal(finite, [True, False, True])
        assert features.shape == (3, 4, 3)
    assert embedded(1.0)[1].all()


@pytest.mark.parametrize(
    "levels,message",
    [
        (
            jnp.ones((3, 4, 4, 3)),
            r"gives \w+, which should be a mapping of levels",
        ),
        ({}, r"gives None for level 'only', which should be \[B, h, w, 3\]"),
        ({"only": jnp.ones((3, 4, 4, 2))}, r"gives float32 \[3, 4, 4, 2\] for level 'only'"),
        ({"only": jnp.ones((3, 4, 3, 3))}, "of 3 images with h = w = 4: mend it, or its `strides`"),
        ({"only": jnp.ones((3, 8, 8, 3))}, "of 3 images with h = w = 4"),
        ({"only": jnp.ones((1, 4, 4, 3))}, "of 3 images with h = w = 4"),
        ({"only": jnp.ones((3, 4, 4, 3), int)}, "and floating"),
    ],
)
def test_maps_that_are_not_as_the_levels_say(levels, message):
    planned = (streams.Stream(7, ("only",), 2, (3,), (2,)),)
    pixels = np.zeros((3, 7, 7, 3), np.uint8)
    with pytest.raises(ArgumentError, match=f"^`network`: its embed function .*{message}"):
        embedding.embed_squares(None, pixels, lambda *_: levels, planned, unit_norm=True)


def test_streams_of_one_size_are_embedded_together(images):
    """And share the weights, which are loaded once, when the first image asks for them."""
    loaded = []

    def load(levels):
        loaded.append(levels)
        return pretended.NETWORK.load(levels)

    seen = dataclasses.replace(pretended.NETWORK, load=load)
    planned = streams.plan(pretended.settled(), seen)
    made = embedding.make_embedders(
        seen, planned, unit_norm=True, services=PLAIN._replace(batch_size=4)
    )
    assert [(e.image_size, e.min_side, len(e.streams)) for e in made] == [(64, 16, 1), (96, 16, 2)]
    split = pretended.split_of(images[:4])
    for each in made:
        (found,) = each.batches(split)
        assert [x.shape for x in found] == [(4, *stream.shape) for stream in each.streams]
    assert loaded == [("fine", "coarse")]


class InMemory(dict):
    """Keeps embeddings by what they follow from."""

    def read(self, described, rows):
        found = self.get(repr(described))
        return found and iter(np.split(found, range(rows, len(found), rows)))

    def write(self, described, shape, blocks):
        made = []
        for block in blocks:
            made.append(block)
            yield block
        self[repr(described)] = Whole(np.concatenate(made))
        assert self[repr(described)].shape == shape


class Whole(np.ndarray):
    """An array that is true."""

    def __new__(cls, array):
        return array.view(cls)

    def __bool__(self):
        return True


def test_nothing_is_embedded_twice(images):
    split, loaded, kept = pretended.split_of(images), [], InMemory()

    def load(levels):
        loaded.append(levels)
        return pretended.NETWORK.load(levels)

    def batches():
        seen = dataclasses.replace(pretended.NETWORK, load=load)
        return embedder(seen, batch_size=4, kept=kept).batches(split)

    first, second = (np.concatenate([own for (own,) in batches()]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len(loaded) == len(kept) == 1
    # Images without hashes are not known again, and none need not be kept.
    list(embedder(batch_size=4, kept=kept).batches(splits.of_arrays(images)))
    list(embedder(batch_size=4, kept=kept).batches(split.take([])))
    assert len(kept) == 1


def test_an_embedding_is_described_by_what_it_follows_from(images):
    hashes, made = pretended.split_of(images).hashes, embedder()

    def described(**change):
        return repr(made._replace(**change).described(hashes))

    def planned(**change):
        return tuple(dataclasses.replace(stream, **change) for stream in PLANNED)

    others = [
        repr(made.described(hashes[::-1])),
        described(network=dataclasses.replace(pretended.NETWORK, digest="other")),
        described(network=dataclasses.replace(pretended.NETWORK, name="other")),
        described(streams=planned(levels=("coarse", "fine"))),
        described(streams=planned(image_size=64)),
        described(streams=planned(grid=3)),
        described(unit_norm=False),
    ]
    assert len({described(), *others}) == len(others) + 1
    # Neither the batch nor the machine counts.
    assert described(services=PLAIN._replace(batch_size=9, workers=3)) == described()
