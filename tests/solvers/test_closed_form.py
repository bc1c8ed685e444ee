from functools import partial

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
@pytest.mark.parametrize("penalty", [0, -1.0, float("nan")])
def test_penalty_that_is_not_positive(solve, penalty):
    with pytest.raises(ValueError, match=f"ridge={penalty}"):
        solve(jnp.ones(3), jnp.ones((2, 3)), jnp.ones(2, bool), ridge=penalty)
