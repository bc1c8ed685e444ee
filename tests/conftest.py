import os

import jax
import numpy as np
import pytest

from experiments import compilation

# A shape that broadcasts by accident is a bug; say so here.
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    """Keeps compiled programs for other tests and the next run: XLA takes most of their time."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or not hasattr(config, "cache"):
        return
    compilation.keep_in(config.cache.mkdir("compiled"))
    for flag in compilation.FLAGS:  # for the processes that this one starts
        os.environ[flag.upper()] = str(getattr(jax.config, flag))


@pytest.hookimpl(optionalhook=True)  # where pytest-xdist is not installed
def pytest_xdist_auto_num_workers():
    """How many tests `-n auto` runs at a time: each compiles for itself, with a core or so."""
    return min(os.cpu_count() or 1, 8)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
