import gc
import importlib
import os

import jax
import jaxlib
import numpy as np
import pytest

from sgfr_jax.commands.host import compilation

OPTIMIZATIONS = "jax_disable_most_optimizations"
# XLA's older way to compile for a CPU, which takes half the time; later versions have it no more,
# and abort where a flag is not known.
OLDER_XLA, BEFORE = "--xla_cpu_use_fusion_emitters=false", (0, 11)
THRESHOLD = "jax_persistent_cache_min_compile_time_secs"
# Marks of tests that a plain pytest leaves out.
LONG = ("slow", "promise")
LONGEST = ("test_promises.py", "test_predict.py", "test_update.py")

# A shape that broadcasts by accident is a bug; say so here.
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    """Keeps compiled programs for other tests and the next run: XLA takes most of their time.

    In pytest's cache, or where `JAX_COMPILATION_CACHE_DIR` says.
    """
    if hasattr(config, "cache"):
        compilation.keep_in(config.cache.mkdir("compiled"))
    # Compiling is most of the quick tests' time; CI's others compile as users do.
    if OPTIMIZATIONS.upper() not in os.environ:
        jax.config.update(OPTIMIZATIONS, True)
        os.environ[OPTIMIZATIONS.upper()] = "1"
        if jaxlib.version.__version_info__ < BEFORE:  # read when JAX first looks for devices
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {OLDER_XLA}".strip()
    if THRESHOLD.upper() not in os.environ:  # thousands of small programs, alike in many tests
        jax.config.update(THRESHOLD, 0)
    # Tracing makes many objects that stay: to look through all that there are, as often as Python
    # does, took a tenth of the time.
    gc.set_threshold(10_000)
    for flag in compilation.FLAGS:  # for the processes that this one starts
        os.environ.setdefault(flag.upper(), str(getattr(jax.config, flag)))


def pytest_collection_modifyitems(items):
    """Puts the longest files first, for workers that take files one by one (CI's slow tests).

    Marks the first quick test of every file `main_path`, unless tests of it are marked so.
    """
    items.sort(key=lambda item: item.path.name not in LONGEST)
    by_file = {}
    for item in items:
        by_file.setdefault(item.path, []).append(item)
    for of_file in by_file.values():
        quick = [item for item in of_file if not any(map(item.get_closest_marker, LONG))]
        if quick and not any(item.get_closest_marker("main_path") for item in of_file):
            quick[0].add_marker(pytest.mark.main_path)


@pytest.hookimpl(optionalhook=True)  # where pytest-xdist is not installed
def pytest_xdist_auto_num_workers():
    """How many tests `-n auto` runs at a time: each compiles for itself, with a core or so."""
    return min(os.cpu_count() or 1, 8)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    """The photographs of `small.write_folder`."""
    from tests.small import write_folder

    return write_folder(tmp_path)


@pytest.fixture
def small(folder):
    """A configuration of these that fits in a second or two."""
    from sgfr_jax.commands.flags import config
    from tests.small import SMALL

    return config.resolve(SMALL.replace(data_dir=str(folder)))


@pytest.fixture(scope="module", autouse=True)
def let_go_of_programs():
    """After each file the compiled programs of its methods: hundreds of files have thousands."""
    yield
    for module, cached in (
        ("programs", "_cached"), ("embedding", "make_program"), ("sampling", "_programs"),
        ("growing", "_programs"), ("explaining", "_rebuild"),
    ):  # fmt: skip
        getattr(importlib.import_module(f"sgfr_jax.detector.{module}"), cached).cache_clear()
