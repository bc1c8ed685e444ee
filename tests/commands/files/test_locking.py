import subprocess
import sys
from pathlib import Path

import pytest

from sgfr_jax.commands.files import locking
from sgfr_jax.commands.flags.checking import ConfigError

ROOT = Path(__file__).parents[3]


def test_one_of_many_holds_the_lock(tmp_path):
    """A lock file that its holder has just removed is no lock."""
    code = (
        "import os, sys, time; from pathlib import Path\n"
        "from sgfr_jax.commands.files import locking\n"
        "from sgfr_jax.commands.flags.checking import ConfigError\n"
        "first = os.fork() and os.fork()\n"  # makes three processes, which import once
        "place, end = Path(sys.argv[1]), time.time() + 1.5\n"
        "while time.time() < end:\n"
        "    try:\n"
        "        with locking.locked(place / 'lock', 'it'):\n"
        "            (place / 'inside').mkdir(); (place / 'inside').rmdir()\n"
        "    except ConfigError: pass\n"
        "sys.exit(first and any([os.wait()[1], os.wait()[1]]))\n"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT).returncode == 0


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "lock").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(OSError), locking.locked(tmp_path / "lock", "it"):
        pass
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("content", [b"weeks of work", b"\xff\x00", b"process 1 on a\nand more"])
def test_a_file_of_someone_else_s_is_in_the_way(tmp_path, content):
    (tmp_path / "lock").write_bytes(content)
    with (
        pytest.raises(ConfigError, match=r"^it: '.*lock' is in the way: move it$"),
        locking.locked(tmp_path / "lock", "it"),
    ):
        pass
    assert (tmp_path / "lock").read_bytes() == content


@pytest.mark.parametrize("content", ["", "process 99999 on somewhere\n"])
def test_a_lock_that_a_killed_process_left_is_taken(tmp_path, content):
    (tmp_path / "lock").write_text(content)
    with locking.locked(tmp_path / "lock", "it"):
        assert (tmp_path / "lock").read_text().startswith("process ")
    assert not (tmp_path / "lock").exists()


def test_beside(tmp_path):
    path = locking.beside(tmp_path / "new" / ("m" * 255))
    with locking.locked(path, "it"):
        assert path.parent == tmp_path / "new" and path.exists()
        with (
            pytest.raises(ConfigError, match=r"^it is in use by process \d+ on "),
            locking.locked(path, "it"),
        ):
            pass
    assert not path.exists()


@pytest.mark.parametrize("place", ["file/model", "file/deep/model", "link"])
def test_where_no_lock_file_can_be_made_the_flag_is_named(tmp_path, place):
    (tmp_path / "file").touch()
    locking.beside(tmp_path / "link").symlink_to("file")
    said = rf"^--output={place} cannot be written \(.*\): name another$"
    with (
        pytest.raises(ConfigError, match=said),
        locking.held(tmp_path / place, f"--output={place}"),
    ):
        pass


def test_errors_of_what_is_done_with_the_lock_are_left(tmp_path):
    with pytest.raises(OSError, match="of its own"), locking.held(tmp_path / "model", "it"):
        raise OSError("of its own")
    assert list(tmp_path.iterdir()) == []
