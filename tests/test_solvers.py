from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from sgfr_jax import solvers, types

RIDGE = 1e-3
SOLVERS = {
    "affine_ridge": partial(solvers.affine_ridge, ridge=RIDGE),
    "ridge": partial(solvers.ridge, ridge=RIDGE),
    "nearest": solvers.nearest,
}


def affine_reference(target, support):
    """The constrained problem's own optimality conditions, in float64."""
    num = len(support)
    scale = np.mean(np.sum((target - support) ** 2, axis=1))
    system = np.zeros((num + 1, num + 1))
    system[:num, :num] = support @ support.T + RIDGE * scale * np.eye(num)
    system[num, :num] = system[:num, num] = 1
    return np.linalg.solve(system, np.append(support @ target, 1.0))[:num]


def ridge_reference(target, support):
    """Ridge as the least-squares problem with extra rows that it is, in float64."""
    num = len(support)
    penalty = RIDGE * np.mean(np.sum(support**2, axis=1))
    rows = np.vstack([support.T, np.sqrt(penalty) * np.eye(num)])
    return np.linalg.lstsq(rows, np.append(target, np.zeros(num)), rcond=None)[0]


def nearest_reference(target, support):
    return np.eye(len(support))[0]


REFERENCES = {
    "affine_ridge": affine_reference,
    "ridge": ridge_reference,
    "nearest": nearest_reference,
}


def bank_of(atoms, weights=None):
    atoms = jnp.asarray(atoms, jnp.float32)
    weights = jnp.ones(len(atoms)) if weights is None else jnp.asarray(weights, jnp.float32)
    return types.Bank(atoms, weights, jnp.arange(len(atoms)))


def code_of(name, targets, bank, num_neighbors):
    code = partial(solvers.local_code, num_neighbors=num_neighbors, solve=SOLVERS[name])
    return jax.jit(code)(targets, bank)


def rebuild(atoms, code):
    return np.einsum("nk,nkd->nd", code.coefficients, np.asarray(atoms)[code.indices])


@pytest.mark.parametrize("name", SOLVERS)
class TestEverySolver:
    @pytest.mark.parametrize("num,size", [(1, 5), (4, 5), (10, 64), (20, 344)])
    def test_agrees_with_an_independent_solution(self, rng, name, num, size):
        target, support = rng.normal(size=size), rng.normal(size=(num, size))
        solve = jax.jit(SOLVERS[name])
        found = solve(jnp.float32(target), jnp.float32(support), jnp.ones(num, bool))
        np.testing.assert_allclose(found, REFERENCES[name](target, support), rtol=2e-4, atol=2e-5)

    def test_next_to_nothing_is_left_of_an_atom(self, rng, name):
        atoms = rng.normal(size=(30, 12))
        code = code_of(name, jnp.float32(atoms[:5]), bank_of(atoms), 4)
        # The atom itself would cost its penalty alone, so the optimum costs no more:
        # |r|^2 <= ridge times the mean square that the penalty is relative to.
        error = np.linalg.norm(rebuild(atoms, code) - atoms[:5], axis=1)
        support = atoms[code.indices]
        scale = {
            "affine_ridge": np.mean(np.sum((support - atoms[:5, None]) ** 2, axis=-1), axis=1),
            "ridge": np.mean(np.sum(support**2, axis=-1), axis=1),
            "nearest": np.zeros(5),
        }[name]
        assert (error**2 <= 1.01 * RIDGE * scale + 1e-12).all()

    def test_order_of_atoms_does_not_matter(self, rng, name):
        atoms, targets = rng.normal(size=(20, 6)), jnp.float32(rng.normal(size=(8, 6)))
        order = rng.permutation(20)
        codes = [code_of(name, targets, bank_of(a), 5) for a in (atoms, atoms[order])]
        np.testing.assert_allclose(
            rebuild(atoms, codes[0]), rebuild(atoms[order], codes[1]), atol=1e-4
        )

    def test_padding_changes_nothing(self, rng, name):
        atoms, targets = rng.normal(size=(6, 4)), jnp.float32(rng.normal(size=(5, 4)))
        # More neighbours than atoms once padded: the padding must get no weight.
        padded = bank_of(np.vstack([atoms, np.zeros((3, 4))]), [1] * 6 + [0] * 3)
        plain = code_of(name, targets, bank_of(atoms), 6)
        found = code_of(name, targets, padded, 8)
        np.testing.assert_array_equal(found.coefficients[:, 6:], 0)
        np.testing.assert_allclose(found.coefficients[:, :6], plain.coefficients, atol=1e-4)

    def test_duplicate_atoms_and_constant_targets_stay_finite(self, name):
        for value in (0.0, 1.0):
            atoms = np.full((5, 3), value)
            code = code_of(name, jnp.full((2, 3), value), bank_of(atoms), 5)
            assert np.isfinite(code.coefficients).all()
            np.testing.assert_allclose(rebuild(atoms, code), value, atol=2e-3)

    def test_nan_in_one_target_stays_there(self, rng, name):
        atoms, targets = rng.normal(size=(9, 4)), np.float32(rng.normal(size=(3, 4)))
        targets[1] = np.nan
        code = code_of(name, jnp.asarray(targets), bank_of(atoms), 4)
        assert np.isfinite(np.asarray(code.coefficients)[[0, 2]]).all()
        left = targets - rebuild(atoms, code)
        assert np.isnan(left[1]).all()

    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
    def test_half_precision_is_computed_in_float32(self, rng, name, dtype):
        atoms, targets = (jnp.asarray(rng.normal(size=(n, 5)), dtype) for n in (12, 4))
        bank = types.Bank(atoms, jnp.ones(12), jnp.arange(12))
        found = code_of(name, targets, bank, 3)
        expected = code_of(name, jnp.float32(targets), bank_of(jnp.float32(atoms)), 3)
        assert found.coefficients.dtype == jnp.float32
        np.testing.assert_allclose(found.coefficients, expected.coefficients, atol=1e-5)

    def test_new_values_do_not_compile_again(self, rng, name):
        code = jax.jit(partial(solvers.local_code, num_neighbors=3, solve=SOLVERS[name]))
        for _ in range(3):
            code(jnp.float32(rng.normal(size=(4, 5))), bank_of(rng.normal(size=(7, 5))))
        assert code._cache_size() == 1

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 2**31), scale=st.floats(1e-2, 1e2))
    def test_codes_do_not_depend_on_the_unit(self, name, seed, scale):
        rng = np.random.default_rng(seed)
        target, support = rng.normal(size=8), rng.normal(size=(4, 8))
        codes = [
            SOLVERS[name](jnp.float32(s * target), jnp.float32(s * support), jnp.ones(4, bool))
            for s in (1.0, scale)
        ]
        np.testing.assert_allclose(codes[0], codes[1], rtol=1e-3, atol=1e-3)


def test_affine_coefficients_sum_to_one_and_follow_a_shift(rng):
    target, support = rng.normal(size=6), rng.normal(size=(4, 6))
    solve = SOLVERS["affine_ridge"]
    found = solve(jnp.float32(target), jnp.float32(support), jnp.ones(4, bool))
    shifted = solve(jnp.float32(target + 3), jnp.float32(support + 3), jnp.ones(4, bool))
    assert np.sum(found) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found, shifted, atol=1e-4)


def test_affine_ridge_with_one_atom_is_the_nearest_neighbour(rng):
    atoms, targets = rng.normal(size=(20, 6)), jnp.float32(rng.normal(size=(8, 6)))
    one, nearest = (
        code_of(name, targets, bank_of(atoms), 1) for name in ("affine_ridge", "nearest")
    )
    np.testing.assert_array_equal(one.indices, nearest.indices)
    np.testing.assert_allclose(one.coefficients, nearest.coefficients, rtol=1e-6)


def test_a_code_reaches_what_no_atom_does(rng):
    """The idea of the method: a mixture that was never stored leaves almost no residual."""
    corners = rng.normal(size=(3, 16))
    mixture = jnp.float32([0.5, 0.3, 0.2] @ corners)[None]
    code, nearest = (
        code_of(name, mixture, bank_of(corners), 3) for name in ("affine_ridge", "nearest")
    )
    left, left_by_nearest = (np.linalg.norm(mixture - rebuild(corners, c)) for c in (code, nearest))
    assert left < 0.01 * left_by_nearest


@pytest.mark.parametrize("name", ["affine_ridge", "ridge"])
def test_gradients_agree_with_finite_differences(rng, name):
    support = rng.normal(size=(3, 5))

    def left(target, support):
        coefficients = SOLVERS[name](target, support, jnp.ones(3, bool))
        return jnp.sum((target - coefficients @ support) ** 2)

    target = jnp.float32(rng.normal(size=5))
    check_grads(left, (target, jnp.float32(support)), order=1, modes=["rev"], rtol=0.02, atol=0.02)


class TestMistakes:
    def test_more_neighbours_than_atoms(self):
        with pytest.raises(ValueError, match="num_neighbors=4, but the bank has 3 atoms"):
            solvers.local_code(
                jnp.ones((2, 5)), bank_of(np.ones((3, 5))), num_neighbors=4, solve=solvers.nearest
            )

    def test_features_that_differ(self):
        with pytest.raises(ValueError, match=r"\(2, 4\) and atoms \(3, 5\)"):
            solvers.local_code(
                jnp.ones((2, 4)), bank_of(np.ones((3, 5))), num_neighbors=1, solve=solvers.nearest
            )

    @pytest.mark.parametrize("solve", [solvers.affine_ridge, solvers.ridge])
    def test_penalty_that_is_not_positive(self, solve):
        with pytest.raises(ValueError, match="ridge=0"):
            solve(jnp.ones(3), jnp.ones((2, 3)), jnp.ones(2, bool), ridge=0)
