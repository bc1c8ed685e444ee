import sys
import time

import pytest
from etils import epath

from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.sweeping import events, executors, tasks
from sgfr_jax.metrics import Metrics
from tests.commands.sweeping.small_sweep import go, points


def test_without_the_extra(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match=r"pip install 'sgfr_jax\[tensorboard\]'"):
        go(points(folder), tmp_path / "out", tensorboard=True)


def written(raw):
    """Step, tag and value of every event in a file, which may end within one."""
    from tensorboardX.proto import event_pb2

    place, values = 0, []
    while place < len(raw):  # a length of 8 bytes and its checksum, the event and its checksum
        length = int.from_bytes(raw[place : place + 8], "little")
        if place + 16 + length > len(raw):
            break
        event = event_pb2.Event.FromString(raw[place + 12 : place + 12 + length])
        place += 16 + length
        values += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
    return values


def test_points_become_steps(tmp_path):
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard`")
    task = tasks.Task("grid g, point 1 (seed=3)", "nut", None, "abc")
    defined = dict.fromkeys(Metrics._fields) | {"pixel_ap": 0.25}
    log = events.make_log(epath.Path(tmp_path))
    log(executors.Outcome(task, defined), 2.0)
    log(executors.Outcome(task, error="no"), 3.0)
    (path,) = tmp_path.iterdir()
    values, end = [], time.monotonic() + 60
    while (2, "points_per_second", 3.0) not in values:  # they are written by a thread
        assert time.monotonic() < end, values
        time.sleep(0.2)
        values = written(path.read_bytes())
    assert (1, "nut/pixel_ap", 0.25) in values
    assert (1, "points_per_second", 2.0) in values
    assert [tag for _, tag, _ in values if tag.startswith("nut/")] == ["nut/pixel_ap"]
