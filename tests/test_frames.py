import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import frames, linalg


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_units_are_powers_of_two_near_their_sizes(rng, dtype):
    with jax.enable_x64(True):
        sizes = rng.uniform(1, 2, 3000) * 2.0 ** rng.integers(-115, 126, 3000)
        sizes = jnp.asarray(np.append(sizes, [1, 1.5, 1.25, 1.75, 3.3e38]), dtype)
        found = np.asarray(jax.jit(frames.power_of_two)(sizes), np.float64)
    assert (np.frexp(found)[0] == 0.5).all()
    share = np.asarray(sizes, np.float64) / found
    assert share.min() >= 5 and share.max() <= 10
    np.testing.assert_array_equal(frames.power_of_two(jnp.zeros(2)), 1)


def test_a_frame_is_of_the_points_that_count(rng):
    points = np.float32(1e-9 * rng.normal(size=(50, 4)) + 1e-6)
    expected = frames.frame(jnp.asarray(points), jnp.ones(50))
    assert np.abs(expected[0] / 1e-6 - 1).max() < 0.01
    for junk in (np.nan, np.inf, 0, 1e30):
        held = np.concatenate([np.full((60, 4), junk, np.float32), points])
        found = frames.frame(jnp.asarray(held), jnp.float32(np.arange(110) >= 60))
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    nothing = frames.frame(jnp.asarray(points), jnp.zeros(50))
    np.testing.assert_array_equal(nothing[0], 0)
    assert nothing[1] == 1


def test_a_point_far_off_hardly_moves_the_origin(rng):
    points = np.float32(rng.normal(size=(200, 4)) + 5)
    points[7] = 1e15
    origin, unit = frames.frame(jnp.asarray(points), jnp.ones(200))
    assert np.abs(origin - 5).max() < 0.5 and 0.1 < unit < 5


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e19, 1e30])
def test_norms_of_any_scale(rng, scale):
    vectors = rng.normal(size=(5, 7)) * scale
    found = linalg.norm(jnp.float32(vectors))
    np.testing.assert_allclose(found, np.linalg.norm(vectors, axis=1), rtol=1e-6)
    slopes = jax.grad(lambda x: jnp.sum(linalg.norm(x)))(jnp.float32(vectors))
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(slopes, directions, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(jax.grad(lambda x: linalg.norm(x))(jnp.zeros(3)), 0)
