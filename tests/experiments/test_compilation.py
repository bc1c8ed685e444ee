import dataclasses

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from experiments import compilation, run


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
    counts = []
    for categories in (("cap",), ("cap", "nut")):
        jax.clear_caches()
        compiled.clear()
        settings = dataclasses.replace(small, categories=categories)
        run.run(settings, run.Resources(tmp_path / str(len(categories)), batch_size=4))
        counts.append(len(compiled))
    assert counts[0] == counts[1] > 0


def test_programs_are_kept(tmp_path, small):
    flags = [
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    ]
    before = {flag: getattr(jax.config, flag) for flag in flags}
    try:
        jax.clear_caches()
        compilation_cache.reset_cache()
        compilation.keep_in(tmp_path / "compiled")
        run.run(small, run.Resources(tmp_path / "out", batch_size=4))
        kept = {path.name.split("-")[0] for path in (tmp_path / "compiled").iterdir()}
        assert {"jit_embed", "jit_score", "jit_k_center_advance"} <= kept
    finally:
        for flag, value in before.items():
            jax.config.update(flag, value)
        compilation_cache.reset_cache()
