import os

import jax
import numpy as np
import pytest

# A shape that broadcasts by accident is a bug; say so here.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.hookimpl(optionalhook=True)  # where pytest-xdist is not installed
def pytest_xdist_auto_num_workers():
    """How many tests `-n auto` runs at a time: each compiles for itself, with a core or so."""
    return min(os.cpu_count() or 1, 8)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
