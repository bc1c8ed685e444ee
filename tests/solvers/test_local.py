from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import solvers
from tests.solvers.cases import bank_of, dense

LOCAL = jax.jit(solvers.local_code, static_argnames=("num_neighbors", "solve"))


def test_the_support_is_what_the_search_finds(rng):
    atoms, targets = rng.normal(size=(9, 4)), np.float32(rng.normal(size=(3, 4)))

    def first(targets, atoms, weights, *, num_neighbors):
        assert (targets.shape, atoms.shape, weights.shape) == ((3, 4), (9, 4), (9,))
        return jnp.tile(jnp.arange(num_neighbors), (3, 1))

    code = solvers.local_code(
        targets, bank_of(atoms), num_neighbors=2, solve=solvers.nearest, search=first
    )
    np.testing.assert_array_equal(code.indices, [[0, 1]] * 3)
    np.testing.assert_array_equal(code.coefficients, [[1, 0]] * 3)


def test_affine_ridge_with_one_atom_is_the_nearest_neighbour(rng):
    atoms, targets = rng.normal(size=(20, 6)), np.float32(rng.normal(size=(8, 6)))
    one, nearest = (
        LOCAL(targets, bank_of(atoms), num_neighbors=1, solve=solve)
        for solve in (partial(solvers.affine_ridge, ridge=1e-3), solvers.nearest)
    )
    np.testing.assert_array_equal(one.indices, nearest.indices)
    np.testing.assert_allclose(one.coefficients, nearest.coefficients, rtol=1e-6)


def test_a_code_reaches_what_no_atom_does(rng):
    """The idea of the method: a mixture that was never stored leaves almost no residual."""
    corners = rng.normal(size=(3, 16))
    mixture = np.float32([0.5, 0.3, 0.2] @ corners)[None]

    def left(solve):
        code = LOCAL(mixture, bank_of(corners), num_neighbors=3, solve=solve)
        return np.linalg.norm(mixture - dense(code, 3) @ corners)

    affine, nonnegative, nearest = map(
        left,
        (partial(solvers.affine_ridge, ridge=1e-3), solvers.nonnegative, solvers.nearest),
    )
    assert max(affine, nonnegative) < 0.01 * nearest


@pytest.mark.parametrize("num_neighbors", [0, 4])
def test_number_of_neighbours_that_the_bank_cannot_give(num_neighbors):
    code = partial(solvers.local_code, num_neighbors=num_neighbors, solve=solvers.nearest)
    with pytest.raises(ValueError, match=f"{num_neighbors}, but the bank has 3 atoms; use 1 to 3"):
        jax.eval_shape(code, np.ones((2, 5), np.float32), bank_of(np.ones((3, 5))))
