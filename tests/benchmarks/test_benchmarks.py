"""Every benchmark runs at a tiny size and prints its table; no time is asserted."""

import argparse
import json
import runpy
import sys

import numpy as np
import pytest

from benchmarks import (
    backbone,
    first_result,
    fit,
    install_peers,
    loading,
    machine,
    memory,
    metrics,
    predict,
    report,
    startup,
    sweep,
    timing,
    workers,
)

TINY = {
    backbone: "--networks efficientnet_lite0 --batches 1 --image_size 64",
    fit: "--problems grid16_10 --images 2 --steps 2 --fit_images 1 --check 20",
    predict: "--banks 50 --networks efficientnet_lite0 --batch 1 --bank 50 --formats JPEG",
    metrics: "--images 6 --size 32",
    startup: "--stages help import",
    loading: "--count 2 --side 64 --workers 1",
    memory: "--counts 2 --run_flags image_size=64 num_figures=0 num_neighbors=1 bank_size=2",
}
STAGES = {
    backbone: 1,
    fit: 2,
    predict: 3,
    metrics: 1,
    startup: 2,
    loading: 1,
    memory: 1,
}


def run(script, capsys, tmp_path, *more):
    path = tmp_path / "figures.json"
    repeats = None if script is memory else 1
    argv = [*TINY[script].split(), "--skip_floors", f"--json={path}", *more]
    rows = report.run(
        script.measure, script.__doc__, add_flags=script.add_flags, repeats=repeats, argv=argv
    )
    return rows, json.loads(path.read_text()), capsys.readouterr().out


@pytest.mark.parametrize(
    "script",
    [script if script is metrics else pytest.param(script, marks=pytest.mark.slow)
     for script in TINY],
    ids=lambda script: script.__name__,
)  # fmt: skip
def test_script_without_peers(script, capsys, tmp_path):
    rows, record, printed = run(script, capsys, tmp_path)
    ours = [row for row in rows if row.who == report.OURS]
    assert len(ours) == STAGES[script]
    assert all(seconds > 0 for row in rows for seconds in row.seconds)
    assert "peers: skipped" in printed
    assert all(row.stage in printed for row in rows)
    assert [row["stage"] for row in record["rows"]] == [row.stage for row in rows]
    assert record["command"].startswith(f"python -m {script.__name__}")


@pytest.mark.parametrize("script", [memory, sweep], ids=lambda script: script.__name__)
def test_whole_runs_are_not_repeated(script, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [script.__name__, "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path(script.__file__, run_name="__main__")
    printed = capsys.readouterr().out
    assert "--json" in printed and "--repeats" not in printed


def test_memory_of_a_data_set_that_needs_no_directory(monkeypatch):
    parser = argparse.ArgumentParser()
    memory.add_flags(parser)
    monkeypatch.setattr(memory, "_run", lambda stage, flags, workdir, options: flags)
    for given in (["--dataset=demo"], ["--dataset=mtd", "--data_dir=there"]):
        with workers.start(None) as peers:
            assert memory.measure(parser.parse_args(given), peers) == [given]


@pytest.mark.parametrize(
    ("file", "message"), [("absent/f.json", "there is no directory"), (".", "is a directory")]
)
def test_a_file_that_cannot_be_written_is_refused_at_once(file, message, capsys, tmp_path):
    argv = [f"--json={tmp_path / file}"]
    with pytest.raises(SystemExit):
        report.run(pytest.fail, "", add_flags=lambda parser: None, argv=argv)
    assert message in capsys.readouterr().err


def test_help_of_the_first_result(capsys):
    with pytest.raises(SystemExit, match="0"):
        first_result.main(["--help"])
    assert "CACHE" in capsys.readouterr().out


def test_peers_that_are_missing_are_skipped_and_others_agree(capsys, tmp_path):
    rows, record, printed = run(metrics, capsys, tmp_path, f"--peers={sys.executable}")
    assert "adeval: skipped" in printed
    by_name = {row.who: row for row in rows}
    assert by_name["scikit-learn"].ratio > 0
    assert "scikit-learn" in record["peers"]
    for name, value in by_name["scikit-learn"].values.items():
        np.testing.assert_allclose(by_name[report.OURS].values[name], value, atol=1e-9)


def test_plain_loop_is_farthest_first():
    points = np.array([[0.0], [1.0], [10.0], [4.0]], np.float32)
    chosen, radius = fit.greedy_loop(points, 0, 3)
    assert chosen.tolist() == [0, 2, 3]
    assert radius == pytest.approx(1.0)


def test_contenders_take_turns():
    calls = []
    contenders = {name: timing.contender(lambda name=name: calls.append(name)) for name in "ab"}
    timed = timing.alternate(contenders, repeats=2, number=2)
    assert "".join(calls) == "ab" + "aabb" * 2
    assert [len(found.seconds) for found in timed.values()] == [2, 2]


def test_ratio_is_the_median_of_pairs():
    assert timing.ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == 2.0


def test_extrapolated_seconds_count():
    sample = timing.contender(lambda: timing.Extrapolated(60.0, "value"))
    assert sample(1) == timing.Sample(60.0, "value")


def test_table_shows_floors_and_ratios():
    timed = {
        report.OURS: timing.Timed([0.02], None),
        "peer": timing.Timed([0.03], None),
    }
    rows = report.rows("stage", timed, per=2, work=machine.Work(5e6, 1e6), notes={"peer": "why"})
    lines = report.table(rows, machine.Floors(1e9, 1e9)).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[2] == [
        "stage",
        report.OURS,
        "10.0 ms",
        "10.0 ms - 10.0 ms",
        "",
        "5.00 ms",
        "2.0",
        "",
    ]
    assert cells[3][4:] == ["1.50", "5.00 ms", "3.0", "why"]


def test_floors_are_measured():
    floors = machine.floors(size=64, megabytes=1, repeats=1)
    assert floors.flops > 0 and floors.bandwidth > 0


def test_work_of_resnet18_matches_the_literature():
    # He et al. 2016, table 1: 1.8e9 multiplications and additions at 224 pixels, all layers.
    work = backbone.work(backbone.backbones.ARCHITECTURES["resnet18"], ("layer4",), 224, 1)
    assert work.flops / 2 == pytest.approx(1.8e9, rel=0.02)


def test_peers_get_torch_first(tmp_path):
    commands = install_peers.commands(tmp_path, "python3")
    assert commands[0] == ["python3", "-m", "venv", str(tmp_path)]
    assert any(part.startswith("torch==") for part in commands[1])
    assert any(part.startswith("anomalib==") for part in commands[2])
