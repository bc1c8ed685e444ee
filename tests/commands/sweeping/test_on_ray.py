import os
import sys
from functools import partial

import pytest
from etils import epath

from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.host import machine
from sgfr_jax.commands.sweeping import on_ray
from tests.commands.sweeping.small_sweep import go, points
from tests.commands.sweeping.test_sharing import swept, without_times

ON_TWO = partial(on_ray.execute, address=None, num_cpus=1, num_gpus=0)


def test_without_ray(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"--executor=ray needs Ray: pip install"):
        go(points(folder), tmp_path / "out", execute=ON_TWO)


def test_room_for_workers():
    assert on_ray._room({"CPU": 7.0}, 2, 0) == 3
    assert on_ray._room({"CPU": 7.0, "GPU": 2.0}, 2, 1) == 2
    with pytest.raises(ConfigError, match="--gpus_per_worker=1, but Ray has 0 GPUs"):
        on_ray._room({"CPU": 7.0}, 2, 1)


@pytest.mark.slow
def test_a_local_ray_finds_the_same(folder, tmp_path):
    pytest.importorskip("ray", reason="the extra `ray`")
    assert go(points(folder), tmp_path / "here") == []
    assert go(points(folder), tmp_path / "there", execute=ON_TWO) == []
    here, there = ({r.digest: without_times(r) for r in swept(tmp_path / name)}
                   for name in ("here", "there"))  # fmt: skip
    assert here == there


@pytest.mark.slow
def test_a_worker_of_ray_that_dies_is_replaced(folder, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra `ray`")

    class Dying(on_ray._Remote):
        def run(self, group):
            mark = tmp_path / "died"
            if not mark.exists():
                mark.write_text("")
                os._exit(9)
            return super().run(group)

    monkeypatch.setattr(on_ray, "_Remote", Dying)
    assert go(points(folder), tmp_path / "out", execute=ON_TWO) == []
    assert (tmp_path / "died").exists() and len(swept(tmp_path / "out")) == 8


@pytest.mark.slow
def test_a_group_that_kills_every_worker_is_given_up(folder, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra `ray`")

    class Dying(on_ray._Remote):
        def run(self, group):
            return os._exit(9) if group[0].category == "nut" else super().run(group)

    monkeypatch.setattr(on_ray, "_Remote", Dying)
    failed = go(points(folder), tmp_path / "out", execute=ON_TWO)
    assert len(failed) == 4 and "3 workers died of it" in failed[0]
    assert {record.category for record in swept(tmp_path / "out")} == {"cap"}


@pytest.mark.slow
def test_a_full_disk_on_a_worker(folder, tmp_path):
    pytest.importorskip("ray", reason="the extra `ray`")
    groups_of_nowhere = epath.Path("/dev/null/out")
    from sgfr_jax.commands.sweeping import tasks

    groups = tasks.groups(tasks.plan(points(folder)))[:1]
    with pytest.raises(OSError, match="Not a directory"):
        list(ON_TWO(groups, machine.Resources(tmp_path, batch_size=4), groups_of_nowhere))


@pytest.mark.slow
def test_no_cluster_there(folder, tmp_path):
    pytest.importorskip("ray", reason="the extra `ray`")
    nowhere = partial(on_ray.execute, address="127.0.0.1:1", num_cpus=1, num_gpus=0)
    with pytest.raises(ConfigError, match=r"--address=127\.0\.0\.1:1: Ray cannot be reached"):
        go(points(folder), tmp_path / "out", execute=nowhere)
