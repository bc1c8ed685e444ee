from functools import partial

import jax
import numpy as np
import pytest

from sgfr_jax import solvers

AFFINE = jax.jit(partial(solvers.affine_ridge, ridge=1e-3))
SOLVERS = [solvers.affine_ridge, solvers.ridge]


@partial(jax.jit, static_argnums=0)
def solved(solve, targets, supports, ridge):
    valid = np.ones(supports.shape[1], bool)
    return jax.vmap(lambda target, support: solve(target, support, valid, ridge=ridge))(
        targets, supports
    )


def test_affine_coefficients_sum_to_one_and_follow_a_shift(rng):
    target, support = rng.normal(size=6), rng.normal(size=(4, 6))
    valid = np.ones(4, bool)
    found = AFFINE(np.float32(target), np.float32(support), valid)
    shifted = AFFINE(np.float32(target + 3), np.float32(support + 3), valid)
    assert np.sum(found) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found, shifted, atol=1e-4)


def test_a_target_that_is_its_whole_support_gets_equal_coefficients():
    found = AFFINE(*map(np.float32, (np.ones(6), np.ones((4, 6)))), np.ones(4, bool))
    np.testing.assert_allclose(found, 0.25)


@pytest.mark.parametrize("solve", SOLVERS)
@pytest.mark.parametrize("penalty", [1e-6, 1e-20])
def test_dependent_atoms_however_small_the_penalty(rng, solve, penalty):
    """A hundred of rank 2, duplicates of twenty, and all but equal."""
    plane = rng.normal(size=(100, 2)) @ rng.normal(size=(2, 64))
    repeated = np.tile(rng.normal(size=(20, 64)), (5, 1))
    supports = np.stack([plane, repeated, 1 + 1e-4 * rng.normal(size=(100, 64))])
    targets = supports[:, 0] + rng.normal(size=(3, 64))
    found, least = (
        solved(solve, np.float32(targets), np.float32(supports), ridge)
        for ridge in (penalty, 400 * np.finfo(np.float32).eps)
    )
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, least, rtol=1e-5)


@pytest.mark.parametrize("solve", SOLVERS)
@pytest.mark.parametrize("penalty", [0, -1.0, float("nan")])
def test_penalty_that_is_not_positive(solve, penalty):
    with pytest.raises(ValueError, match=f"ridge={penalty}"):
        solve(*map(np.float32, (np.ones(3), np.ones((2, 3)))), np.ones(2, bool), ridge=penalty)
