import jax
import numpy as np
import pytest
from sklearn.decomposition import PCA

from sgfr_jax import subspaces
from tests.subspaces import planted

PCA_OF = jax.jit(subspaces.pca, static_argnames=("rank", "affine"))


def learn(points, weights=None, *, rank=2, affine=False):
    weights = np.ones(len(points)) if weights is None else weights
    points, weights = np.float32(points), np.float32(weights)
    return jax.device_get(PCA_OF(jax.random.key(0), points, weights, rank=rank, affine=affine))


def projector(found):
    return found.bases[0].T @ found.bases[0]


def test_affine_agrees_with_scikit_learn(rng):
    points = rng.normal(size=(50, 8)) * np.arange(1, 9) + 3
    found = learn(points, rank=3, affine=True)
    expected = PCA(3).fit(points)
    np.testing.assert_allclose(found.means[0], expected.mean_, rtol=1e-5)
    np.testing.assert_allclose(
        np.abs(found.bases[0] @ expected.components_.T), np.eye(3), atol=1e-4
    )
    assert planted.is_orthonormal(found.bases[0], 3)


def test_linear_agrees_with_singular_vectors(rng):
    points = rng.normal(size=(40, 6)) * np.arange(1, 7) + 2
    found = learn(points)
    rows = np.linalg.svd(points)[2][:2]
    np.testing.assert_allclose(projector(found), rows.T @ rows, atol=1e-5)
    np.testing.assert_array_equal(found.means, np.zeros((1, 6)))


def test_weights_count_points(rng):
    points, times = rng.normal(size=(20, 4)), rng.integers(0, 4, 20)
    weighted = learn(points, times, affine=True)
    plain = learn(np.repeat(points, times, axis=0), affine=True)
    np.testing.assert_allclose(projector(weighted), projector(plain), atol=1e-4)
    np.testing.assert_allclose(weighted.means, plain.means, atol=1e-5)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("junk", [np.nan, np.inf, 1e20])
def test_padding_may_hold_anything(rng, affine, junk):
    points = rng.normal(size=(20, 5)) + 1
    plain = learn(points, affine=affine)
    padded = np.concatenate([points, np.full((7, 5), junk)])
    found = learn(padded, np.arange(27) < 20, affine=affine)
    np.testing.assert_allclose(projector(found), projector(plain), atol=1e-5)


@pytest.mark.parametrize("affine,spanned", [(False, 2), (True, 1)])
def test_rows_beyond_the_rank_of_the_data_are_zero(rng, affine, spanned):
    line = np.array([1.0, 2, 0, 0, 0]) + rng.normal(size=(30, 1)) * np.array([0, 0, 1.0, -1, 0.5])
    found = learn(line, rank=4, affine=affine)
    assert planted.is_orthonormal(found.bases[0], spanned)
    left = planted.squared_residuals(line, found.bases, found.means)
    np.testing.assert_allclose(left, 0, atol=1e-9)


def test_equal_points_are_a_mean_without_directions():
    same = np.full((10, 4), 0.3)
    found = learn(same, affine=True)
    np.testing.assert_array_equal(found.bases, np.zeros((1, 2, 4)))
    np.testing.assert_allclose(found.means, 0.3, rtol=1e-6)
    found = learn(0 * same)
    np.testing.assert_array_equal(found.bases, np.zeros((1, 2, 4)))
    assert found.weights == 1


def test_nothing_but_padding_is_a_padding_subspace():
    found = learn(np.ones((10, 4)), np.zeros(10), affine=True)
    assert all(np.isfinite(part).all() for part in found)
    np.testing.assert_array_equal(found.weights, [0])
