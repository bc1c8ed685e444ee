import jax
import jax.numpy as jnp
import pytest

from experiments import choices
from sgfr_jax import pipeline, types


@pytest.mark.parametrize("name", choices.SOLVERS)
def test_every_solver_codes(name):
    atoms = jax.random.normal(jax.random.key(0), (12, 4))
    bank = types.Bank(atoms, jnp.ones(12), jnp.arange(12))
    code = choices.make_coder(name, num_neighbors=3, ridge=1e-3)
    assert code(atoms[:5] + 0.1, bank).indices.shape == (5, 1 if name == "nearest" else 3)
    assert pipeline.score(bank, atoms[:5] + 0.1, code=code).shape == (5,)


@pytest.mark.parametrize("name", choices.SAMPLERS)
def test_every_sampler_samples(name):
    sampler = choices.SAMPLERS[name]
    points = jax.random.normal(jax.random.key(0), (30, 4))
    selection = sampler.start(jax.random.key(1), points, jnp.ones(30), 7)
    assert sampler.advance(selection, points, 7).count == 7
