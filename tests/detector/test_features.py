"""Features of one's own go the way of the whole method: both are compared, number by number."""

import jax
import numpy as np
import pytest

import sgfr_jax as sgfr
from sgfr_jax import detector as stages
from sgfr_jax.detector import synthetic
from sgfr_jax.errors import ArgumentError
from tests.detector import pretended

KEY = jax.random.key(4)
FIELDS = {"image_size": 64, "bank_size": 20, "num_neighbors": 3}
METHOD = sgfr.Method(**FIELDS)


@pytest.fixture(autouse=True)
def few_defects(monkeypatch):
    pretended.few_defects(monkeypatch)


@pytest.fixture(scope="module")
def nominal():
    return np.stack(pretended.images(np.random.default_rng(0)))


@pytest.fixture(scope="module")
def levels():
    """A function of images: the levels of a network, as another program might make them."""
    wanted = ("fine", "coarse")
    loaded = pretended.NETWORK.load(wanted)

    @jax.jit
    def embed(images):
        found = loaded.embed(loaded.state, images)
        return [found[level] for level in wanted]

    return embed


def test_the_same_as_fit_detector(nominal, levels, rng):
    whole = sgfr.Method(layers=("fine@1", "coarse@1"), geometry="square", **FIELDS)
    detector = sgfr.fit_detector(KEY, nominal, method=whole, network=pretended.NETWORK)
    (expected,) = detector.state.looks

    made = levels(nominal)
    look = stages.fit_banks(KEY, made, METHOD)
    assert look.calibrations == ()
    look, held_out = stages.calibrate(look, made, METHOD)
    np.testing.assert_array_equal(look.map_weights, [0.5, 0.5])
    drawn = stages.draw_defects(KEY, nominal, METHOD)
    assert drawn.images.shape == (len(drawn.groups), 64, 64, 3)
    for spoilt, source, mask in zip(drawn.images, drawn.sources, drawn.masks, strict=True):
        np.testing.assert_array_equal((spoilt != nominal[source]).any(axis=-1) & ~mask, False)
    spoilt = levels(drawn.images)
    look = stages.weigh(
        look, held_out, spoilt, drawn.sources, drawn.masks, drawn.groups, METHOD
    )
    jax.tree.map(
        lambda found, wanted: np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5),
        look, expected,
    )  # fmt: skip

    new = np.stack(pretended.images(rng, num=2))
    new[1, 20:40, 20:40] = 255
    maps, scores = stages.score(look, levels(new), METHOD)
    wanted = sgfr.predict(detector, new)
    np.testing.assert_allclose(scores, [found.score for found in wanted], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        maps, [found.anomaly_map for found in wanted], rtol=1e-4, atol=1e-4
    )


def test_grey_images_have_grey_defects(nominal):
    drawn = stages.draw_defects(KEY, nominal[..., 0], METHOD)
    assert drawn.images.shape == drawn.masks.shape == (len(drawn.groups), 64, 64)
    assert 0 < len(drawn.groups) <= synthetic.num_drawn()


def test_mistakes_are_named(nominal, levels):
    made = levels(nominal)
    with pytest.raises(ArgumentError, match=r"images=float64 \[6, 64, 64, 3\] must be uint8"):
        stages.draw_defects(KEY, nominal / 255, METHOD)
    with pytest.raises(ArgumentError, match=r"levels=\[\(6, .* must be \[B, h, w, D\]"):
        stages.fit_banks(KEY, [made[0], made[1][:5]], METHOD)
    with pytest.raises(ArgumentError, match="`solver`: unknown solver 'lasoo'"):
        stages.fit_banks(KEY, made, sgfr.Method(solver="lasoo"))
