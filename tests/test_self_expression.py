from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import self_expression, solvers, types

CODERS = {
    "local": partial(
        solvers.local_code, num_neighbors=3, solve=partial(solvers.affine_ridge, ridge=1e-3)
    ),
    "omp": partial(solvers.omp, sparsity=3),
    "ridge": partial(solvers.whole_bank_ridge, ridge=1e-2),
}


@pytest.mark.parametrize("code", CODERS.values(), ids=CODERS)
def test_agrees_with_a_bank_that_never_had_the_atom(rng, code):
    atoms, patches = jnp.float32(rng.normal(size=(8, 5))), jnp.array([4, 9, 2, 0, 7, 1, 11, 3])
    bank = types.Bank(atoms, jnp.ones(8), patches)
    own = jnp.array([2, 11, 5, -1], jnp.int32)
    targets = jnp.concatenate([atoms[2:3], atoms[6:7], jnp.float32(rng.normal(size=(2, 5)))])
    found = jax.jit(partial(self_expression.leave_one_out, code=code))(targets, own, bank)
    found = self_expression.dense(found, 8)
    for n in range(4):
        keep = np.flatnonzero(np.asarray(patches) != int(own[n]))
        fewer = types.Bank(atoms[keep], jnp.ones(len(keep)), patches[keep])
        expected = self_expression.dense(code(targets[n : n + 1], fewer), len(keep))[0]
        np.testing.assert_allclose(found[n, keep], expected, atol=2e-5)
        np.testing.assert_array_equal(np.delete(found[n], keep), np.zeros(8 - len(keep)))


def test_dense_adds_what_names_one_atom_twice():
    code = types.Code(jnp.array([[2, 0, 2]]), jnp.float32([[1, 5, 3]]))
    np.testing.assert_array_equal(self_expression.dense(code, 4), [[5, 0, 4, 0]])


def test_shapes_that_do_not_fit_are_refused():
    bank = types.Bank(jnp.eye(3), jnp.ones(3), jnp.arange(3))
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3,\)"):
        self_expression.leave_one_out(jnp.ones((2, 3)), jnp.zeros(3, int), bank, code=CODERS["omp"])


@pytest.mark.parametrize("code", CODERS.values(), ids=CODERS)
def test_atoms_that_are_no_patches_are_left_out_of_nothing(rng, code):
    atoms, targets = jnp.float32(rng.normal(size=(8, 5))), jnp.float32(rng.normal(size=(3, 5)))
    learned = types.Bank(atoms, jnp.ones(8), jnp.full(8, -1))
    found = self_expression.leave_one_out(targets, jnp.array([-1, 0, 3]), learned, code=code)
    expected = self_expression.dense(code(targets, learned), 8)
    np.testing.assert_allclose(self_expression.dense(found, 8), expected, atol=2e-5)


def test_rows_of_subspaces_are_no_patches():
    bases = jnp.eye(4)[None, :2]
    bank = types.subspace_bank(types.Subspaces(bases, jnp.zeros((1, 4)), jnp.ones(1)))
    np.testing.assert_array_equal(bank.indices, [-1, -1, -1])
