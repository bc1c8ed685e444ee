from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import binding, pipeline, samplers, solvers, types


def coder(ridge, binder=binding.bind):
    return binder(
        solvers.local_code, num_neighbors=2, solve=binder(solvers.affine_ridge, ridge=ridge)
    )


def test_equal_coders_compile_once(rng):
    atoms, targets = jnp.float32(rng.normal(size=(8, 3))), jnp.float32(rng.normal(size=(5, 3)))
    bank = types.Bank(atoms, jnp.ones(8), jnp.arange(8))

    def of_this_test(bank, targets, *, code):  # JAX counts the programs of a function, whoever's
        return pipeline.score(bank, targets, code=code)

    score = jax.jit(of_this_test, static_argnames="code")
    first = score(bank, targets, code=coder(1e-3))
    np.testing.assert_array_equal(score(bank, targets, code=coder(1e-3)), first)
    assert score._cache_size() == 1
    expected = score(bank, targets, code=coder(1e-1, partial))
    np.testing.assert_array_equal(score(bank, targets, code=coder(1e-1)), expected)
    assert score._cache_size() == 3  # one for the partial, one for the other ridge


def test_what_is_bound_is_compared_by_value():
    one = binding.bind(samplers.k_medoids, num_iterations=2, start=samplers.uniform)
    same = binding.bind(samplers.k_medoids, start=samplers.uniform, num_iterations=2)
    assert one == same and hash(one) == hash(same)
    assert one != binding.bind(samplers.k_medoids, start=samplers.uniform, num_iterations=3)
    assert one != binding.bind(samplers.k_medoids, num_iterations=2)
    assert coder(1e-3) == coder(1e-3) != coder(1e-2)


def test_a_keyword_given_again_counts():
    bound = binding.bind(dict, a=1, b=2)
    assert bound(b=3, c=4) == {"a": 1, "b": 3, "c": 4}


def test_what_has_no_hash_is_refused():
    for value in (jnp.float32(1e-3), [1]):
        with pytest.raises(ValueError, match=r"ridge=.* has no hash.*functools\.partial"):
            binding.bind(solvers.affine_ridge, ridge=value)
