from functools import partial

import jax
import numpy as np
import pytest

from sgfr_jax import self_expression, solvers, types
from tests.solvers import references
from tests.solvers.cases import dense

CODERS = {
    "local": partial(
        solvers.local_code, num_neighbors=3, solve=partial(solvers.affine_ridge, ridge=1e-3)
    ),
    "omp": partial(solvers.omp, sparsity=3),
    "ridge": partial(solvers.whole_bank_ridge, ridge=1e-2),
}
REFERENCES = {
    "local": partial(references.on_nearest, partial(references.affine_ridge, ridge=1e-3), 3),
    "omp": partial(references.on_all, partial(references.omp, sparsity=3)),
    "ridge": partial(references.on_all, partial(references.ridge, ridge=1e-2)),
}
LEAVE_ONE_OUT = {
    name: jax.jit(partial(self_expression.leave_one_out, code=code))
    for name, code in CODERS.items()
}


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def bank_of(atoms, indices):
    return types.Bank(atoms, np.ones(len(atoms), np.float32), np.int32(indices))


@pytest.mark.parametrize("name", CODERS)
def test_agrees_with_a_bank_that_never_had_the_atom(rng, name):
    atoms, patches = normal(rng, 8, 5), np.array([4, 9, 2, 0, 7, 1, 11, 3])
    own = np.int32([2, 11, 5, -1])
    targets = np.concatenate([atoms[2:3], atoms[6:7], normal(rng, 2, 5)])
    found = dense(LEAVE_ONE_OUT[name](targets, own, bank_of(atoms, patches)), 8)
    for n in range(4):
        keep = np.flatnonzero(patches != own[n])
        expected = REFERENCES[name](targets[n : n + 1], atoms[keep])[0]
        np.testing.assert_allclose(found[n, keep], expected, atol=2e-5)
        np.testing.assert_array_equal(np.delete(found[n], keep), np.zeros(8 - len(keep)))


def test_dense_adds_what_names_one_atom_twice():
    code = types.Code(np.array([[2, 0, 2], [1, 2, 0]]), np.float32([[1, 5, 3], [1, 2, 4]]))
    found = self_expression.dense(code, 4)
    np.testing.assert_array_equal(found, [[5, 0, 4, 0], [4, 1, 2, 0]])


def test_shapes_that_do_not_fit_are_refused():
    bank = bank_of(np.eye(3, dtype=np.float32), np.arange(3))
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3,\)"):
        self_expression.leave_one_out(np.ones((2, 3)), np.zeros(3, int), bank, code=CODERS["omp"])


@pytest.mark.parametrize("name", CODERS)
def test_atoms_that_are_no_patches_are_left_out_of_nothing(rng, name):
    atoms, targets = normal(rng, 8, 5), normal(rng, 4, 5)
    learned = bank_of(atoms, np.full(8, -1))
    found = LEAVE_ONE_OUT[name](targets, np.int32([-1, 0, 3, -1]), learned)
    np.testing.assert_allclose(dense(found, 8), REFERENCES[name](targets, atoms), atol=2e-5)


def test_rows_of_subspaces_are_no_patches():
    bases = np.eye(4, dtype=np.float32)[None, :2]
    subspaces = types.Subspaces(bases, np.zeros((1, 4), np.float32), np.ones(1, np.float32))
    np.testing.assert_array_equal(types.subspace_bank(subspaces).indices, [-1, -1, -1])
