"""What an output directory's record promises: nothing of anyone else's is touched."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sgfr_jax.commands.files import written
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.datasets import outputs

ROOT = Path(__file__).parents[3]


def opened(directory, by="predict"):
    return written.opened(directory, "--output_dir", by)


def put(directory, *names, text="ours", by="predict"):
    with opened(directory, by) as output:
        for name in names:
            output.claim(name).write_text(text)


def files(directory):
    return sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())


def test_what_was_written_is_named_with_its_digest(tmp_path):
    put(tmp_path / "out", "maps/a.png", "scores.csv")
    found = outputs.read(tmp_path / "out")
    assert set(found) == {"maps/a.png", "scores.csv"}
    assert found["scores.csv"].by == "predict" and found["scores.csv"].size == 4
    assert files(tmp_path / "out") == ["maps/a.png", "scores.csv", outputs.RECORD]


def test_what_is_removed_is_ours_and_unchanged(tmp_path):
    put(tmp_path, "maps/a.png", "maps/b.png", "c.txt")
    put(tmp_path, "d.txt", by="run")
    (tmp_path / "maps" / "b.png").write_text("mine")  # as long as ours
    (tmp_path / "maps" / "mine.png").write_text("mine")
    (tmp_path / "c.txt").unlink()
    (tmp_path / "c.txt").symlink_to(tmp_path / "maps" / "mine.png")
    with opened(tmp_path) as output:
        output.remove(output.earlier())
        assert not output.earlier()
        with pytest.raises(ConfigError, match=r"'maps/b\.png' is in the way"):
            output.claim("maps/b.png")
    assert set(files(tmp_path)) == {
        "maps/b.png", "maps/mine.png", "c.txt", "d.txt", outputs.RECORD
    }  # fmt: skip
    assert (tmp_path / "maps" / "mine.png").read_text() == "mine"


def test_what_was_changed_since_is_said_to_be(tmp_path):
    """`report` advises the same of damaged results: without the file the command runs again."""
    put(tmp_path, "results.json", "maps/a.png")
    (tmp_path / "results.json").write_text("edit")  # as long as ours
    (tmp_path / "other.json").write_text("mine")
    said = r"'results\.json' is in the way, for it was changed since .*: move it away, or delete it"
    with opened(tmp_path) as output:
        with pytest.raises(ConfigError, match=f"{said}, and run again$"):
            output.claim("results.json")
        with pytest.raises(ConfigError, match=r"for no record there says that this command wrote"):
            output.claim("other.json")
        (tmp_path / "results.json").unlink()
        output.claim("results.json")


@pytest.mark.parametrize("name", ["../photo.png", "{}/photo.png", "link/photo.png"])
def test_a_record_cannot_name_what_lies_elsewhere(tmp_path, name):
    (tmp_path / "photo.png").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    lines = [outputs.HEADER, {"path": name.format(tmp_path), "by": "predict", "size": None}]
    (tmp_path / "out" / outputs.RECORD).write_text("\n".join(map(json.dumps, lines)))
    with opened(tmp_path / "out") as output:
        assert len(output.earlier()) == 1
        output.remove(output.earlier())
    assert (tmp_path / "photo.png").read_text() == "mine"


def test_a_damaged_record_names_less(tmp_path):
    put(tmp_path, "a.png", "b.png")
    path = tmp_path / outputs.RECORD
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        found = outputs.read(tmp_path) or {}
        assert set(found) <= {"a.png", "b.png"}
    for line in ("[]", "1", '{"path": 3}', '{"path": "c", "by": "x", "size": "1"}', "\xff", "{"):
        path.write_text(whole.decode() + line)
        assert set(outputs.read(tmp_path)) == {"a.png", "b.png"}


def test_something_else_in_the_place_of_the_record(tmp_path):
    (tmp_path / outputs.RECORD).write_text("mine")
    with pytest.raises(ConfigError, match=r"'written\.jsonl' is in the way"):
        put(tmp_path, "a.png")
    assert files(tmp_path) == [outputs.RECORD]


def test_what_was_cut_off_is_ours(tmp_path):
    """A command that is killed has named what it was writing."""
    code = "import os, sys; from sgfr_jax.commands.files import written; from pathlib import Path\n"
    code += "with written.opened(Path(sys.argv[1]), '--output_dir', 'predict') as output:\n"
    code += "    output.claim('maps/a.png').write_text('half'); print('held', flush=True)\n"
    code += "    sys.stdin.read(); os._exit(9)"
    held = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert held.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match=rf"=.* is in use by process {held.pid} on .*: wait for"):
        put(tmp_path, "b.png")
    held.communicate("")
    assert (tmp_path / written.LOCK).exists()  # which holds nobody
    with opened(tmp_path) as output:
        assert output.earlier() == ["maps/a.png"]
        output.remove(["maps/a.png"])
    assert files(tmp_path) == [outputs.RECORD]
    assert not (tmp_path / "maps").exists()


def test_what_was_claimed_in_vain_stays_what_it_was(tmp_path):
    put(tmp_path, "a.txt")
    kept = (tmp_path / "a.txt").read_bytes()
    (tmp_path / "a.txt").unlink()
    with opened(tmp_path) as output:
        output.claim("a.txt")
        output.claim("b.txt")
    (tmp_path / "a.txt").write_bytes(kept)  # put back
    assert set(outputs.read(tmp_path)) == {"a.txt"}
    put(tmp_path, "a.txt")


def test_a_lock_is_let_go_whatever_happens(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), opened(tmp_path):
            raise KeyboardInterrupt
    assert files(tmp_path) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below"):
        with pytest.raises(ConfigError, match=r"--output_dir=.* cannot be written"):
            put(tmp_path / name, "a.png")


def test_many_files_are_noted_quickly(tmp_path):
    began = time.process_time()
    put(tmp_path, *(f"maps/{i}.png" for i in range(300)))
    assert time.process_time() - began < 3
    assert len(outputs.read(tmp_path)) == 300
    assert os.path.getsize(tmp_path / outputs.RECORD) < 300 * 300
