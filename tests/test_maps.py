import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from sgfr_jax import maps

ANOMALY_MAP = jax.jit(maps.anomaly_map, static_argnums=1, static_argnames="sigma")
IMAGE_SCORE = jax.jit(maps.image_score, static_argnames="share")


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_map_is_pillows_bilinear_resize_and_scipys_blur(rng, size):
    scores = rng.random(size=(3, 8, 8)).astype(np.float32)
    expected = [
        ndimage.gaussian_filter(
            np.asarray(Image.fromarray(s).resize(size[::-1], Image.Resampling.BILINEAR)), 4.0
        )
        for s in scores
    ]
    np.testing.assert_allclose(ANOMALY_MAP(scores, size, sigma=4.0), expected, atol=1e-4)


def test_map_stays_within_the_range_of_the_scores(rng):
    scores = rng.random(size=(2, 5, 7)).astype(np.float32)
    found = ANOMALY_MAP(scores, (50, 60), sigma=2.0)
    assert scores.min() - 1e-6 <= np.min(found) <= np.max(found) <= scores.max() + 1e-6


def test_one_patch_makes_a_constant_map():
    found = ANOMALY_MAP(np.full((1, 1, 1), 0.25), (6, 9), sigma=4.0)
    np.testing.assert_allclose(found, np.full((1, 6, 9), 0.25), rtol=1e-6)


def test_image_score_is_the_maximum():
    found = IMAGE_SCORE(np.float32([[[1, 2], [5, 3]], [[0, -1], [-2, -3]]]))
    np.testing.assert_array_equal(found, [5, 0])


@pytest.mark.parametrize("share,num", [(0.0, 1), (0.01, 1), (0.1, 10), (0.104, 10), (1.0, 100)])
def test_image_score_is_the_mean_of_the_highest_share(rng, share, num):
    made = rng.normal(size=(3, 10, 10)).astype(np.float32)
    expected = np.sort(made.reshape(3, -1).astype(np.float64), axis=1)[:, -num:].mean(axis=1)
    np.testing.assert_allclose(IMAGE_SCORE(made, share=share), expected, rtol=1e-6, atol=1e-6)


def test_shares_may_be_traced(rng):
    made = rng.normal(size=(3, 10, 10)).astype(np.float32)
    shares = [0.0, 0.01, 0.1, 0.104, 1.0]
    score = jax.jit(jax.vmap(lambda share: maps.image_score(made, share=share)))
    expected = [IMAGE_SCORE(made, share=share) for share in shares]
    np.testing.assert_allclose(score(np.float32(shares)), expected, rtol=1e-6, atol=1e-6)
    for rule in (
        lambda share: maps.halo(made[0, 0], 0.5, share=share),
        lambda share: maps.breadth(made, share=share),
        lambda share: maps.image_prior(made[0, 0], share=share),
    ):
        found = jax.jit(jax.vmap(rule))(np.float32(shares))
        slope = jax.jit(jax.jacobian(rule))(0.25)
        np.testing.assert_allclose(found, np.stack([rule(s) for s in shares]), rtol=1e-6)
        np.testing.assert_allclose(slope, rule(1.0), rtol=1e-6)  # each is linear in its share


def test_where_padding_leaves_fewer_they_are_averaged(rng):
    made = rng.normal(size=(1, 10, 10)).astype(np.float32)
    found = IMAGE_SCORE(made, np.float32([[0.2, 0.3]]), share=0.5)
    np.testing.assert_allclose(found, [made[0, :2, :3].mean()], rtol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.01])
@pytest.mark.parametrize("extents", [None, [[0.5, 1.0]] * 3])
def test_a_map_that_holds_nan_scores_nan(extents, share):
    """Of many pixels, where XLA's own maximum passes over NaN on a CPU."""
    found = np.ones((3, 64, 64), np.float32)
    found[0], found[1, 9, 40] = np.nan, np.nan
    extents = None if extents is None else np.float32(extents)
    scores = IMAGE_SCORE(found, extents, share=share)
    np.testing.assert_array_equal(scores, [np.nan] * 2 + [1])


def test_nan_spoils_its_own_image_and_no_other():
    scores = np.ones((2, 8, 8), np.float32)
    scores[0, 2, 3] = np.nan
    found = ANOMALY_MAP(scores, (64, 64), sigma=4.0)
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1], 1, rtol=1e-5)


def test_nan_in_padding_does_not_count():
    found = np.ones((1, 64, 64), np.float32)
    found[0, 40] = np.nan
    np.testing.assert_array_equal(IMAGE_SCORE(found, np.float32([[0.5, 1.0]])), [1])


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 4\)"):
        maps.anomaly_map(jnp.ones((4, 4)), (8, 8), sigma=1.0)
    with pytest.raises(ValueError, match="sigma=-1"):
        maps.anomaly_map(jnp.ones((1, 4, 4)), (8, 8), sigma=-1)
    with pytest.raises(ValueError, match=r"share=1\.5"):
        maps.image_score(jnp.ones((1, 4, 4)), share=1.5)


def without_halo(found, nominal=3.0, **chosen):
    found = jnp.asarray(found)
    scores = maps.image_score(found)
    halos = maps.halo(scores, jnp.float32(nominal), **chosen)
    return found - halos[:, None, None]


def test_a_share_of_what_exceeds_nominal_scores_is_taken_off(rng):
    made = rng.normal(size=(4, 6, 5)).astype(np.float32)
    made[1, 2, 3], made[3, 0, 0] = 13.0, 3.5
    found = without_halo(made, share=0.2)
    np.testing.assert_array_equal(found[::2], made[::2])  # what scores as nominal images do
    np.testing.assert_allclose(found[1], made[1] - 0.2 * (13 - 3), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[3], made[3] - 0.2 * (3.5 - 3), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(without_halo(made, share=0.0), made)
    np.testing.assert_array_equal(without_halo(made, np.inf, share=0.2), made)


@settings(deadline=None)
@given(scale=st.floats(0.1, 100), shift=st.floats(-10, 10), share=st.floats(0, 1))
def test_halos_do_not_depend_on_the_unit(scale, shift, share):
    made = np.random.default_rng(0).normal(0, 3, (3, 4, 4)).astype(np.float32)
    plain = np.asarray(without_halo(made, share=share), float)
    other = without_halo(scale * made + shift, scale * 3.0 + shift, share=share)
    np.testing.assert_allclose(other, scale * plain + shift, rtol=1e-3, atol=1e-3 * scale + 1e-4)


def test_halos_keep_the_order_of_pixels_and_images(rng):
    made = rng.normal(0, 4, size=(8, 6, 6)).astype(np.float32)
    found = np.asarray(without_halo(made, share=0.9))
    before, after = (x.reshape(8, -1) for x in (made, found))
    np.testing.assert_array_equal(np.argsort(before, axis=1), np.argsort(after, axis=1))
    np.testing.assert_array_equal(np.argsort(before.max(axis=1)), np.argsort(after.max(axis=1)))


def test_images_that_look_nominal_have_lower_maps():
    scores = jnp.array([-2.0, 0.0, 0.5, 1.0, 7.0, jnp.inf, -jnp.inf, jnp.nan])
    found = maps.image_prior(scores, share=0.4)
    expected = [-0.8, 0.0, 0.2, 0.4, 0.4, 0.4, -np.inf, np.nan]
    np.testing.assert_allclose(found, np.float32(expected), rtol=1e-6)
    np.testing.assert_array_equal(maps.image_prior(scores[:5], share=0.0), 0)
    with pytest.raises(ValueError, match=r"share=-0\.1; it must not be negative"):
        maps.image_prior(scores, share=-0.1)


def test_what_is_high_all_over_is_raised(rng):
    made = rng.normal(1, 4, size=(3, 8, 6)).astype(np.float32)
    found = maps.breadth(made, share=0.25)
    np.testing.assert_allclose(found, 0.25 * made.astype(float).mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(maps.breadth(made, share=0.0), 0)
    made[1, 4:] = np.nan  # padded
    extents = jnp.array([[1, 1], [0.5, 1], [0.25, 0.5]])
    expected = 0.25 * np.array([made[0].mean(), made[1, :4].mean(), made[2, :2, :3].mean()])
    np.testing.assert_allclose(maps.breadth(made, extents, share=0.25), expected, rtol=1e-5)
    assert np.isnan(maps.breadth(made, share=0.25)).tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"share=-0\.1; it must not be negative"):
        maps.breadth(made, share=-0.1)


def test_a_map_that_is_not_a_number_stays_alone(rng):
    made = rng.normal(0, 4, size=(3, 4, 4)).astype(np.float32)
    made[1, 0, 0] = np.nan
    found = np.asarray(without_halo(made, share=0.2))
    assert np.isnan(found[1]).all() and np.isfinite(found[[0, 2]]).all()


def test_a_share_is_one():
    with pytest.raises(ValueError, match=r"share=-0\.1; it must be in \[0, 1\]"):
        without_halo(np.zeros((1, 2, 2), np.float32), share=-0.1)
