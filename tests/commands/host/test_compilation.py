import os

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from sgfr_jax.commands import run
from sgfr_jax.commands.host import compilation, machine


@pytest.fixture
def compiled():
    """A list that grows by one with every program that XLA compiles."""
    programs = []

    def listen(event, seconds, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            programs.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield programs
    jax.monitoring.unregister_event_duration_listener(listen)


def test_categories_of_one_shape_compile_once(small, tmp_path, compiled):
    jax.clear_caches()
    for categories in (("cap",), ("cap", "nut")):
        settings = small.replace(categories=categories)
        before = len(compiled)
        run.run(settings, machine.Resources(tmp_path / str(len(categories)), batch_size=4))
    assert len(compiled) == before > 0


@pytest.fixture
def restored(monkeypatch):
    """No word of the environment, and puts back what `keep_in` sets."""
    before = {flag: getattr(jax.config, flag) for flag in compilation.FLAGS}
    for flag in compilation.FLAGS:
        monkeypatch.delenv(flag.upper(), raising=False)
    jax.clear_caches()
    compilation_cache.reset_cache()
    yield
    for flag, value in before.items():
        jax.config.update(flag, value)
    compilation_cache.reset_cache()


def test_programs_are_kept(tmp_path, small, restored):
    compilation.keep_in(tmp_path / "compiled")
    run.run(small, machine.Resources(tmp_path / "out", batch_size=4))
    kept = {path.name.split("-")[0] for path in (tmp_path / "compiled").iterdir()}
    assert {"jit_embed", "jit_stream_maps", "jit_k_center_advance"} <= kept


def test_the_longest_unused_programs_go(tmp_path, restored):
    directory = tmp_path / "compiled"

    def compiled_now(name):
        """Compiles, or finds, a program of that name; returns all that are kept."""
        jax.clear_caches()
        compilation_cache.reset_cache()
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

        def double(x):
            return x * 2

        double.__name__ = name
        jax.jit(double)(np.ones(3))
        return {path.name.split("-")[0]: path for path in directory.iterdir()}

    compilation.keep_in(directory)
    for i, name in enumerate(("first", "second", "third")):
        path = compiled_now(name)[f"jit_{name}"]
        os.utime(path, (1000 + i, 1000 + i))
    mine = directory / "my-cache"
    mine.write_text("no program")
    os.utime(mine, (1, 1))
    compilation.keep_in(directory, limit=int(2.5 * path.stat().st_size))
    assert mine.exists()
    mine.unlink()
    assert {path.name.split("-")[0] for path in directory.iterdir()} == {"jit_second", "jit_third"}
    assert "jit_first" in compiled_now("first")


def test_a_directory_that_is_none_stops_nothing(tmp_path, restored):
    (tmp_path / "file").write_text("")
    compilation.keep_in(tmp_path / "file", limit=0)
    assert (tmp_path / "file").exists()


def test_the_place_that_the_environment_names_is_used_and_not_emptied(
    tmp_path, restored, monkeypatch
):
    theirs, before = tmp_path / "theirs", jax.config.jax_compilation_cache_dir
    theirs.mkdir()
    kept = theirs / f"jit_f-{'0' * 64}-cache"
    kept.write_bytes(b"x" * 99)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(theirs))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
    waiting = jax.config.jax_persistent_cache_min_compile_time_secs
    compilation.keep_in(theirs, limit=0)
    assert kept.exists()
    assert jax.config.jax_compilation_cache_dir == before  # as JAX has read it at its start
    assert jax.config.jax_persistent_cache_min_compile_time_secs == waiting
    assert jax.config.jax_persistent_cache_min_entry_size_bytes == 0
