from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import checks, solvers

AFFINE = partial(solvers.affine_ridge, ridge=1e-3)
RIDGE = partial(solvers.ridge, ridge=1e-3)
LASSO = partial(solvers.lasso, l1=0.1)


def while_tracing(check, **values):
    jax.eval_shape(lambda _: check("such as 1", **values), 0.0)


@pytest.mark.parametrize("kind", [float, np.float32, jnp.float32])
class TestNumbers:
    def test_what_is_right_passes(self, kind):
        while_tracing(checks.positive, ridge=kind(1e-3))
        while_tracing(checks.not_negative, l2=kind(0))

    @pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
    def test_what_is_not_positive(self, kind, value):
        with pytest.raises(ValueError, match=f"ridge={value}; .* positive and finite, such as 1"):
            while_tracing(checks.positive, ridge=kind(value))

    @pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
    def test_what_is_negative(self, kind, value):
        with pytest.raises(ValueError, match=f"l2={value}; .* not be negative or infinite, such"):
            while_tracing(checks.not_negative, l2=kind(value))


@pytest.mark.parametrize("solve", [solvers.nearest, solvers.nonnegative, RIDGE, AFFINE, LASSO])
class TestPenalties:
    @pytest.mark.parametrize("shapes", [((4,), (3, 5), (3,)), ((2, 5), (3, 5), (3,))])
    def test_what_does_not_fit(self, solve, shapes):
        target, support, valid = (jnp.ones(shape) for shape in shapes)
        with pytest.raises(ValueError, match=r"one target \[D\].*\(3, 5\) and \(3,\); map it"):
            solve(target, support, valid > 0)

    def test_integers(self, solve):
        with pytest.raises(ValueError, match=r"support \(3, 5\) are int32.*astype"):
            solve(jnp.ones(5), jnp.ones((3, 5), jnp.int32), jnp.ones(3, bool))


def test_what_is_traced_is_not_known():
    jax.eval_shape(lambda value: checks.positive("such as 1", ridge=value), -1.0)
