import os
import subprocess
import sys
import time

from sgfr_jax import unfinished

DAY = 24 * 3600


def name_of_the_dead(name):
    """The name under which a process that is gone was writing."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    end = f".{os.getpid()}.unfinished"
    return unfinished.name_for(name).removesuffix(end) + end.replace(
        str(os.getpid()), str(process.pid)
    )


def test_a_name_says_who_writes():
    own, dead = unfinished.name_for("a.json"), name_of_the_dead("a.json")
    assert own.startswith(".") and own != unfinished.name_for("b.json")
    assert len(unfinished.name_for("ü" * 1000).encode()) < 200
    assert not unfinished.is_abandoned(own, 10) and unfinished.is_abandoned(own, 2 * DAY)
    assert unfinished.is_abandoned(dead, 0)
    assert unfinished.is_abandoned(dead, 0, of="a.json")
    assert not unfinished.is_abandoned(dead, 0, of="b.json")


def test_processes_of_other_hosts_are_given_a_day():
    number = str(os.getpid())
    elsewhere = unfinished.name_for("a").replace(f".{number}.", "-other.999999999.")
    assert not unfinished.is_abandoned(elsewhere, 10)
    assert unfinished.is_abandoned(elsewhere, 2 * DAY)


def test_what_is_not_named_so_is_left():
    dead = name_of_the_dead("a")
    for name in (dead[1:], dead + "x", ".a.unfinished", ".new.cap.0123abcd", f"{dead}/a", "", "."):
        assert not unfinished.is_abandoned(name, 2 * DAY)


def test_what_lies_abandoned_in_a_directory(tmp_path):
    dead, own = tmp_path / name_of_the_dead("a"), tmp_path / unfinished.name_for("a")
    for path in (dead, own, tmp_path / "a", tmp_path / ".a.unfinished"):
        path.write_text("")
        os.utime(path, (time.time() - 10,) * 2)
    assert list(unfinished.abandoned(tmp_path)) == [dead]
    assert list(unfinished.abandoned(tmp_path, "a")) == [dead]
    assert list(unfinished.abandoned(tmp_path, "b")) == []
    assert list(unfinished.own(tmp_path)) == [own]
    assert list(unfinished.abandoned(tmp_path / "none")) == []
