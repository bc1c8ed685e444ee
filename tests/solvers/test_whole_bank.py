from functools import partial

import jax
import numpy as np
import pytest

from sgfr_jax import solvers
from tests.solvers import references
from tests.solvers.cases import bank_of

RIDGE = jax.jit(solvers.whole_bank_ridge)


@pytest.mark.parametrize("num_atoms", [5, 12, 30])
@pytest.mark.parametrize("ridge", [1e-4, 1.0])
def test_agrees_with_least_squares_from_either_side(rng, num_atoms, ridge):
    atoms, targets = rng.normal(size=(num_atoms, 12)), rng.normal(size=(4, 12))
    found = RIDGE(np.float32(targets), bank_of(atoms), ridge=ridge)
    assert found.indices is None
    expected = references.on_all(partial(references.ridge, ridge=ridge), targets, atoms)
    np.testing.assert_allclose(found.coefficients, expected, atol=2e-3 if ridge < 1 else 1e-5)
    # The residual is what counts, and does not feel the conditioning.
    np.testing.assert_allclose(np.float64(found.coefficients) @ atoms, expected @ atoms, atol=2e-5)


def test_residual_survives_atoms_that_are_much_alike(rng):
    """The Gram matrix has condition 1e6 here: refining must bring the digits back."""
    atoms = np.ones((600, 20)) + 0.1 * rng.normal(size=(600, 20))
    targets = np.ones((4, 20)) + 0.1 * rng.normal(size=(4, 20))
    found = RIDGE(np.float32(targets), bank_of(atoms), ridge=1e-3)
    expected = references.on_all(partial(references.ridge, ridge=1e-3), targets, atoms)
    np.testing.assert_allclose(
        targets - np.float64(found.coefficients) @ atoms, targets - expected @ atoms, atol=2e-5
    )


# Which sum in other orders.
@pytest.mark.parametrize("code", [RIDGE, solvers.whole_bank_ridge], ids=["compiled", "eager"])
@pytest.mark.parametrize("num_distinct", [1, 2, 10])
@pytest.mark.parametrize("ridge", [1e-2, 1e-3, 2e-4])
def test_equal_atoms_by_the_hundred(rng, ridge, num_distinct, code):
    """Of unit norm: their Gram matrix is singular, and rounds to more than the penalty."""
    distinct = rng.normal(size=(num_distinct, 64))
    distinct /= np.linalg.norm(distinct, axis=1, keepdims=True)
    atoms = np.float32(np.repeat(distinct, 1000 // num_distinct, axis=0)).astype(np.float64)
    targets = np.concatenate([distinct, rng.normal(size=(13 - num_distinct, 64)) / 8])
    found = code(np.float32(targets), bank_of(atoms), ridge=ridge)
    penalty = ridge * np.mean(np.sum(atoms**2, axis=1))
    left = penalty * np.linalg.solve(atoms.T @ atoms + penalty * np.eye(64), targets.T).T
    np.testing.assert_allclose(
        targets - np.float64(found.coefficients) @ atoms, left, atol=200 * np.finfo(np.float32).eps
    )


@pytest.mark.parametrize("num_atoms", [1000, 4000, 20000])
def test_equal_atoms_stay_finite_however_small_the_penalty(rng, num_atoms):
    atoms = np.tile(rng.normal(size=64) / 8, (num_atoms, 1))
    found = RIDGE(np.eye(3, 64, dtype=np.float32), bank_of(atoms), ridge=1e-6)
    assert np.isfinite(found.coefficients).all()


def test_penalty_that_is_not_positive():
    with pytest.raises(ValueError, match="ridge=0; it must be positive"):
        solvers.whole_bank_ridge(np.ones((2, 3)), bank_of(np.ones((4, 3))), ridge=0)
