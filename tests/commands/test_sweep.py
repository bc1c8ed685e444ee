"""The command; what it calls is tested in the modules."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = ("--layers=block2", "--image_size=64", "--bank_size=20", "--batch_size=4")


def sweep(*arguments):
    command = [sys.executable, "-m", "experiments.sweep", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_sweep_then_its_rerun_then_its_report(folder, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `report`")
    arguments = (
        "--grid=seeds", "--dataset=folder", f"--data_dir={folder}", *SMALL,
        f"--workdir={tmp_path / 'out'}", f"--cache_dir={tmp_path / 'cache'}",
    )  # fmt: skip
    first = sweep(*arguments)
    assert first.returncode == 0, first.stderr
    assert "20 of 20 points to do" in first.stderr and "Traceback" not in first.stderr
    assert f"python -m experiments.report --workdir={tmp_path / 'out'}" in first.stdout
    again = sweep(*arguments)
    assert again.returncode == 0 and "0 of 20 points to do" in again.stderr
    command = [sys.executable, "-m", "experiments.report", f"--workdir={tmp_path / 'out'}"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    assert "| folder | nearest | 5 | 100.0 ± 0.0 |" in made.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments,words",
    [
        ([], "--grid is missing; known: sampler_by_ratio, "),
        (["--grid=sed"], "--grid: unknown grid 'sed'. Did you mean 'seeds'"),
        (["--grid=seeds", "--slice=4/4"], "--slice=4/4 must be a worker's number"),
        (["--grid=seeds", "--solver=ridge"], "--solver is set by grid seeds, point 1"),
        (["--grid=seeds", "--baseline=nearest"], "--baseline is for experiments.run"),
        (["--grid=seeds", "--save_maps"], "--save_maps is for experiments.run"),
        (["--grid=seeds", "--address=auto"], "--address is for --executor=ray"),
        (["--grid=seeds", "--workdir=/dev/null/x"], "--workdir=/dev/null/x cannot be written"),
        (["--grid=seeds", "--dataset=mtd", "--data_dir=/no"], "/no"),
        (["--grid=few_shot", "--num_neighbors=99"], "point 1 (layers=fast shots=1"),
        (["--grid=seeds", "--batch_size=0"], "batch_size"),
    ],
)
def test_mistakes_are_one_line_before_anything_runs(tmp_path, arguments, words):
    place = [] if any("workdir" in a for a in arguments) else [f"--workdir={tmp_path / 'out'}"]
    found = sweep(*arguments, *place)
    assert found.returncode == 1
    assert words in found.stderr and "Traceback" not in found.stderr
    assert not list((tmp_path / "out").rglob("*.json"))
