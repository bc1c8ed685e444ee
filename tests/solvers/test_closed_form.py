from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import solvers


def test_affine_coefficients_sum_to_one_and_follow_a_shift(rng):
    target, support = rng.normal(size=6), rng.normal(size=(4, 6))
    solve = partial(solvers.affine_ridge, ridge=1e-3)
    found = solve(jnp.float32(target), jnp.float32(support), jnp.ones(4, bool))
    shifted = solve(jnp.float32(target + 3), jnp.float32(support + 3), jnp.ones(4, bool))
    assert np.sum(found) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found, shifted, atol=1e-4)


def test_a_target_that_is_its_whole_support_gets_equal_coefficients():
    found = solvers.affine_ridge(jnp.ones(3), jnp.ones((4, 3)), jnp.ones(4, bool), ridge=1e-3)
    np.testing.assert_allclose(found, 0.25)


@pytest.mark.parametrize("solve", [solvers.affine_ridge, solvers.ridge])
@pytest.mark.parametrize("penalty", [1e-6, 1e-20])
def test_dependent_atoms_however_small_the_penalty(rng, solve, penalty):
    """A hundred of rank 2, duplicates of twenty, and all but equal."""
    plane = rng.normal(size=(100, 2)) @ rng.normal(size=(2, 64))
    repeated = np.tile(rng.normal(size=(20, 64)), (5, 1))
    supports = np.stack([plane, repeated, 1 + 1e-4 * rng.normal(size=(100, 64))])
    targets = supports[:, 0] + rng.normal(size=(3, 64))
    valid = jnp.ones(100, bool)
    found, least = (
        jax.vmap(lambda z, a, ridge=ridge: solve(z, a, valid, ridge=ridge))(
            jnp.float32(targets), jnp.float32(supports)
        )
        for ridge in (penalty, 400 * np.finfo(np.float32).eps)
    )
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, least, rtol=1e-5)


@pytest.mark.parametrize("solve", [solvers.affine_ridge, solvers.ridge])
@pytest.mark.parametrize("penalty", [0, -1.0, float("nan")])
def test_penalty_that_is_not_positive(solve, penalty):
    with pytest.raises(ValueError, match=f"ridge={penalty}"):
        solve(jnp.ones(3), jnp.ones((2, 3)), jnp.ones(2, bool), ridge=penalty)
