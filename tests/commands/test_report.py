import csv

import pytest
from etils import epath

from sgfr_jax.commands import report
from sgfr_jax.commands.sweeping import collection
from tests.commands.pages.test_summary import record


def write(workdir, *found):
    place = epath.Path(workdir)
    collection.open_workdir(place)
    for number, one in enumerate(found):
        own = one.__class__(**(vars(one) | {"digest": f"{workdir.name}{number}"}))
        collection.keep(place, own)


@pytest.fixture
def workdirs(tmp_path):
    write(tmp_path / "a", record(shots=1), record(shots=2))
    write(tmp_path / "b", record(shots=4, seed=0), record(shots=4, seed=1, value=0.7))
    return [str(tmp_path / "a"), str(tmp_path / "b")]


def test_records_of_any_number_of_sweeps_in_one_table(workdirs, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the extra `report`")
    out = tmp_path / "out"
    report.main(["--workdir", *workdirs, f"--out={out}", "--metric", "aupro", "pixel_ap"])
    assert {path.name for path in out.iterdir()} == {
        "table.csv", "table.md", "table.tex", "aupro_by_shots.png", "pixel_ap_by_shots.png",
        "written.jsonl",
    }  # fmt: skip
    rows = list(csv.DictReader((out / "table.csv").open()))
    assert [(row["param_shots"], row["n_seeds"]) for row in rows] == [
        ("1", "1"), ("2", "1"), ("4", "2")
    ]  # fmt: skip
    assert "| demo | 4 | affine_ridge | 2 | 60.0 ± 14.1 | 60.0 ± 14.1 |" in capsys.readouterr().out


def test_below_the_first_and_without_plots(workdirs, tmp_path):
    report.main([f"--workdir={workdirs[0]}", f"--workdir={workdirs[1]}", "--no_plots"])
    written = {path.name for path in (tmp_path / "a" / "report").iterdir()}
    assert written == {"table.csv", "table.md", "table.tex", "written.jsonl"}


@pytest.mark.parametrize("name", ["table.csv", "table.md", "report.html"])
def test_what_is_no_report_is_not_overwritten(workdirs, tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    asked = ["--workdir", *workdirs, f"--out={tmp_path / 'out'}"]
    asked.append("--html" if name == "report.html" else "--no_plots")
    with pytest.raises(SystemExit, match=f"error: --out=.*'{name}' is in the way"):
        report.main(asked)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    assert (tmp_path / "out" / name).read_text() == "mine"
    (tmp_path / "out" / name).unlink()
    for _ in range(2):  # its own it replaces
        report.main(asked)


def test_damaged_records_are_named(workdirs, tmp_path, capsys):
    path = next((tmp_path / "b" / "records").iterdir())
    path.write_text("{")
    report.main(["--workdir", *workdirs, "--no_plots"])
    assert f"note: record {path} is damaged (it is cut off" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more,words",
    [
        (["--metric=pixelap"], "--metric: unknown metric 'pixelap'. Did you mean 'pixel_ap'"),
        (["--workdir=/no/such"], "--workdir=/no/such has no records"),
        (["--out=/dev/null/x"], "Not a directory"),
        (["--out=/dev/null/x", "--html"], "Not a directory"),
        (["--html", "--no_plots"], "leave --by_category and --no_plots out"),
        (["--workdir=/no/such", "--html"], "--workdir=/no/such has no records"),
    ],
)
def test_mistakes(workdirs, more, words):
    with pytest.raises(SystemExit) as stopped:
        report.main(["--workdir", *workdirs, *more])
    assert str(stopped.value.code).startswith("error: ") and words in str(stopped.value.code)


def test_no_configuration_is_complete_yet(tmp_path):
    write(tmp_path / "a", record("cap", seed=0), record("nut", seed=1))
    with pytest.raises(SystemExit, match="no configuration has all categories yet"):
        report.main([f"--workdir={tmp_path / 'a'}", "--no_plots"])
    report.main([f"--workdir={tmp_path / 'a'}", "--no_plots", "--by_category"])


def test_a_page_of_sweeps(workdirs, tmp_path, capsys):
    path = next((tmp_path / "b" / "records").iterdir())
    path.write_text("{")
    report.main(["--workdir", *workdirs, "--html", f"--out={tmp_path / 'out'}"])
    assert capsys.readouterr().out == f"Written: {tmp_path / 'out' / 'report.html'}\n"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.html", "written.jsonl"}
    assert f"record {path} is damaged" in (tmp_path / "out" / "report.html").read_text()


def test_a_run_that_has_no_page(tmp_path):
    with pytest.raises(SystemExit, match=r"has no results\.json: run experiments\.run to its end"):
        report.main([f"--workdir={tmp_path}", "--html"])
    with pytest.raises(SystemExit, match=r"of experiments\.run there is a page alone, of one"):
        report.main([f"--workdir={tmp_path}"])
    (tmp_path / "unfinished").mkdir()
    with pytest.raises(SystemExit, match=r"has no results\.json: run experiments\.run to its end"):
        report.main([f"--workdir={tmp_path}"])
    (tmp_path / "scores.csv").touch()
    for content in ("{", "{}", "[]"):
        (tmp_path / "results.json").write_text(content)
        with pytest.raises(
            SystemExit,
            match=r"results\.json is damaged \(.*: move it away, or delete it, and run ex",
        ):
            report.main([f"--workdir={tmp_path}"])
