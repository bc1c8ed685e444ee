import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax import samplers


def test_uniform_is_uniform():
    draw = jax.vmap(lambda key: samplers.uniform(key, jnp.ones((10, 1)), jnp.ones(10), 3).indices)
    counts = np.bincount(np.ravel(draw(jax.random.split(jax.random.key(0), 4000))), minlength=10)
    np.testing.assert_allclose(counts / 4000, 0.3, atol=0.03)
