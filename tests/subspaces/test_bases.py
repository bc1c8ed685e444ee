import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import subspaces, types
from sgfr_jax.subspaces import bases
from tests.subspaces import planted


def test_squared_residuals_agree_with_projecting(rng):
    points, _, frames, means = planted.union(
        rng, num_subspaces=3, rank=2, num_features=6, each=10, noise=0.3, offset=1.0
    )
    known = types.Subspaces(jnp.float32(frames), jnp.float32(means), jnp.ones(3))
    found = subspaces.squared_residuals(jnp.float32(points), known)
    expected = planted.squared_residuals(points, frames, means)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_padding_subspaces_are_infinitely_far():
    known = types.Subspaces(jnp.zeros((2, 1, 3)), jnp.zeros((2, 3)), jnp.array([1.0, 0]))
    found = subspaces.squared_residuals(jnp.ones((4, 3)), known)
    np.testing.assert_array_equal(found, [[3, np.inf]] * 4)


def test_principal_by_label_is_principal_of_each(rng):
    points = jnp.float32(rng.normal(size=(30, 5)))
    labels = jnp.array([0] * 12 + [2] * 15 + [-1] * 3)
    found = bases.principal_by_label(
        points, jnp.ones(30), labels, num_subspaces=3, rank=2, affine=True
    )
    np.testing.assert_array_equal(found.weights, [1, 0, 1])
    np.testing.assert_array_equal(found.bases[1], np.zeros((2, 5)))
    for label, members in ((0, points[:12]), (2, points[12:27])):
        basis, mean = bases.principal(members, jnp.ones(len(members)), rank=2, affine=True)
        np.testing.assert_allclose(found.means[label], mean, atol=1e-6)
        np.testing.assert_allclose(
            found.bases[label].T @ found.bases[label], basis.T @ basis, atol=1e-5
        )


@pytest.mark.parametrize("rank", [0, 4, 6])
def test_a_rank_that_points_cannot_have_is_refused(rank):
    with pytest.raises(ValueError, match=f"rank={rank}, but 3 points of 5 features"):
        bases.check(jnp.ones((3, 5)), jnp.ones(3), rank)


def test_shapes_and_dtypes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 5\) and \(4,\)"):
        bases.check(jnp.ones((3, 5)), jnp.ones(4), 1)
    with pytest.raises(ValueError, match="int32"):
        bases.check(jnp.ones((3, 5), jnp.int32), jnp.ones(3), 1)


def test_residuals_of_other_features_are_refused():
    found = types.Subspaces(jnp.ones((2, 1, 5)), jnp.ones((2, 5)), jnp.ones(2))
    with pytest.raises(ValueError, match=r"points \(3, 4\) and means \(2, 5\)"):
        bases.squared_residuals(jnp.ones((3, 4)), found)
