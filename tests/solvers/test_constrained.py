from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgfr_jax import solvers
from tests.solvers import references

ALL = np.ones(6, bool)
SOLVERS = {
    "nonnegative": jax.jit(solvers.nonnegative),
    "elastic_net": jax.jit(solvers.elastic_net),
}
LASSO = jax.jit(
    jax.vmap(
        lambda target, support, valid, l1: solvers.lasso(target, support, valid, l1=l1),
        in_axes=(0, 0, None, None),
    )
)
NUM = 1000  # problems that are solved at once


def padded(target, support):
    """Filled up with zero features and padding atoms to the one shape that is compiled."""
    (num, num_features), shape = np.shape(support), (6, 5)
    missing = shape[1] - num_features
    support = np.pad(np.float32(support), ((0, shape[0] - num), (0, missing)))
    return np.pad(np.float32(target), (0, missing)), support, np.arange(6) < num


def lasso(target, support, valid, l1):
    """One problem, by the program for many."""
    many = (np.broadcast_to(x, (NUM, *x.shape)) for x in (target, support))
    return np.asarray(LASSO(*many, valid, l1))[0]


def test_nonnegative_worked_by_hand():
    # The first atom alone is best: with the second it would be used negatively.
    found = SOLVERS["nonnegative"](*padded([2, -1], [[1, 0], [1, 1]]))
    np.testing.assert_allclose(found, [2] + [0] * 5, atol=1e-6)


def test_nonnegative_gives_up_on_what_points_away():
    found = SOLVERS["nonnegative"](*padded(-np.ones(3), np.ones((6, 3))))
    np.testing.assert_array_equal(found, 0)


def test_lasso_on_orthogonal_atoms_is_a_soft_threshold():
    found = lasso(*padded([4, -2, 1], np.eye(3)), 0.375)
    np.testing.assert_allclose(found, [2.5, -0.5] + [0] * 4, atol=1e-6)


def test_all_coefficients_are_zero_from_the_largest_penalty_on(rng):
    arguments = padded(rng.normal(size=4), rng.normal(size=(6, 4)))
    np.testing.assert_array_equal(lasso(*arguments, 1.001), 0)
    assert np.any(lasso(*arguments, 0.99))


@pytest.mark.parametrize("l2", [0.0, 1e-2])
def test_agrees_with_scikit_learn(rng, l2):
    target, support = rng.normal(size=5), rng.normal(size=(6, 5))
    arguments = np.float32(target), np.float32(support), ALL
    found = SOLVERS["elastic_net"](*arguments, l1=0.1, l2=l2)
    expected = references.elastic_net(target, support, l1=0.1, l2=l2)
    assert 1 < np.count_nonzero(expected) < 6
    np.testing.assert_allclose(found, expected, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    likeness=st.floats(0, 30),
    l1=st.floats(1e-3, 1),
    l2=st.sampled_from([0.0, 1e-3, 1.0]),
)
def test_solutions_meet_the_optimality_conditions(seed, likeness, l1, l2):
    """Also where atoms are much alike, and depend on each other."""
    rng = np.random.default_rng(seed)
    support = rng.normal(size=(6, 5)) + likeness
    support[5] = support[4]
    support /= np.linalg.norm(support, axis=1, keepdims=True)
    target = rng.normal(size=5) + rng.choice([0, 1, likeness])
    target /= np.linalg.norm(target)
    arguments = np.float32(target), np.float32(support), ALL

    found = np.float64(SOLVERS["nonnegative"](*arguments))
    slopes = support @ (target - found @ support)
    assert (found >= 0).all()
    assert np.max(slopes) < 5e-5
    np.testing.assert_allclose(slopes[found > 0], 0, atol=5e-5)

    found = np.float64(SOLVERS["elastic_net"](*arguments, l1=l1, l2=l2))
    threshold = l1 * np.max(np.abs(support @ target))
    slopes = support @ (target - found @ support) - l2 * found
    # Coefficients in the tens and hundreds round by as much.
    atol = 5e-5 if l1 > 0.1 or l2 else np.clip(3e-5 * np.max(np.abs(found)), 5e-5, 2e-3)
    assert np.max(np.abs(slopes)) < threshold + atol
    used = found != 0
    np.testing.assert_allclose(slopes[used], threshold * np.sign(found[used]), atol=atol)


@pytest.mark.parametrize("likeness", [5, 12, 30])
@pytest.mark.parametrize("l1", [1e-3, 1e-2])
def test_hundreds_of_supports_that_float32_can_hardly_tell_from_dependent_ones(rng, likeness, l1):
    """Signs found with the Gram matrix alone left residuals of ten times the target here."""
    support = rng.normal(size=(NUM, 6, 5)) + likeness
    support[:, 5] = support[:, 4]
    support /= np.linalg.norm(support, axis=2, keepdims=True)
    target = rng.normal(size=(NUM, 5)) + likeness * rng.integers(0, 2, (NUM, 1))
    target /= np.linalg.norm(target, axis=1, keepdims=True)
    found = np.float64(LASSO(np.float32(target), np.float32(support), ALL, l1))
    left = target - np.einsum("nk,nkd->nd", found, support)
    slopes = np.einsum("nkd,nd->nk", support, left)
    largest = np.max(np.abs(np.einsum("nkd,nd->nk", support, target)), axis=1)
    assert np.max(np.max(np.abs(slopes), axis=1) - l1 * largest) < 2e-3
    np.testing.assert_array_less(np.linalg.norm(left, axis=1), 1 + 1e-3)


class TestMistakes:
    @pytest.mark.parametrize("solve", [partial(solvers.elastic_net, l2=0.0), solvers.lasso])
    def test_l1_that_is_not_positive(self, solve):
        with pytest.raises(ValueError, match=r"l1=0; it must be positive.*`ridge`"):
            solve(np.ones(3), np.ones((6, 3)), ALL, l1=0)

    def test_negative_l2(self):
        with pytest.raises(ValueError, match="l2=-1; it must not be negative"):
            solvers.elastic_net(np.ones(3), np.ones((6, 3)), ALL, l1=0.1, l2=-1)
