from functools import partial

import jax
import numpy as np
import pytest

from sgfr_jax import solvers
from tests.solvers import references
from tests.solvers.cases import bank_of, dense

L1, L2 = 0.05, 1e-3
# No optimum of `problem` needs more.
MAX_ATOMS = 16
# Only `max_atoms` gives a shape; all else may be traced.
SOLVE = jax.jit(solvers.elastic_net_solution, static_argnames="max_atoms")


@pytest.fixture(scope="module")
def problem():
    """Of twelve features; zeros leave room for another problem in the same program."""
    rng = np.random.default_rng(3)
    return tuple(np.pad(rng.normal(size=(num, 12)) + 1, ((0, 0), (0, 12))) for num in (8, 60))


def solve(targets, atoms, l2=L2, max_iterations=50, tolerance=1e-5):
    return SOLVE(
        np.float32(targets),
        bank_of(atoms),
        l1=L1,
        l2=l2,
        max_atoms=MAX_ATOMS,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )


def objectives(targets, atoms, coefficients, l2):
    thresholds = L1 * np.max(np.abs(targets @ atoms.T), axis=1)
    penalty = l2 * np.mean(np.sum(atoms**2, axis=1))
    left = np.sum((targets - coefficients @ atoms) ** 2, axis=1) / 2
    ridge = penalty * np.sum(coefficients**2, axis=1) / 2
    return left + thresholds * np.sum(np.abs(coefficients), axis=1) + ridge


@pytest.mark.parametrize("l2", [0.0, L2])
def test_the_gap_bounds_the_distance_from_the_optimum(problem, l2):
    targets, atoms = problem
    optimal = references.on_all(partial(references.elastic_net, l1=L1, l2=l2), targets, atoms)
    best = objectives(targets, atoms, optimal, l2)
    size = np.sum(targets**2, axis=1) / 2
    gaps = []
    for limit in (1, 2, 50):
        found = solve(targets, atoms, l2=l2, max_iterations=limit)
        assert (found.iterations <= limit).all()
        excess = objectives(targets, atoms, dense(found.code, 60), l2) - best
        assert (excess <= found.gap + 1e-6 * size).all()
        gaps.append(np.max(found.gap / size))
    assert gaps[0] > 1e-3  # so there was something to bound
    assert gaps[-1] < 5e-5
    np.testing.assert_allclose(dense(found.code, 60) @ atoms, optimal @ atoms, atol=2e-3)


def test_stops_at_the_tolerance(problem):
    found = solve(*problem, tolerance=0.5)
    assert (found.gap <= 0.25 * np.sum(problem[0] ** 2, axis=1)).all()
    more = solve(*problem)
    assert (found.iterations <= more.iterations).all()
    assert np.sum(found.iterations) < np.sum(more.iterations)


def test_too_few_atoms_show_in_the_gap(rng):
    """Every feature needs an atom of its own."""
    targets, atoms = 1 + 0.1 * rng.normal(size=(8, 24)), np.eye(60, 24)
    found = solve(targets, atoms)
    assert found.code.indices.shape == (8, MAX_ATOMS)
    assert np.isfinite(found.gap).all()
    assert np.min(found.gap / np.sum(targets**2, axis=1)) > 1e-2


def test_a_zero_target_is_done_at_once(problem):
    found = solve(0 * problem[0], problem[1])
    for array in (found.gap, found.iterations, found.code.coefficients, found.code.indices):
        np.testing.assert_array_equal(array, 0)


@pytest.mark.parametrize(
    "wrong", [{"l1": 0.0}, {"l2": -1.0}, {"tolerance": -1.0}, {"max_atoms": 0}]
)
def test_limits_and_penalties_out_of_range(problem, wrong):
    (name, value), *_ = wrong.items()
    code = partial(solvers.elastic_net_code, **{"l1": L1, "l2": L2, **wrong})
    with pytest.raises(ValueError, match=f"{name}={value}; it must"):
        jax.eval_shape(code, np.float32(problem[0]), bank_of(problem[1]))
