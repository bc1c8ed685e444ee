from functools import partial

import jax
import numpy as np
import pytest

from sgfr_jax import solvers, subspaces, types
from tests.solvers.cases import dense

KEY = jax.random.key(0)
NUM = 250  # points to learn from
OMP = partial(solvers.omp, sparsity=2)
RIDGE = partial(solvers.whole_bank_ridge, ridge=1e-2)


LEARN = jax.jit(
    subspaces.dictionary,
    static_argnames=("num_atoms", "code", "num_steps", "batch_size", "learning_rate"),
)


def learn(points, weights=None, **numbers):
    """With the numbers that nearly all tests share, and so the program."""
    weights = np.ones(len(points)) if weights is None else weights
    shared = {"num_atoms": 10, "code": RIDGE, "num_steps": 300, "batch_size": 64}
    numbers = {**shared, "learning_rate": 1e-2, **numbers}
    return jax.device_get(LEARN(KEY, np.float32(points), np.float32(weights), **numbers))


def error(points, bank, code):
    found = dense(jax.jit(code)(np.float32(points), bank), len(bank.atoms))
    return np.mean(np.sum((points - found @ bank.atoms) ** 2, axis=1))


@pytest.fixture
def points(rng):
    """Sparse combinations of ten unit-norm atoms, which the points themselves are not."""
    atoms = rng.normal(size=(10, 12))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    pairs = np.stack([rng.permutation(10)[:2] for _ in range(300)])
    return np.einsum("nk,nkd->nd", 0.5 + rng.random((300, 2)), atoms[pairs])


@pytest.mark.parametrize("code", [OMP, RIDGE], ids=["omp", "whole_bank_ridge"])
def test_atoms_serve_points_that_were_not_drawn(points, code):
    train, held_out = points[:NUM], points[NUM:]
    before = learn(train, num_steps=0)
    after = learn(train, code=code)
    assert error(held_out, after, code) < 0.6 * error(held_out, before, code)


def test_atoms_have_unit_norm_and_are_no_patches(points):
    bank = learn(points[:NUM])
    np.testing.assert_allclose(np.linalg.norm(bank.atoms, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(bank.indices, -np.ones(10))
    np.testing.assert_array_equal(bank.weights, np.ones(10))


def test_one_plain_step_by_hand():
    """One point, one atom, code `c = x.a`: Adam's first step moves every entry by the rate."""
    point = np.array([0.6, 0.8])

    def product(targets, bank):
        del bank
        return types.Code(None, targets[:, :1])  # c = 0.6, whatever the atom is

    bank = learn(point[None], num_atoms=1, code=product, num_steps=1, learning_rate=0.1)
    # The gradient -2 c (x - c a) at a = x is along -x: both entries grow by 0.1.
    expected = (point + 0.1) / np.linalg.norm(point + 0.1)
    np.testing.assert_allclose(bank.atoms[0], expected, rtol=1e-4)


def test_padding_changes_nothing(points):
    padded = np.concatenate([points[:NUM], np.full((50, 12), np.nan)])
    plain, found = learn(points[:NUM]), learn(padded, np.arange(NUM + 50) < NUM)
    np.testing.assert_allclose(found.atoms, plain.atoms, atol=1e-4)


def test_one_seed_one_result(points):
    first, second = (learn(points[:NUM]).atoms for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_degenerate_points_are_finite():
    same = learn(np.ones((NUM, 12)))
    assert np.isfinite(same.atoms).all()
    np.testing.assert_array_equal(same.weights, np.ones(10))
    few = learn(np.eye(NUM, 12) * (np.arange(12) < 4))
    np.testing.assert_array_equal(few.weights, [1] * 4 + [0] * 6)
    np.testing.assert_array_equal(few.atoms[4:], np.zeros((6, 12)))
    assert np.isfinite(few.atoms).all()
    nothing = learn(np.ones((NUM, 12)), np.zeros(NUM))
    np.testing.assert_array_equal(nothing.atoms, np.zeros((10, 12)))


@pytest.mark.parametrize(
    "numbers,message",
    [
        ({"num_atoms": 0}, "num_atoms=0 of 12"),
        ({"num_atoms": 13}, "num_atoms=13 of 12"),
        ({"num_atoms": 2, "num_steps": -1}, "num_steps=-1"),
        ({"num_atoms": 2, "batch_size": 0}, "batch_size=0"),
        ({"num_atoms": 2, "learning_rate": 0.0}, "learning_rate=0"),
    ],
)
def test_what_is_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        learn(np.ones((12, 4)), **numbers)
