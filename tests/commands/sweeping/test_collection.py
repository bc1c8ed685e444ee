import os
import time

import pytest
from etils import epath

from sgfr_jax.commands.files.records import Record
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.sweeping import collection
from tests.test_unfinished import name_of_the_dead as unfinished_of_the_dead


def record(name="a", **more):
    fields = {
        "category": "nut", "digest": name, "config": {"layers": ["x"]}, "environment": {},
        "results": {"pixel_ap": 0.1 + 0.2}, "baselines": {}, "images": [], "notes": ["ä"],
    }  # fmt: skip
    return Record(**(fields | more))


@pytest.fixture
def workdir(tmp_path):
    found = epath.Path(tmp_path / "out")
    collection.open_workdir(found)
    return found


def test_what_is_kept_is_found(workdir):
    collection.keep(workdir, record("a"))
    collection.keep(workdir, record("b"))
    assert collection.load_some(workdir, ["b", "c"]) == ({"b": record("b")}, {})
    assert collection.load_all(workdir) == ([record("a"), record("b")], {})
    assert sorted(os.listdir(collection.directory(workdir))) == ["a.json", "b.json"]


def test_an_empty_place(tmp_path):
    assert collection.load_all(epath.Path(tmp_path)) == ([], {})


@pytest.mark.parametrize(
    "damage,why",
    [
        (lambda text: text[: len(text) // 2], "cut off"),
        (lambda text: "", "cut off"),
        (lambda text: text.replace("0.30000000000000004", "0.40000000000000004"), "checksum"),
        (lambda text: "[]", "no JSON object"),
        (lambda text: '{"record": {}, "sha256": 1}', "checksum"),
        (lambda text: '{"record": {}}', "no checksum: an earlier version wrote it"),
    ],
)
def test_damage_is_found(workdir, damage, why):
    collection.keep(workdir, record())
    (path,) = collection.directory(workdir).iterdir()
    path.write_text(damage(path.read_text()))
    for found, damaged in (collection.load_some(workdir, ["a"]), collection.load_all(workdir)):
        assert not found and why in damaged[path]


def test_bytes_that_are_no_text(workdir):
    collection.keep(workdir, record())
    (path,) = collection.directory(workdir).iterdir()
    path.write_bytes(b"\xff\xfe" * 9)
    assert "not text" in collection.load_all(workdir)[1][path]


def test_a_full_disk_leaves_nothing_half_written(workdir, monkeypatch):
    collection.keep(workdir, record())

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(workdir), "replace", full)
    with pytest.raises(OSError, match="No space"):
        collection.keep(workdir, record(category="cap"))
    assert collection.load_all(workdir) == ([record()], {})
    assert os.listdir(collection.directory(workdir)) == ["a.json"]


def test_what_killed_workers_left_goes(workdir):
    where = collection.directory(workdir)
    left, others = where / unfinished_of_the_dead("a"), where / ".a.host.1"
    for path in (left, others):
        path.write_text("half")
    old = time.time() - 25 * 3600
    os.utime(others, (old, old))
    assert collection.load_all(workdir) == ([], {})
    collection.load_some(workdir, [])
    assert not left.exists() and others.exists()


def test_a_record_under_the_name_of_another(workdir):
    collection.keep(workdir, record("a"))
    (path,) = collection.directory(workdir).iterdir()
    path.rename(collection.directory(workdir) / "b.json")
    found, damaged = collection.load_some(workdir, ["a", "b"])
    assert not found and "it is the record a, renamed" in next(iter(damaged.values()))


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--workdir=.*file cannot be written"):
        collection.open_workdir(epath.Path(tmp_path / "file"))


def test_numbers_that_no_json_has(workdir):
    with pytest.raises(ValueError, match="JSON"):
        collection.keep(workdir, record(results={"pixel_ap": float("nan")}))
    assert not os.listdir(collection.directory(workdir))


def test_the_newest_come_last(workdir):
    for name, age in (("a", 10), ("b", 100), ("c", 50)):
        collection.keep(workdir, record(name))
        (path,) = collection.directory(workdir).glob(f"{name}*")
        os.utime(path, (1e9 - age,) * 2)
    assert [r.digest for r in collection.load_all(workdir)[0]] == ["b", "c", "a"]
