import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import reconstruction, types

ATOMS = jnp.float32([[1, 0, 0], [0, 2, 0], [0, 0, 4]])
CODE = types.Code(jnp.array([[0, 1], [2, 2]]), jnp.float32([[3, -1], [0.25, 0.5]]))


def test_reconstruction_worked_by_hand():
    np.testing.assert_allclose(reconstruction.reconstruct(ATOMS, CODE), [[3, -2, 0], [0, 0, 3]])


def test_the_norm_of_a_zero_residual_has_a_gradient():
    gradient = jax.grad(lambda z: reconstruction.residual_norm(z, ATOMS, CODE).sum())
    found = gradient(jnp.float32([[3, 1, 4], [0, 0, 3]]))
    np.testing.assert_allclose(found, [[0, 0.6, 0.8], [0, 0, 0]], rtol=1e-6)


def test_residual_and_its_norm_worked_by_hand():
    targets = jnp.float32([[3, 1, 4], [0, 0, 3]])
    np.testing.assert_allclose(
        reconstruction.residual(targets, ATOMS, CODE), [[0, 3, 4], [0, 0, 0]]
    )
    np.testing.assert_allclose(reconstruction.residual_norm(targets, ATOMS, CODE), [5, 0])


def test_a_code_without_indices_is_over_all_atoms():
    coefficients = jnp.float32([[3, -1, 0], [0, 0, 0.75]])
    code = types.Code(None, coefficients)
    np.testing.assert_allclose(reconstruction.reconstruct(ATOMS, code), [[3, -2, 0], [0, 0, 3]])
    targets = jnp.float32([[3, 1, 4], [0, 0, 3]])
    np.testing.assert_allclose(reconstruction.residual_norm(targets, ATOMS, code), [5, 0])


def test_a_code_of_another_bank_and_other_features_are_refused():
    code = types.Code(None, jnp.ones((2, 5)))
    with pytest.raises(ValueError, match=r"\(2, 5\) without indices .* \(3, 4\)"):
        reconstruction.reconstruct(jnp.ones((3, 4)), code)
    with pytest.raises(ValueError, match=r"targets \(2, 6\) and atoms \(5, 4\)"):
        reconstruction.residual(jnp.ones((2, 6)), jnp.ones((5, 4)), code)
