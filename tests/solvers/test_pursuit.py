from functools import partial

import jax
import numpy as np
import pytest

from sgfr_jax import solvers
from tests.solvers.cases import bank_of, dense

ATOMS = np.array([[5.0, 0, 0, 0], [0, 0.1, 0, 0], [0, 0, 2, 0], [0, 0, 2, 2]])


def code_of(targets, atoms=ATOMS, **hyperparameters):
    code = partial(solvers.omp, **hyperparameters)
    return jax.jit(code)(np.float32(targets), bank_of(atoms))


def test_worked_by_hand():
    """The choice is by angle, not by product: the second atom is short, and taken first."""
    code = code_of([[1.0, 3, 0, 0]], sparsity=2)
    np.testing.assert_array_equal(code.indices, [[1, 0]])
    np.testing.assert_allclose(code.coefficients, [[30, 0.2]], rtol=1e-5)


def test_stops_when_nothing_is_left():
    targets = np.stack([ATOMS[2], 0 * ATOMS[0], ATOMS[0] + ATOMS[1]])
    code = code_of(targets, sparsity=4)
    np.testing.assert_array_equal(code.indices, [[2, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]])
    expected = [[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]]
    np.testing.assert_allclose(code.coefficients, expected, rtol=1e-5)


def test_stops_at_the_relative_residual_and_not_before(rng):
    atoms, targets = rng.normal(size=(30, 6)), rng.normal(size=(20, 6))
    code = code_of(targets, atoms, sparsity=6, tolerance=0.5)
    for target, indices, coefficients in zip(targets, *code, strict=True):
        chosen = atoms[np.asarray(indices)[np.asarray(coefficients) != 0]]
        for num, enough in ((len(chosen), True), (len(chosen) - 1, False)):
            found = np.linalg.lstsq(chosen[:num].T, target, rcond=None)[0]
            left = np.linalg.norm(target - found @ chosen[:num]) / np.linalg.norm(target)
            assert (left <= 0.5) == enough


def test_no_atom_is_used_twice_even_at_tolerance_zero(rng):
    atoms = rng.normal(size=(8, 6))
    code = code_of(atoms[:5], atoms, sparsity=8, tolerance=0.0)
    for indices, coefficients in zip(code.indices, code.coefficients, strict=True):
        used = np.asarray(indices)[np.asarray(coefficients) != 0]
        assert len(set(used)) == len(used) <= 6  # no more than are independent
    np.testing.assert_allclose(dense(code, 8) @ atoms, atoms[:5], atol=1e-5)


@pytest.mark.parametrize("sparsity", [0, 5])
def test_sparsity_that_the_bank_cannot_give(sparsity):
    with pytest.raises(ValueError, match=f"sparsity={sparsity}, but the bank has 4 atoms"):
        code_of(ATOMS, sparsity=sparsity)


def test_negative_tolerance():
    with pytest.raises(ValueError, match=r"tolerance=-0.1; it must not be negative"):
        code_of(ATOMS, sparsity=1, tolerance=-0.1)
