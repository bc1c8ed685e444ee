from typing import NamedTuple

import pytest

from sgfr_jax.commands.flags import config
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.host import memory
from sgfr_jax.detector import streams


class Free(NamedTuple):
    available: int


def test_more_than_there_is_is_refused_with_a_way_out(monkeypatch):
    settings = config.resolve(config.Config.of(layers=("fast",)))
    need = memory.needed(settings, 1000)
    assert need > 4 * 1000 * 256 * 344
    monkeypatch.setattr(memory, "available", lambda: need)
    memory.check(settings, {"cap": 1000, "nut": 3})
    monkeypatch.setattr(memory, "available", lambda: need - 1)
    with pytest.raises(ConfigError, match=r"category cap .* --layers=auto"):
        memory.check(settings, {"cap": 1000, "nut": 3})


def test_what_streams_hold_does_not_grow_with_the_images(monkeypatch):
    settings = config.resolve(config.Config.of())
    need = memory.needed_by_streams(settings, 1000)
    assert need == memory.needed_by_streams(settings, 10**6) > memory.needed_by_streams(settings, 9)
    # All patches of a hundred images and of what is drawn on some.
    features = sum(
        stream.grid**2 * stream.width for stream in streams.plan(settings.method, settings.network)
    )
    assert 8 * 196 * features < need < 10**9
    of_tiles = memory.needed_by_streams(settings, 1000, of_an_image=400)
    assert of_tiles - need == 8 * 300 * features
    memory.check(settings, {"cap": 1000})
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: Free(need - 1))
    with pytest.raises(ConfigError, match=r"category cap .* up to 384 pixels a side.* of --layers"):
        memory.check(settings, {"cap": 1000, "nut": 3})


def test_this_machine_has_some():
    assert memory.available() > 0


@pytest.mark.parametrize("layers", [("auto",), ("fast",)])
def test_a_batch_that_does_not_fit(layers):
    settings = config.resolve(config.Config.of(layers=layers))
    memory.check_batch(settings, 16)
    with pytest.raises(ConfigError, match=r"--batch_size=1000000000 squares of .*: lower it"):
        memory.check_batch(settings, 10**9)
