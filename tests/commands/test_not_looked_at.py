"""What a run, a prediction and an update say of files and masks that they cannot use as meant."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from sgfr_jax.commands import predict, run
from sgfr_jax.commands import update as updating
from sgfr_jax.commands.files import prediction
from sgfr_jax.commands.flags import config
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.host import interruption
from sgfr_jax.commands.host.machine import Resources
from sgfr_jax.detector import saved
from tests.detector import made_models
from tests.small import SMALL, texture, write_folder

SETTINGS = SMALL.replace(layers=("block2",))


@pytest.fixture(autouse=True)
def parsed(monkeypatch):
    monkeypatch.setattr(interruption, "exit_at_once", lambda *args: None)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["predict"])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """One that decides nothing of note."""
    path = tmp_path_factory.mktemp("models") / "made"
    made = made_models.make(config.resolve(SETTINGS))
    saved.save(path, dataclasses.replace(made, about=made.about._replace(notes=("made",))))
    return path


def notes_of(root, out):
    settings = config.resolve(SETTINGS.replace(data_dir=str(root)))
    run.run(settings, Resources(out, batch_size=4, num_figures=0))
    found = json.loads((out / "results.json").read_text())
    return found["categories"]["cap"], found["notes"].get("cap", [])


def test_a_run_notes_all_of_it(tmp_path):
    root = write_folder(tmp_path) / "cap"
    (root / "train" / "good" / "9.NEF").write_bytes(b"a camera's own")
    shutil.copy(root / "train" / "good" / "1.png", root / "test" / "good" / "1.png")
    masks = sorted((root / "ground_truth" / "dent").iterdir())
    shape = np.asarray(Image.open(masks[0])).shape
    Image.fromarray(255 - np.asarray(Image.open(masks[0]))).save(masks[0])
    Image.fromarray(np.zeros(shape, np.uint8)).save(masks[1])
    results, notes = notes_of(root, tmp_path / "out")
    for words in (
        "skipped 1 file, images perhaps, of suffixes that are not read: .nef (1)",
        "1 of 6 test images are training images, byte for byte, so metrics are too good:"
        " test/good/1.png",
        "1 of 3 masks of defective images mark no pixel",
        "1 of 3 masks of defective images mark more than half of their image",
    ):
        assert sum(note.startswith(words) for note in notes) == 1
    assert results["pixel_auroc"] is not None


def test_a_run_without_any_of_it_notes_nothing(tmp_path):
    results, notes = notes_of(write_folder(tmp_path) / "cap", tmp_path / "out")
    assert notes == [] and results["aupro"] is not None


def test_metrics_that_are_null_have_a_note(tmp_path):
    root = write_folder(tmp_path) / "cap"
    for path in (root / "ground_truth" / "dent").iterdir():
        drawn = np.zeros((72, 72, 4), np.uint8)
        drawn[..., 3] = np.asarray(Image.open(path))  # black, by opacity alone
        Image.fromarray(drawn).save(path)
    results, notes = notes_of(root, tmp_path / "out")
    assert results["aupro"] is None and results["pixel_auroc"] is None
    (note,) = notes
    assert note.startswith("3 of 3 masks") and note.endswith("pixel metrics are undefined")


def photographs(directory, *others):
    directory.mkdir()
    for i in range(2):
        Image.fromarray(texture(np.random.default_rng(i))).save(directory / f"{i}.png")
    for name in others:
        (directory / name).write_bytes(b"not for us")
    return directory


def go(model, images, out, **more):
    values = {
        "model": str(model), "images": str(images), "output_dir": str(out), "batch_size": 4,
        "cache_dir": "", "threshold": "1e9", "fail_on_anomaly": True, "overlays": False, **more,
    }  # fmt: skip
    with flagsaver.flagsaver(**values), pytest.raises(SystemExit) as stopped:
        predict.main(["predict"])
    return stopped.value.code


@pytest.mark.parametrize("named", ["new", "new/*", "new/**/*"])
def test_a_prediction_counts_images_that_it_does_not_read(model, tmp_path, named, capsys):
    photographs(tmp_path / "new", "2.cr2", "3.dng", "notes.txt", ".hidden.cr2")
    assert go(model, tmp_path / named, tmp_path / "out") == predict.SKIPPED
    said = capsys.readouterr()
    assert "suffixes that are not read: .cr2 (1), .dng (1)" in said.err
    assert "left out 1 file, no images: .txt (1)" in said.err
    assert "0 of 2 images are anomalous, 2 skipped" in said.out
    summary = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert summary["images"] == 2 and len(summary["skipped"]) == 2
    assert "2.cr2" in summary["skipped"][0]


@pytest.mark.parametrize("named", ["new", "new/*", "n*/[0-9].png", "list.txt"])
def test_a_prediction_counts_what_is_called_an_image_and_is_none(model, tmp_path, named, capsys):
    images = photographs(tmp_path / "new")
    (images / "2.png").symlink_to(tmp_path / "gone.png")
    (images / "4.png").mkdir()
    os.mkfifo(images / "3.png")
    (tmp_path / "list.txt").write_text("".join(f"new/{i}.png\n" for i in range(4)))
    assert go(model, tmp_path / named, tmp_path / "out") == predict.SKIPPED
    assert "0 of 2 images are anomalous, 2 skipped" in capsys.readouterr().out
    skipped = json.loads((tmp_path / "out" / "predictions.json").read_text())["skipped"]
    assert skipped[0].startswith(f"'{images / '2.png'}' is a link to a file that does not exist")
    assert skipped[1].startswith(f"'{images / '3.png'}' is a pipe")


def test_links_to_nothing_are_found_by_a_pattern_that_ends_in_their_name(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").symlink_to("gone.png")
    (found,) = prediction.find(f"{tmp_path}/*/x.png")
    assert found.path == tmp_path / "a" / "x.png"
    (tmp_path / "a" / "y.cr2").symlink_to("gone.cr2")
    (unread,) = prediction.unread(prediction.not_read(str(tmp_path)))
    assert "y.cr2' is a link to a file that does not exist" in unread.problem


def test_one_name_that_is_not_text_leaves_the_others(model, tmp_path, capsys):
    images = photographs(tmp_path / "new")
    try:
        shutil.copy(os.fsencode(images / "1.png"), os.fsencode(images) + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert go(model, images, tmp_path / "out") == predict.SKIPPED
    said = capsys.readouterr()
    assert "0 of 2 images are anomalous, 1 skipped" in said.out
    assert "\\xff.png' is not UTF-8" in said.err


def test_where_there_is_no_image_what_is_not_read_is_named(tmp_path):
    (tmp_path / "a.cr2").write_bytes(b"not for us")
    with pytest.raises(ConfigError, match=r"names no image.*not read: \.cr2 \(1\)"):
        prediction.find(str(tmp_path))


def test_files_that_are_no_images_do_not_fail_a_prediction(model, tmp_path, capsys):
    images = photographs(tmp_path / "new", "notes.txt")
    assert go(model, images, tmp_path / "out") == 0
    assert go(model, f"{tmp_path}/new/*.png", tmp_path / "again") == 0
    assert capsys.readouterr().err.count("left out") == 1


def test_an_update_names_what_it_does_not_read(model, tmp_path, capsys, monkeypatch):
    def stop(*args):
        raise ConfigError("that was enough")

    monkeypatch.setattr("sgfr_jax.detector.growing.grow", stop)
    images = photographs(tmp_path / "new", "2.arw")
    (images / "3.png").symlink_to("gone.png")
    os.mkfifo(images / "4.png")
    values = {
        "model": str(model), "images": str(images), "output": str(tmp_path / "grown"),
        "cache_dir": "",
    }  # fmt: skip
    with flagsaver.flagsaver(**values), pytest.raises(SystemExit, match="that was enough"):
        updating.main(["update"])
    said = capsys.readouterr().err
    assert "suffixes that are not read: .arw (1)" in said
    assert f"note: skipped: '{images / '3.png'}' is a link to a file that does not exist" in said
    assert f"note: skipped: '{images / '4.png'}' is a pipe" in said
