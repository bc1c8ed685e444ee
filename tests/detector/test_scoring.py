"""The functions of several streams against float64 NumPy; end to end they are in test_fitting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import types
from sgfr_jax.detector import scoring
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.scoring import Coding, Scoring
from sgfr_jax.detector.state import Look, plain_look

SIZE = 34  # not a multiple of `COARSE`


@pytest.fixture
def functions():
    method = Method(image_size=SIZE, halo=0.2, breadth=0.25, image_prior=0.4)
    return Scoring(method, Coding(None, 0))


@pytest.fixture
def look(rng):
    def some(*shape):
        return jnp.asarray(rng.uniform(0.5, 2, shape), jnp.float32)

    return Look(
        banks=(), origins=(), calibrations=(None,) * 3,
        map_weights=some(3), image_weights=some(3), image_mean=some(3), image_spread=some(3),
        score_mean=some(2), score_spread=some(2), halo_above=jnp.float32(2.5),
    )  # fmt: skip


@pytest.fixture
def found(rng):
    """Maps of three streams of four images; the last image stands out."""
    maps = rng.normal(size=(3, 4, SIZE, SIZE))
    maps[:, 3] += 2
    return [jnp.asarray(of, jnp.float32) for of in maps]


def of_double(look, found):
    """The anomaly maps, their two scores, and the halos, as the docstrings have them."""
    of = jax.tree.map(lambda x: np.asarray(x, float), look)
    maps = np.asarray(found, float)
    weighed = np.einsum("s,sbhw->bhw", of.map_weights, maps)

    def score(maps):  # the thousandth of 34 x 34 pixels is one
        return maps.max(axis=(-2, -1))

    relative = (score(maps) - of.image_mean[:, None]) / of.image_spread[:, None]
    scores = np.stack([score(weighed), of.image_weights @ relative], axis=1)
    return of, weighed, scores, 0.2 * np.maximum(scores[:, 0] - of.halo_above, 0)


def test_maps_are_weighed_and_scored_twice(functions, look, found):
    _, weighed, scores, _ = of_double(look, found)
    maps, both = functions.views(look, (found, None))
    np.testing.assert_allclose(maps, weighed, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(both, scores, rtol=1e-5, atol=1e-5)
    added = scoring.contributions(look, found)
    assert added.shape == (4, 3, SIZE, SIZE)
    np.testing.assert_allclose(added.sum(axis=1), weighed, rtol=1e-5, atol=1e-5)


def test_halo_breadth_and_prior_of_an_image_alone(functions, look, found):
    of, weighed, scores, halos = of_double(look, found)
    assert halos[3] > 0
    image = ((scores - of.score_mean) / of.score_spread).mean(axis=1)
    less = weighed - halos[:, None, None]
    wanted = less + 0.25 * less.mean(axis=(1, 2), keepdims=True)
    wanted += (of.score_spread[0] * 0.4 * np.minimum(image, 1))[:, None, None]
    maps, told = functions.fuse(look, (found, None))
    np.testing.assert_allclose(told, image, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(maps, wanted, rtol=1e-5, atol=1e-5)


def test_where_there_are_other_looks_only_the_halo_is_taken_off(functions, look, found):
    _, _, scores, halos = of_double(look, found)
    of_image = jnp.asarray(scores, jnp.float32)
    added, _ = functions.conclude(look, of_image, jnp.float32(7), alone=False)
    np.testing.assert_allclose(added, -halos, rtol=1e-5, atol=1e-5)


def test_padding_takes_no_part(functions, look, found):
    """Of a square whose lower half is padded, with whatever values."""
    extents = jnp.array([[0.5, 1.0]] * 4, jnp.float32)
    half = [of.at[:, SIZE // 2 :].set(1e6) for of in found]
    upper = [of.at[:, SIZE // 2 :].set(-1e6) for of in found]
    (_, scores), (_, wanted) = (functions.views(look, (of, extents)) for of in (half, upper))
    np.testing.assert_allclose(scores, wanted)
    added, told = functions.fuse(look, (half, extents))
    other, same = functions.fuse(look, (upper, extents))
    np.testing.assert_allclose(told, same)
    seen = (slice(None), slice(SIZE // 2))
    np.testing.assert_allclose(added[seen], other[seen], rtol=1e-5, atol=1e-4)


def test_one_bank_is_read_as_it_is(functions, found):
    """Without a calibration a map and its score are what `maps` makes of residuals."""
    bank = types.Bank(jnp.ones((2, 3)), jnp.ones(2), jnp.arange(2))
    plain = plain_look((bank,), (None,))
    maps, scores = functions.fuse(plain, (found[:1], None))
    np.testing.assert_array_equal(maps, found[0])
    np.testing.assert_allclose(scores, np.asarray(found[0]).max(axis=(1, 2)))
    _, twice = functions.views(plain, (found[:1], None))
    np.testing.assert_array_equal(twice, np.stack([scores, scores], axis=1))
    added, told = functions.conclude(plain, twice, jnp.ones(4), alone=True)
    assert not added.any()
    np.testing.assert_array_equal(told, scores)
    np.testing.assert_array_equal(scoring.contributions(plain, found[:1])[:, 0], found[0])


def test_equal_methods_are_equal(functions):
    same = Scoring(functions.method, functions.coding)
    assert same == functions and hash(same) == hash(functions)
