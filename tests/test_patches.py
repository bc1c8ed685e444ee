from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import patches

MERGE = jax.jit(patches.merge_levels, static_argnums=1)
UNIT_NORM = jax.jit(patches.unit_norm)


def neighbourhood_mean(level):
    """Cell by cell, as the docstring says it."""
    result = np.empty_like(level)
    height, width = level.shape[1:3]
    for i in range(height):
        for j in range(width):
            near = level[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            result[:, i, j] = near.sum(axis=(1, 2)) / 9
    return result


def test_levels_are_averaged_resized_and_concatenated(rng):
    levels = {"deep": rng.normal(size=(2, 3, 4, 5)), "fine": rng.normal(size=(2, 12, 16, 2))}
    found = MERGE({k: np.float32(v) for k, v in levels.items()}, (6, 8))
    resize = jax.jit(partial(jax.image.resize, method="linear", antialias=False), static_argnums=1)
    expected = np.concatenate(
        [
            resize(np.float32(neighbourhood_mean(level)), (2, 6, 8, level.shape[-1]))
            for level in levels.values()
        ],
        axis=-1,
    )
    assert found.shape == (2, 6, 8, 7)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_nan_spoils_its_own_feature_and_image():
    level = np.ones((2, 8, 8, 3), np.float32)
    level[0, 2, 3, 1] = np.nan
    found = np.isnan(MERGE({"a": level}, (4, 4)))
    np.testing.assert_array_equal(found[0].mean(axis=(0, 1)), [0, 1, 0])
    assert not found[1].any()


def test_one_cell():
    found = patches.merge_levels({"a": np.full((1, 1, 1, 2), 3.0, np.float32)}, (1, 1))
    np.testing.assert_allclose(found, 3.0 / 9)


@pytest.mark.parametrize(
    "levels", [{}, {"a": np.ones((3, 3, 2))}, {"a": np.ones((1, 2, 2, 1)), "b": np.ones((2,) * 4)}]
)
def test_levels_that_do_not_fit_are_refused(levels):
    with pytest.raises(ValueError, match="levels must"):
        patches.merge_levels(levels, (2, 2))


def test_unit_norm(rng):
    features = rng.normal(size=(3, 4, 5)) * 100
    found = UNIT_NORM(np.float32(features))
    expected = features / np.linalg.norm(features, axis=-1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
def test_unit_norm_of_any_size(rng, scale):
    features = rng.normal(size=(4, 5))
    found = UNIT_NORM(np.float32(features * scale))
    expected = features / np.linalg.norm(features, axis=-1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_unit_norm_in_half_precision(rng):
    found = UNIT_NORM(np.float16(rng.normal(size=(4, 5)) * 300))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, rtol=1e-5)


def test_a_patch_that_is_not_finite_stays_so():
    found = UNIT_NORM(np.float32([[1, np.nan], [np.inf, 1], [3, 4]]))
    np.testing.assert_array_equal(np.isnan(found).any(axis=-1), [True, True, False])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_makes_its_patch_nan(value):
    found = patches.unit_norm(np.float32([[1.0, value, 3.0], [3.0, 0.0, 4.0]]))
    np.testing.assert_allclose(found, [[np.nan] * 3, [0.6, 0.0, 0.8]])


@pytest.mark.parametrize("num_features", [768, 1024, 1536])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nor_does_a_wide_patch_hide_it(rng, num_features, value):
    features = rng.normal(size=(3, num_features)).astype(np.float32)
    features[1, 3] = value
    found = np.isnan(UNIT_NORM(features))
    np.testing.assert_array_equal(found.mean(axis=-1), [0, 1, 0])


def test_a_zero_patch_stays_zero_and_has_a_gradient():
    zeros = np.zeros((2, 3), np.float32)
    np.testing.assert_array_equal(UNIT_NORM(zeros), 0)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(patches.unit_norm(x))))(zeros)
    assert np.isfinite(gradient).all()
