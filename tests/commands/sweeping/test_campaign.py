"""Nothing twice and nothing lost: whatever dies, the same command ends with the same numbers."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

from sgfr_jax.commands.sweeping import campaign, collection, executors
from sgfr_jax.detector import alternatives, sampling
from tests.commands.broken import broken_solver
from tests.commands.sweeping.small_sweep import go, points
from tests.commands.sweeping.test_sharing import swept, without_times

ROOT = Path(__file__).parents[3]


def numbers(workdir):
    return {record.digest: without_times(record) for record in swept(workdir)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Photographs, the numbers of a sweep, and its cache."""
    from tests.small import write_folder

    place = tmp_path_factory.mktemp("undisturbed")
    folder = write_folder(place)
    assert go(points(folder), place / "out", place / "cache") == []
    return folder, place / "out", place / "cache"


def test_a_rerun_computes_nothing(undisturbed, monkeypatch, capsys):
    folder, workdir, cache_dir = undisturbed
    monkeypatch.setattr(executors, "local", lambda *args: pytest.fail("something was computed"))
    assert go(points(folder), workdir, cache_dir, execute=executors.local) == []
    assert "0 of 8 points to do" in capsys.readouterr().err


def test_a_longer_grid_computes_what_is_new(undisturbed, tmp_path, capsys):
    folder, workdir, cache_dir = undisturbed
    shutil.copytree(workdir, tmp_path / "out")

    def longer(add):
        add(solver="nearest")
        add(solver="ridge")

    assert go(points(folder, longer), tmp_path / "out", cache_dir) == []
    assert "2 of 4 points to do" in capsys.readouterr().err
    assert len(numbers(tmp_path / "out")) == 10


def test_slices_together_are_the_whole(undisturbed, tmp_path):
    folder, workdir, cache_dir = undisturbed
    for index in range(3):
        assert go(points(folder), tmp_path / "out", cache_dir, worker=(index, 3)) == []
    assert numbers(tmp_path / "out") == numbers(workdir)


def test_corrupt_records_are_said_and_made_again(undisturbed, tmp_path, capsys):
    folder, workdir, cache_dir = undisturbed
    shutil.copytree(workdir, tmp_path / "out")
    first, second, *_ = sorted(collection.directory(epath.Path(tmp_path / "out")).iterdir())
    first.write_text(first.read_text()[:99])
    second.write_text(second.read_text().replace('"num_test": 6', '"num_test": 7'))
    assert go(points(folder), tmp_path / "out", cache_dir) == []
    said = capsys.readouterr().err
    assert f"record {first} is damaged (it is cut off or not JSON): made again" in said
    assert f"record {second} is damaged (its checksum is wrong): made again" in said
    assert "2 of 8 points to do" in said
    assert numbers(tmp_path / "out") == numbers(workdir)


def test_truncated_cache_entries_are_said_and_made_again(undisturbed, tmp_path, capsys):
    folder, workdir, cache_dir = undisturbed
    shutil.copytree(cache_dir, tmp_path / "cache")
    entries = list((tmp_path / "cache").glob("*.embeddings"))
    assert len(entries) == 4
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[: 1 << 12])
    assert go(points(folder), tmp_path / "out", tmp_path / "cache") == []
    assert capsys.readouterr().err.count("is damaged") == 4
    assert numbers(tmp_path / "out") == numbers(workdir)


def test_a_full_disk_ends_a_sweep_that_goes_on_later(undisturbed, tmp_path, monkeypatch, capsys):
    folder, workdir, cache_dir = undisturbed
    keep, kept = collection.keep, []

    def full(workdir, record):
        if len(kept) == 3:
            raise OSError(28, "No space left on device")
        kept.append(record)
        keep(workdir, record)

    with monkeypatch.context() as patched:
        patched.setattr(collection, "keep", full)
        with pytest.raises(OSError, match="No space left"):
            go(points(folder), tmp_path / "out", cache_dir)
    assert len(swept(tmp_path / "out")) == 3
    assert go(points(folder), tmp_path / "out", cache_dir) == []
    assert "5 of 8 points to do" in capsys.readouterr().err
    assert numbers(tmp_path / "out") == numbers(workdir)


def test_a_point_that_fails_takes_no_other_with_it(undisturbed, tmp_path, monkeypatch):
    folder, _, cache_dir = undisturbed
    monkeypatch.setitem(alternatives.SOLVERS, "broken", broken_solver())

    def grid(add):
        add(layers="block0", bank_size=200, solver="broken")
        add(layers="block0", bank_size=200)

    failed = go(points(folder, grid), tmp_path / "out", cache_dir)
    assert len(failed) == 2 and len(swept(tmp_path / "out")) == 2
    assert "grid test, point 1 (layers=block0" in failed[0] and "category cap" in failed[0]
    assert "score is not finite" in failed[0] and "--solver" in failed[0]


def test_other_mistakes_are_not_taken_for_a_point_s(undisturbed, tmp_path, monkeypatch):
    folder, _, cache_dir = undisturbed
    monkeypatch.setattr(sampling, "make_bank", lambda *args, **more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        go(points(folder), tmp_path / "out", cache_dir)


def test_records_of_another_version_are_counted(undisturbed, monkeypatch, capsys):
    folder, workdir, cache_dir = undisturbed
    monkeypatch.setattr(campaign.environment, "describe", lambda: {"commit": "another"})
    assert go(points(folder), workdir, cache_dir) == []
    assert "8 records were made by another version than another" in capsys.readouterr().err


def test_progress_is_a_line_with_rate_and_time_left(undisturbed, tmp_path, monkeypatch, capsys):
    folder, _, cache_dir = undisturbed
    monkeypatch.setattr("sgfr_jax.commands.host.progress.SECONDS_BETWEEN_LINES", 0)
    go(points(folder), tmp_path / "out", cache_dir, worker=(1, 2))
    lines = [li for li in capsys.readouterr().err.splitlines() if li.startswith("worker 1/2:")]
    assert lines[0] == "worker 1/2: 4 of 4 points to do"
    assert "25% 1/4 [" in lines[1] and "<" in lines[1] and "points/s" in lines[-1]


def start(*arguments):
    command = [sys.executable, "-m", "tests.commands.sweeping.small_sweep", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment,kept",
    [
        ("die_embedding", {0}),
        ("die_sampling", {0, 2}),  # the first bank's metrics may have been ready
        ("die_scoring", {2, 4}),
        ("die_writing", {2}),
    ],
)
def test_a_worker_is_killed(undisturbed, tmp_path, moment, kept):
    folder, workdir, _ = undisturbed
    killed = start(folder, tmp_path / "out", tmp_path / "cache", moment)
    assert killed.returncode == -9, killed.stderr
    done = len(swept(tmp_path / "out"))
    assert done in kept
    again = start(folder, tmp_path / "out", tmp_path / "cache")
    assert again.returncode == 0, again.stderr
    assert f"{8 - done} of 8 points to do" in again.stderr
    assert numbers(tmp_path / "out") == numbers(workdir)


@pytest.mark.slow
def test_a_disk_too_full_for_embeddings(undisturbed, tmp_path):
    folder, workdir, _ = undisturbed
    done = start(folder, tmp_path / "out", tmp_path / "cache", "small_files")
    assert done.returncode == 0, done.stderr
    assert "going on without storing" in done.stderr
    assert not list((tmp_path / "cache").glob("*.embeddings"))
    assert numbers(tmp_path / "out") == numbers(workdir)
