from functools import partial

import jax
import numpy as np
import pytest

from sgfr_jax import subspaces, types
from sgfr_jax.subspaces import bases
from tests.subspaces import planted

SQUARED_RESIDUALS = jax.jit(subspaces.squared_residuals)


def test_squared_residuals_agree_with_projecting(rng):
    points, _, frames, means = planted.union(
        rng, num_subspaces=3, rank=2, num_features=6, each=10, noise=0.3, offset=1.0
    )
    known = types.Subspaces(np.float32(frames), np.float32(means), np.ones(3))
    found = SQUARED_RESIDUALS(np.float32(points), known)
    expected = planted.squared_residuals(points, frames, means)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_padding_subspaces_are_infinitely_far():
    known = types.Subspaces(np.zeros((2, 1, 3)), np.zeros((2, 3)), np.array([1.0, 0]))
    found = SQUARED_RESIDUALS(np.ones((4, 3)), known)
    np.testing.assert_array_equal(found, [[3, np.inf]] * 4)


def test_principal_by_label_is_principal_of_each(rng):
    points = rng.normal(size=(30, 5))
    labels = np.array([0] * 12 + [2] * 15 + [-1] * 3)
    by_label = partial(bases.principal_by_label, num_subspaces=3, rank=2, affine=True)
    found = jax.device_get(jax.jit(by_label)(np.float32(points), np.ones(30, np.float32), labels))
    np.testing.assert_array_equal(found.weights, [1, 0, 1])
    np.testing.assert_array_equal(found.bases[1], np.zeros((2, 5)))
    for label, members in ((0, points[:12]), (2, points[12:27])):
        mean = members.mean(axis=0)
        basis = np.linalg.svd(members - mean)[2][:2]
        np.testing.assert_allclose(found.means[label], mean, atol=1e-6)
        np.testing.assert_allclose(
            found.bases[label].T @ found.bases[label], basis.T @ basis, atol=1e-5
        )


@pytest.mark.parametrize("rank", [0, 4, 6])
def test_a_rank_that_points_cannot_have_is_refused(rank):
    with pytest.raises(ValueError, match=f"rank={rank}, but 3 points of 5 features"):
        bases.check(np.ones((3, 5)), np.ones(3), rank)


def test_shapes_and_dtypes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 5\) and \(4,\)"):
        bases.check(np.ones((3, 5)), np.ones(4), 1)
    with pytest.raises(ValueError, match="int32"):
        bases.check(np.ones((3, 5), np.int32), np.ones(3), 1)


def test_residuals_of_other_features_are_refused():
    found = types.Subspaces(np.ones((2, 1, 5)), np.ones((2, 5)), np.ones(2))
    with pytest.raises(ValueError, match=r"points \(3, 4\) and means \(2, 5\)"):
        bases.squared_residuals(np.ones((3, 4)), found)
