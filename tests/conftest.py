import jax
import numpy as np
import pytest

# A shape that broadcasts by accident is a bug; say so here.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def rng():
    return np.random.default_rng(0)
