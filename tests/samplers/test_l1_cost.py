from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Lasso

from sgfr_jax import samplers, types


def bank_of(atoms, weights=None):
    weights = np.ones(len(atoms)) if weights is None else weights
    return types.Bank(np.float32(atoms), np.float32(weights), np.arange(len(atoms)))


COST = jax.jit(samplers.l1_cost, static_argnames="support_size")
SIZE = 9, 21, 6  # targets, atoms and features of the small tests, which share a program


def small_cost(targets, atoms, weights=None):
    """The cost where targets, atoms and features are filled up to one size with padding."""
    weights = np.ones(len(atoms)) if weights is None else weights
    (num, num_features), num_atoms = np.shape(targets), len(atoms)
    missing = SIZE[2] - num_features
    targets = np.pad(targets, ((0, SIZE[0] - num), (0, missing)))
    atoms = np.pad(atoms, ((0, SIZE[1] - num_atoms), (0, missing)))
    weights = np.pad(weights, (0, SIZE[1] - num_atoms))
    return np.asarray(COST(np.float32(targets), bank_of(atoms, weights)))[:num]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def reference(targets, atoms, fidelity):
    """The cost by scikit-learn, in float64."""
    num_features = targets.shape[1]
    solver = Lasso(1 / (fidelity * num_features), fit_intercept=False, tol=1e-10, max_iter=100000)
    costs = []
    for target in targets:
        found = solver.fit(atoms.T, target).coef_
        residual = target - found @ atoms
        costs.append(fidelity / 2 * residual @ residual + np.abs(found).sum())
    return np.array(costs)


@pytest.mark.parametrize("fidelity", [2.0, 10.0, 100.0])
def test_agrees_with_scikit_learn(rng, fidelity):
    mean = rng.normal(size=12)
    targets, atoms = (unit(rng.normal(size=(num, 12)) + 0.5 * mean) for num in (30, 60))
    found = COST(np.float32(targets), bank_of(atoms), fidelity=fidelity)
    np.testing.assert_allclose(found, reference(targets, atoms, fidelity), rtol=2e-4)


def test_one_atom_by_hand():
    """`min_c 10/2 (sin^2 + (cos - c)^2) + |c|` at `c = cos - 1/10`."""
    atom, angle = np.array([[1.0, 0.0]]), 0.3
    target = np.float32([[np.cos(angle), np.sin(angle)]])
    expected = 5 * (np.sin(angle) ** 2 + 0.1**2) + np.cos(angle) - 0.1
    np.testing.assert_allclose(COST(target, bank_of(atom)), [expected], rtol=1e-5)


def test_bounds_for_unit_norm():
    found = small_cost([[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]], np.eye(4, 5))
    np.testing.assert_allclose(found, [1 - 1 / 20, 5], rtol=1e-6)


def test_padding_atoms_change_nothing(rng):
    targets, atoms = unit(rng.normal(size=(9, 6))), unit(rng.normal(size=(12, 6)))
    expected = COST(np.float32(targets), bank_of(atoms))
    padded = np.concatenate([atoms, targets])
    found = COST(np.float32(targets), bank_of(padded, [1] * 12 + [0] * 9))
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_an_empty_bank_costs_the_whole_target():
    np.testing.assert_allclose(small_cost([[3, 4]], np.ones((2, 2)), [0, 0]), [125])


def test_duplicate_and_zero_atoms_are_finite(rng):
    atom, targets = unit(rng.normal(size=(1, 5))), unit(rng.normal(size=(4, 5)))
    targets[3] = 0
    found = small_cost(targets, np.concatenate([np.tile(atom, (6, 1)), 0 * atom]))
    np.testing.assert_allclose(found, small_cost(targets, atom), rtol=1e-4)


def test_a_small_support_costs_more(rng):
    targets, atoms = unit(rng.normal(size=(30, 12))), unit(rng.normal(size=(60, 12)))
    full, small = (
        np.asarray(COST(np.float32(targets), bank_of(atoms), fidelity=50.0, **size))
        for size in ({}, {"support_size": 2})
    )
    assert (small >= full - 1e-4).all() and (small > full + 1e-2).any()


def test_nan_stays_with_its_target(rng):
    targets, atoms = unit(rng.normal(size=(5, 6))), unit(rng.normal(size=(9, 6)))
    expected = small_cost(targets, atoms).copy()
    targets[2, 3], expected[2] = np.nan, np.nan
    np.testing.assert_allclose(small_cost(targets, atoms), expected, rtol=1e-5)


def test_a_hyperparameter_may_be_an_array_while_tracing():
    cost = partial(samplers.l1_cost, fidelity=jnp.float32(10))
    assert jax.eval_shape(cost, np.ones((2, 3)), bank_of(np.eye(3))).shape == (2,)


def test_what_is_refused():
    bank = bank_of(np.eye(3))
    with pytest.raises(ValueError, match=r"\(2, 4\).*\(3, 3\)"):
        samplers.l1_cost(np.ones((2, 4)), bank)
    with pytest.raises(ValueError, match="fidelity=0"):
        samplers.l1_cost(np.ones((2, 3)), bank, fidelity=0)
    with pytest.raises(ValueError, match=r"empty: atoms \(0, 3\)"):
        samplers.l1_cost(np.ones((2, 3)), bank_of(np.ones((0, 3))))
    with pytest.raises(ValueError, match=r"weights \(2,\) and atoms \(3, 3\)"):
        samplers.l1_cost(np.ones((2, 3)), bank_of(np.eye(3), [1, 1]))
    with pytest.raises(ValueError, match=r"targets \(2, 3\) are int32"):
        samplers.l1_cost(np.ones((2, 3), np.int32), bank)
    with pytest.raises(ValueError, match="support_size=0"):
        samplers.l1_cost(np.ones((2, 3)), bank, support_size=0)


def test_nothing_hides_that_a_cost_cannot_be_told(rng):
    targets, atoms = unit(rng.normal(size=(3, 6))), unit(rng.normal(size=(9, 6)))
    cost = jax.jit(samplers.l1_cost)
    plain = cost(np.float32(targets), bank_of(atoms))
    spoiled = atoms.copy()
    spoiled[4, 1] = np.nan
    assert np.isnan(cost(np.float32(targets), bank_of(spoiled))).all()
    padding = bank_of(spoiled, np.arange(9) != 4)
    assert np.isfinite(cost(np.float32(targets), padding)).all()
    targets[1, 2] = np.nan
    found = cost(np.float32(targets), bank_of(atoms))
    np.testing.assert_array_equal(np.isnan(found), [False, True, False])
    np.testing.assert_allclose(found[::2], plain[::2], rtol=1e-5)
    for scale in (1e-20, 1e-30, 1e30):
        found = cost(np.float32(targets * scale), bank_of(atoms * scale))
        assert np.isnan(found).all()
