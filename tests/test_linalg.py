from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sgfr_jax import linalg

SQUARED_DISTANCES = jax.jit(linalg.squared_distances)
NEAREST = jax.jit(linalg.nearest, static_argnames="num_neighbors")


@pytest.mark.parametrize("axis", [None, 1, (1, 2)])
def test_a_maximum_keeps_nan(rng, axis):
    values = rng.normal(size=(3, 64, 80)).astype(np.float32)
    values[1, 10, 7], values[2, 3, 4] = np.nan, np.inf
    found = jax.jit(partial(linalg.max_or_nan, axis=axis))(values)
    np.testing.assert_array_equal(found, np.max(values, axis=axis))
    np.testing.assert_array_equal(linalg.max_or_nan(jnp.zeros((2, 0)), axis=1), [-np.inf] * 2)


def test_distances_agree_with_scipy(rng):
    targets, atoms = rng.normal(size=(7, 5)), rng.normal(size=(11, 5))
    found = SQUARED_DISTANCES(np.float32(targets), np.float32(atoms))
    np.testing.assert_allclose(found, cdist(targets, atoms, "sqeuclidean"), rtol=1e-5, atol=1e-5)


def test_distance_of_a_point_to_itself_is_never_negative(rng):
    points = np.float32(100 * rng.normal(size=(50, 3)))
    for distances in (SQUARED_DISTANCES, linalg.squared_distances):
        assert np.min(distances(points, points)) >= 0


def test_nearest_atoms_come_in_order_and_padding_last():
    atoms = np.float32([[0.0], [3.0], [1.0], [0.1]])
    weights = np.float32([1, 1, 1, 0])
    found = linalg.nearest(np.float32([[0.2], [2.9]]), atoms, weights, num_neighbors=4)
    np.testing.assert_array_equal(found, [[0, 2, 1, 3], [1, 2, 0, 3]])


def test_nearest_atoms_are_scipys(rng):
    targets, atoms = rng.normal(size=(40, 6)), 3 + rng.normal(size=(90, 6))
    found = NEAREST(np.float32(targets), np.float32(atoms), np.ones(90), num_neighbors=12)
    np.testing.assert_array_equal(found, np.argsort(cdist(targets, atoms), axis=1)[:, :12])


def test_solve_agrees_with_numpy(rng):
    root = rng.normal(size=(6, 6))
    matrix, vector = root @ root.T + np.eye(6), rng.normal(size=6)
    found = jax.jit(linalg.solve_positive_definite)(np.float32(matrix), np.float32(vector))
    np.testing.assert_allclose(found, np.linalg.solve(matrix, vector), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unroll", [False, True])
def test_elimination_is_as_accurate_as_the_factorisation(unroll, rng):
    """On local Gram matrices of more atoms than features, as ill-conditioned as they come."""
    atoms = np.float32(rng.normal(size=(50, 10, 8)))
    gram = atoms @ atoms.transpose(0, 2, 1)
    gram += np.float32(1e-4) * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(10)
    vector = np.float32(rng.normal(size=(50, 10)))
    expected = np.linalg.solve(np.float64(gram), np.float64(vector)[..., None])[..., 0]

    def worst(solve):
        found = jax.jit(jax.vmap(solve))(gram, vector)
        return np.max(np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1))

    assert worst(partial(linalg.solve_by_elimination, unroll=unroll)) < max(
        1e-4, 3 * worst(linalg.solve_positive_definite)
    )


def test_elimination_of_one_equation():
    found = linalg.solve_by_elimination(jnp.float32([[4.0]]), jnp.float32([2.0]))
    np.testing.assert_array_equal(found, [0.5])
