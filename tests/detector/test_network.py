import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgfr_jax as sgfr
from sgfr_jax.backbones.architectures import ARCHITECTURES
from sgfr_jax.detector import network
from sgfr_jax.detector.network import Level
from sgfr_jax.errors import ArgumentError
from sgfr_jax.saving import SavingError
from tests.detector import made_models, pretended


def embed(state, images):
    return {"a": jnp.asarray(images, jnp.float32)[:, ::4, ::4] * state[None, None, None]}


def test_a_network_of_anybodys():
    made = network.make(embed, strides={"a": 4, "b": 8}, widths={"b": 5, "a": 3}, state=np.ones(3))
    assert made.levels == (Level("a", 4, 3), Level("b", 8, 5))
    assert made.strides == {"a": 4, "b": 8} and made.widths == {"a": 3, "b": 5}
    assert made.default_levels == made.stream_levels == ("a", "b")
    assert (made.name, made.digest, made.image_size) == ("network", "", 256)
    loaded = made.load(("a",))
    assert loaded.embed is embed and loaded.state.tolist() == [1, 1, 1]
    assert loaded.embed(loaded.state, np.ones((2, 8, 8, 3), np.uint8))["a"].shape == (2, 2, 2, 3)
    assert hash(made) and jax.tree.leaves(made) == [made]  # a static value


def test_which_levels_are_seen_by_default():
    few = {"default_levels": "b", "stream_levels": ("a", "c")}
    sides = dict.fromkeys("abc", 14)
    made = network.make(embed, strides=sides, widths=sides, size_multiple=14, digest="d", **few)
    assert (made.default_levels, made.stream_levels) == (("b",), ("a", "c"))
    assert (made.size_multiple, made.image_size, made.digest) == (14, 448, "d")


@pytest.mark.parametrize(
    "strides,widths,more,message",
    [
        ({"a": 4}, {"b": 3}, {}, r"strides=\['a'\] and widths=\['b'\] must name the same levels"),
        ({"a": 4}, {"a": 3, "b": 3}, {}, "must name the same levels"),
        ({}, {}, {}, "one at least"),
        ({"a": 4}, {"a": 3}, {"default_levels": ["b"]}, r"default_levels=\['b'\]: unknown level"),
        ({"a": 4}, {"a": 3}, {"stream_levels": ["a", "c"]}, r"stream_levels=\['a', 'c'\]: unknown"),
        ({"a": 4}, {"a": 3}, {"default_levels": []}, r"default_levels=\[\] must name a level"),
        ({"a": 4}, {"a": 3}, {"stream_levels": ()}, r"stream_levels=\(\) must name a level"),
        (
            {"a": 4},
            {"a": 3},
            {"size_multiple": 0},
            "size_multiple=0 must be a whole number",
        ),
        ({"a": 4}, {"a": 3}, {"digest": None}, "digest=None must be a text"),
        ({"a": 4}, {"a": 3}, {"digest": 3}, "digest=3 must be a text"),
        ({"a": 4}, {"a": 3}, {"name": 3}, "name=3 must be a text"),
        ({"a": 4}, ["a"], {}, r"widths=\['a'\] must be a mapping"),
    ],
)
def test_levels_that_do_not_fit(strides, widths, more, message):
    with pytest.raises(ArgumentError, match=message):
        network.make(embed, strides=strides, widths=widths, **more)


def test_what_embeds_is_a_function():
    with pytest.raises(ArgumentError, match=r"^embed=None must be a function of the state"):
        network.make(None, strides={"a": 4}, widths={"a": 3})


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_ours_are_described_without_weights(name):
    found, of = network.describe(name), ARCHITECTURES[name]
    assert found.strides == dict(of.strides) and found.widths == dict(of.widths)
    assert tuple(found.strides) == of.levels and found.digest == ""
    assert set(found.stream_levels) | set(found.default_levels) <= set(of.levels)


def test_ours_are_equal_and_know_their_weights():
    found, same = (network.ours("efficientnet_lite0") for _ in range(2))
    assert found == same and hash(found) == hash(same) and len(found.digest) == 64
    described = network.describe("efficientnet_lite0")
    assert dataclasses.replace(found, digest="", load=described.load) == described
    assert network.ours("efficientnet_lite0", digest="of others").digest == "of others"


def test_an_unknown_network_is_named_with_the_nearest():
    for find in (network.describe, network.ours):
        with pytest.raises(ArgumentError, match=r"`backbone`: .*lite9.*efficientnet_lite\d"):
            find("efficientnet_lite9")


def test_a_network_that_is_none_and_one_that_is_not_as_it_was_said_to_be(rng):
    images = [rng.integers(0, 255, (32, 32, 3)).astype(np.uint8) for _ in range(2)]
    with pytest.raises(ArgumentError, match=r"network=.* or what `make_network` returns"):
        sgfr.fit_detector(jax.random.key(0), images, network=lambda state, images: {})

    def embed(state, images):
        return {"a": jnp.zeros((images.shape[0], 4, 4, 3)) + 1.0}

    fast = sgfr.Method.fast(image_size=32, bank_size=5, num_neighbors=2)
    wrong = network.make(embed, strides={"a": 8}, widths={"a": 5})
    with pytest.raises(ArgumentError, match=r"level 'a', which should be \[B, h, w, 5\]"):
        sgfr.fit_detector(jax.random.key(0), images, method=fast, network=wrong)
    with pytest.raises(ArgumentError, match=r"strides=.*: a must have a whole number"):
        network.make(embed, strides={"a": 0}, widths={"a": 3})


def test_a_saved_detector_asks_for_its_own_network(rng, tmp_path):
    found = made_models.of(
        pretended.settled(layers=("fast",), geometry="square"), pretended.NETWORK
    )
    sgfr.save(tmp_path / "model", found)
    with pytest.raises(SavingError, match=r"which is no network of ours: give `network`"):
        sgfr.load(tmp_path / "model")
    with pytest.raises(ArgumentError, match=r"network='fine' must be left out for .* of ours"):
        sgfr.load(tmp_path / "model", network="fine")
    with pytest.raises(ArgumentError, match=r"network=3 must be"):
        sgfr.load(tmp_path / "model", network=3)


@pytest.mark.parametrize(
    "fields,message",
    [
        ({"name": "other"}, r"through 'network', and `network` is 'other': give the one that"),
        ({"widths": {"fine": 5, "coarse": 8}}, r"gives fine\+coarse@64 of 8 x 8 x 12, and .* x 13"),
        ({"strides": {"fine": 8}, "widths": {"fine": 5}}, "gives no level 'coarse'"),
    ],
)
def test_another_network_than_a_detector_was_fitted_through(fields, message, tmp_path):
    of = pretended.settled(layers=("fast",), geometry="square")
    sgfr.save(tmp_path / "model", made_models.of(of, pretended.NETWORK))
    levels = {"strides": pretended.STRIDES, "widths": pretended.WIDTHS}
    other = network.make(pretended.embed, **levels | fields)
    with pytest.raises(SavingError, match=message):
        sgfr.load(tmp_path / "model", network=other)


@pytest.mark.parametrize("level", ["auto", "fast", "a@1", "", 3])
def test_names_of_levels_are_not_what_layers_means_by_others(level):
    with pytest.raises(ArgumentError, match="must be a text without @, and not auto or fast"):
        network.make(embed, strides={level: 4}, widths={level: 3})
