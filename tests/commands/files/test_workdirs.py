"""A run and what lies in its work directory already, whose ever it is."""

import json
import os
import shutil
from pathlib import Path

import pytest

from sgfr_jax import datasets
from sgfr_jax.commands import run
from sgfr_jax.commands.files import records, workdirs, written
from sgfr_jax.commands.flags import config
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.host import machine
from sgfr_jax.commands.pages import category, review
from sgfr_jax.datasets import outputs
from tests.small import SMALL


@pytest.fixture
def cap(folder):
    """A run of one category, as it is asked for."""
    settings = SMALL.replace(data_dir=str(folder), categories=("cap",))
    return config.resolve(settings)


@pytest.fixture
def pretended(monkeypatch):
    """Stands for the work on a category: writes what a run would."""
    done = []

    def pretend(found, detector, settings, output):
        done.append(found.name)
        example = found.test.examples[0]
        names = [category.map_name(output.files, found.name, example)] if output.save_maps else []
        names += [category.figure_name(output.files, found.name, f"{example.kind}_most_1")]
        of_category = (f"maps/{found.name}", f"figures/{found.name}")
        output.files.remove(output.files.earlier(*of_category))
        for name in names:
            output.files.claim(name).write_text("ours")
        results = dict.fromkeys(records.Metrics._fields) | {"seconds": {}}
        review.save(output.workdir, found.name, results, review.Selection(1), {})
        return {"results": results, "baselines": {}, "images": [], "notes": []}

    monkeypatch.setattr(category, "run", pretend)
    return done


def go(settings, workdir, **resources):
    return run.run(settings, machine.Resources(workdir, num_figures=1, **resources))


def files(directory):
    found = (p.relative_to(directory) for p in directory.rglob("*") if p.is_file())
    return sorted(path.as_posix() for path in found)


WHOLE = [*records.FILES, outputs.RECORD, "review/cap.json"]
FIGURE, MAP = "figures/cap/dent_most_1.png", "maps/cap/cap/test/dent/0.png.npy"


def test_nothing_is_removed_that_the_run_did_not_write(cap, tmp_path, pretended, capsys):
    work = tmp_path / "work"
    mine = ["figures/cap/drawing.svg", "maps/cap/measured.npy", "maps/cap/cap/test/mine.npy"]
    mine += ["review/mine.json", "notes.txt", "models/cap.txt", "figures/nut/dent_most_1.png"]
    for name in mine:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text("weeks of work")
    go(cap, work, save_maps=True)
    assert files(work) == sorted([*WHOLE, *mine, FIGURE, MAP])
    assert "replaces" not in capsys.readouterr().err
    go(cap, work)  # its own map is of an earlier run now
    assert files(work) == sorted([*WHOLE, *mine, FIGURE])
    assert "has 7 files of an earlier call, which this one" in capsys.readouterr().err
    assert all((work / name).read_text() == "weeks of work" for name in mine)


@pytest.mark.parametrize("name", [*records.FILES, "review/cap.json", FIGURE, MAP])
def test_what_is_in_the_way_is_named_before_any_work(cap, tmp_path, pretended, name):
    (tmp_path / "work" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "work" / name).write_text("weeks of work")
    with pytest.raises(ConfigError, match=f"--workdir=.*'{name}' is in the way") as refused:
        go(cap, tmp_path / "work", save_maps=True)
    assert "\n" not in str(refused.value) and not pretended
    assert files(tmp_path / "work") == [name]
    assert (tmp_path / "work" / name).read_text() == "weeks of work"


@pytest.mark.parametrize("place", workdirs.PLACES)
def test_images_where_results_go_are_refused(cap, folder, tmp_path, pretended, monkeypatch, place):
    """As with `--data_dir=maps/parts --workdir=.`, and by a link."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "cap", Path(place) / "cap")
    before = files(tmp_path)
    Path("elsewhere").symlink_to(place)
    for data_dir in (f"{place}/cap", str(tmp_path / place / "cap"), "elsewhere/cap"):
        settings = cap.replace(data_dir=data_dir)
        with pytest.raises(ConfigError, match=rf"^--workdir=\.: '.*' lies in '{place}', where"):
            go(settings, Path())
    assert files(tmp_path) == before and not pretended


def test_figures_of_an_earlier_run_are_no_images(cap, folder, pretended):
    """The work directory may lie among the images."""
    for _ in range(2):
        go(cap, folder / "cap" / "test" / "dent")
        (found,) = datasets.load("folder", folder, categories=["cap"])
        assert len(found.test) == 6


def test_two_at_once(cap, tmp_path, pretended):
    work = tmp_path / "work"
    with (
        written.opened(work, "--workdir", "run"),
        pytest.raises(ConfigError, match=f"--workdir=.* is in use by process {os.getpid()} on "),
    ):
        go(cap, work)
    assert not pretended and files(work) == []
    go(cap, work)


def test_names_that_are_too_long(folder, cap, tmp_path):
    """The whole run: maps of images, figures of kinds and the review of a category."""
    root = folder / ("c" * 251)
    (folder / "cap").rename(root)
    for part in ("test", "ground_truth"):
        (root / part / "dent").rename(root / part / ("d" * 251))
    (root / "test" / "good" / "0.png").rename(root / "test" / "good" / f"{'g' * 251}.png")
    settings = cap.replace(categories=(root.name,), image_size=32, bank_size=5)
    work = tmp_path / "work"
    go(config.resolve(settings), work, save_maps=True)
    assert len([name for name in files(work) if name.startswith("maps/")]) == 6
    assert len([name for name in files(work) if name.startswith("figures/")]) == 4
    assert len([name for name in files(work) if name.startswith("review/")]) == 1
    assert all(len(part) <= 255 for name in files(work) for part in name.split("/"))
    (results,) = json.loads((work / "results.json").read_text())["categories"].values()
    assert review.load(work, root.name, results) is not None
    named = outputs.read(work)
    assert {*files(work), outputs.RECORD} == {*named, outputs.RECORD}
    assert all(entry.sha256 for entry in named.values())


def test_what_of_an_earlier_run_stays_is_said(cap, tmp_path, pretended, capsys):
    work = tmp_path / "work"
    for name in ("models/cap/model.json", "report/report.html"):
        (work / name).parent.mkdir(parents=True)
        (work / name).write_text("of an earlier call")
    go(cap, work)
    said = capsys.readouterr().err
    for name in ("models/cap", "report"):
        assert f"note: {work / name} is of an earlier call, and stays as it is" in said
