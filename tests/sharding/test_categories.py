from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import pipeline, samplers, sharding, solvers

CODE = partial(solvers.local_code, num_neighbors=4, solve=partial(solvers.affine_ridge, ridge=1e-3))


@pytest.mark.slow
def test_categories_together_are_what_they_are_alone(rng):
    patches = [jnp.float32(rng.normal(size=(n, 6))) for n in (90, 41, 12)]
    stacked, weights = sharding.stack_categories(patches)
    fit = {"sample": samplers.greedy_k_center, "num_atoms": 12}
    key = jax.random.key(2)
    banks = jax.jit(partial(sharding.fit_categories, **fit))(key, stacked, weights)
    scores = jax.jit(partial(sharding.score_categories, code=CODE, chunk_size=32))(banks, stacked)
    for i, alone in enumerate(patches):
        bank = pipeline.fit(key, alone, jnp.ones(len(alone)), **fit)
        np.testing.assert_array_equal(banks.indices[i], bank.indices)
        np.testing.assert_array_equal(banks.atoms[i], bank.atoms)
        expected = jax.jit(partial(pipeline.score, code=CODE))(bank, alone)
        np.testing.assert_allclose(scores[i, : len(alone)], expected, atol=1e-5)


def test_categories_must_share_their_features():
    with pytest.raises(ValueError, match="one D"):
        sharding.stack_categories([jnp.zeros((3, 2)), jnp.zeros((3, 4))])
    for ranks in ([jnp.zeros((3, 2, 2)), jnp.zeros((4, 2, 2))], [jnp.zeros((3, 2)), jnp.zeros(2)]):
        with pytest.raises(ValueError, match="one D"):
            sharding.stack_categories(ranks)
    with pytest.raises(ValueError, match="one D"):
        sharding.stack_categories([])
