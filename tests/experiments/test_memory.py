import pytest

from experiments import config, memory
from experiments.choices import ConfigError


def test_more_than_there_is_is_refused_with_a_way_out(monkeypatch):
    settings = config.resolve(config.Config(layers=("fast",)))
    need = memory.needed(settings, 1000)
    assert need > 4 * 1000 * 256 * 344
    monkeypatch.setattr(memory, "available", lambda: need)
    memory.check(settings, {"cap": 1000, "nut": 3})
    monkeypatch.setattr(memory, "available", lambda: need - 1)
    with pytest.raises(ConfigError, match=r"category cap .* --sampler=k_center_stream"):
        memory.check(settings, {"cap": 1000, "nut": 3})
    memory.check(
        config.resolve(config.Config(layers=("fast",), sampler="k_center_stream")), {"cap": 1000}
    )


def test_this_machine_has_some():
    assert memory.available() > 0
