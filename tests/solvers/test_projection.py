from functools import partial

import jax
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sgfr_jax import solvers, types
from tests.solvers import references
from tests.solvers.cases import bank_of, dense

# A line through (0, 5), a plane's second axis through the origin, and padding.
SUBSPACES = types.Subspaces(
    bases=np.float32([[[1, 0], [0, 0]], [[0, 1], [0, 0]], [[1, 0], [0, 1]]]),
    means=np.float32([[0, 5], [0, 0], [1, 1]]),
    weights=np.float32([1, 1, 0]),
)

CODERS = (
    (jax.jit(partial(solvers.omp, sparsity=3)), partial(references.omp, sparsity=3)),
    (
        jax.jit(partial(solvers.whole_bank_ridge, ridge=1e-2)),
        partial(references.ridge, ridge=1e-2),
    ),
)
SUBSPACE_BANK = jax.jit(types.subspace_bank)
PROJECT = jax.jit(solvers.project, static_argnames="rank")


def drawn(rng, num, rank, num_features, affine=True):
    bases = np.linalg.qr(rng.normal(size=(num, num_features, rank)))[0].transpose(0, 2, 1)
    means = rng.normal(size=(num, num_features)) if affine else np.zeros((num, num_features))
    return types.Subspaces(np.float32(bases), np.float32(means), np.ones(num, np.float32))


def test_bank_of_subspaces_worked_by_hand():
    bank = types.subspace_bank(SUBSPACES)
    atoms = [[0, 5], [1, 0], [0, 0], [0, 0], [0, 1], [0, 0], [0, 0], [0, 0], [0, 0]]
    np.testing.assert_array_equal(bank.atoms, atoms)
    np.testing.assert_array_equal(bank.weights, [1, 1, 0, 0, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(bank.indices, np.full(9, -1))


def test_projection_worked_by_hand():
    targets = np.float32([[7, 4], [1, -3], [7, 0]])
    code = PROJECT(targets, SUBSPACE_BANK(SUBSPACES), rank=2)
    np.testing.assert_array_equal(code.indices, [[0, 1, 2], [3, 4, 5], [0, 1, 2]])
    np.testing.assert_allclose(code.coefficients, [[1, 7, 0], [0, -3, 0], [1, 7, 0]], atol=1e-6)


def test_one_linear_subspace_leaves_the_residual_of_principal_components(rng):
    subspaces, targets = drawn(rng, 1, 3, 6, affine=False), rng.normal(size=(5, 6))
    bank = SUBSPACE_BANK(subspaces)
    found = dense(PROJECT(np.float32(targets), bank, rank=3), 4) @ np.asarray(bank.atoms)
    basis = np.float64(subspaces.bases[0])
    np.testing.assert_allclose(found, targets @ basis.T @ basis, atol=1e-5)


def test_of_rank_zero_is_the_nearest_mean(rng):
    means, targets = rng.normal(size=(5, 3)), rng.normal(size=(7, 3))
    found = PROJECT(np.float32(targets), bank_of(means), rank=0)
    nearest = cdist(targets, means).argmin(axis=1)
    np.testing.assert_array_equal(found.indices, nearest[:, None])
    np.testing.assert_array_equal(found.coefficients, 1)


@pytest.mark.parametrize("affine", [True, False])
def test_any_coder_runs_over_concatenated_bases(rng, affine):
    """Of linear subspaces the zero means are padding, which no coder touches."""
    subspaces, targets = drawn(rng, 4, 2, 9, affine), rng.normal(size=(5, 9))
    bank = jax.device_get(SUBSPACE_BANK(subspaces))
    used = np.flatnonzero(bank.weights)
    assert len(used) == (12 if affine else 8)
    atoms = np.float64(bank.atoms)[used]
    for code, reference in CODERS:
        found = dense(code(np.float32(targets), bank), 12)
        expected = references.on_all(reference, targets, atoms)
        np.testing.assert_allclose(found[:, used], expected, atol=1e-4)
        np.testing.assert_array_equal(np.delete(found, used, axis=1), 0)


@pytest.mark.parametrize("rank", [-1, 3])
def test_rank_of_another_bank(rank):
    with pytest.raises(ValueError, match=f"rank={rank}, but the bank's 9 atoms"):
        solvers.project(np.ones((1, 2), np.float32), SUBSPACE_BANK(SUBSPACES), rank=rank)
