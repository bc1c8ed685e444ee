import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sgfr_jax import filters


@pytest.mark.parametrize("size,new_size", [(16, 256), (32, 16), (8, 16), (7, 5), (1, 4), (5, 1)])
def test_resize_is_jax_images_linear(rng, size, new_size):
    row = rng.normal(size=size)
    expected = jax.image.resize(jnp.float32(row), (new_size,), "linear", antialias=False)
    np.testing.assert_allclose(filters.resize_matrix(size, new_size) @ row, expected, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 9])
def test_mean_counts_what_is_beyond_the_border_as_zeros(rng, size):
    row = rng.normal(size=size)
    expected = [row[max(i - 1, 0) : i + 2].sum() / 3 for i in range(size)]
    np.testing.assert_allclose(filters.mean_matrix(size, 3) @ row, expected)


@pytest.mark.parametrize("sigma", [0, 0.5, 4.0])
def test_gaussian_is_scipys(rng, sigma):
    row = rng.normal(size=40)
    expected = ndimage.gaussian_filter1d(row, sigma) if sigma else row
    np.testing.assert_allclose(filters.gaussian_matrix(40, sigma) @ row, expected, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 40), new_size=st.integers(1, 40))
def test_rows_sum_to_one(size, new_size):
    for matrix in (
        filters.resize_matrix(size, new_size),
        filters.mean_matrix(size, 3)[1:-1],
        filters.gaussian_matrix(size, 2.0),
    ):
        np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float16, jnp.bfloat16])
def test_other_types_are_computed_in_float32(rng, dtype):
    grid = rng.integers(0, 9, (1, 4, 4, 2))
    matrix = filters.resize_matrix(4, 7)
    found = filters.apply(matrix, matrix, jnp.asarray(grid, dtype))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, filters.apply(matrix, matrix, jnp.float32(grid)), rtol=1e-6)


def test_apply_filters_each_axis_with_its_own_matrix(rng):
    rows, columns = rng.normal(size=(5, 3)), rng.normal(size=(6, 4))
    grid = rng.normal(size=(2, 3, 4, 7))
    expected = np.einsum("Hh,Ww,bhwd->bHWd", rows, columns, grid)
    np.testing.assert_allclose(filters.apply(rows, columns, jnp.float32(grid)), expected, atol=1e-5)
