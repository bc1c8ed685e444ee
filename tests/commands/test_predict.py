"""Scoring images with a saved model, on small photographs that the tests make."""

import contextlib
import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from sgfr_jax import thresholds
from sgfr_jax.commands import predict, run
from sgfr_jax.commands.files import prediction, written
from sgfr_jax.commands.flags import config
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.host import interruption
from sgfr_jax.commands.host.machine import Resources
from sgfr_jax.commands.pages import predictions
from sgfr_jax.datasets.geometry import to_size
from sgfr_jax.detector import saved
from sgfr_jax.detector.state import Nulls
from tests.datasets import trees
from tests.detector import made_models
from tests.small import SMALL, texture, write_folder

ROOT = Path(__file__).parents[2]
MTD = ROOT.parent / "shared" / "data" / "mtd"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photographs, and a run of them that saved a model."""
    directory = tmp_path_factory.mktemp("predict")
    photographs = write_folder(directory)
    settings = SMALL.replace(data_dir=str(photographs), categories=("cap",))
    resources = Resources(
        directory / "run", batch_size=4, num_figures=0, save_maps=True, save_model=True
    )
    run.run(config.resolve(settings), resources)
    return directory


@pytest.fixture
def model(place):
    return place / "run" / "models" / "cap"


@pytest.fixture
def test_images(place):
    return place / "photographs" / "cap" / "test"


@pytest.fixture(autouse=True)
def parsed(monkeypatch):
    monkeypatch.setattr(interruption, "exit_at_once", lambda *args: None)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["predict"])


def go(out, **values):
    """The exit status, or the error's line."""
    values = {"output_dir": str(out), "batch_size": 4, "cache_dir": ""} | values
    presence = {name: flags.FLAGS[name].present for name in flags.FLAGS}
    with flagsaver.flagsaver():
        for name, value in values.items():
            flags.FLAGS[name].value = value
            flags.FLAGS[name].present = 1
        try:
            with pytest.raises(SystemExit) as stopped:
                predict.main(["predict"])
        finally:
            for name, present in presence.items():
                flags.FLAGS[name].present = present
    return stopped.value.code


def rows(out):
    with (out / "scores.csv").open() as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def test_everything_it_promises(place, model, test_images, tmp_path):
    assert go(tmp_path, model=str(model), images=str(test_images)) == 0
    found = rows(tmp_path)
    assert list(found) == sorted(found) and len(found) == 6
    with (place / "run" / "scores.csv").open() as file:
        expected = {row["file"]: row["score"] for row in csv.DictReader(file)}
    for name, row in found.items():
        # The run's own scores, to the last bit.
        assert np.float32(row["score"]) == np.float32(expected[f"cap/test/{name}"])
        assert float(row["p_value"]) + float(row["nominal_below"]) == pytest.approx(1, abs=1e-5)
        assert (row["decision"] == "anomalous") == ("dent" in name)
        with Image.open(tmp_path / "overlays" / f"{name}.png") as overlay:
            assert overlay.size == (72, 72) and overlay.mode == "RGB"
        own = np.load(place / "run" / "maps" / "cap" / f"cap/test/{name}.npy")
        written = predictions.read_png(tmp_path / "maps" / f"{name}.png")
        native = to_size(own, (72, 72))
        assert written.shape == (72, 72)
        np.testing.assert_allclose(written, native, atol=np.ptp(native) / 60_000)
    summary = json.loads((tmp_path / "predictions.json").read_text())
    assert (summary["images"], summary["anomalous"], summary["skipped"]) == (6, 3, [])
    assert summary["thresholds"]["image"]["num_null"] == 5
    coco = json.loads((tmp_path / "contours.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == list(found)
    dents = {image["id"] for image in coco["images"] if "dent" in image["file_name"]}
    assert dents <= {annotation["image_id"] for annotation in coco["annotations"]}
    for annotation in coco["annotations"]:
        assert annotation["score"] > summary["thresholds"]["pixel"]
        assert max(annotation["segmentation"][0]) <= 72


def test_a_model_without_notes_has_a_decision():
    made = made_models.make(config.resolve(SMALL))
    assert made.about.notes == ()
    with flagsaver.flagsaver(model="m"):
        assert predict._decide(made)[1]["null"] == ""


def test_what_is_said_of_too_few_images(model, test_images, tmp_path, capsys):
    go(tmp_path, model=str(model), images=str(test_images))
    said = capsys.readouterr()
    assert (
        "--false_alarm_rate=0.01 needs 99 held-out nominal images, and the model has 5" in said.err
    )
    assert "16.67% of nominal images are expected above it" in said.err
    assert "3 of 6 images are anomalous; written to" in said.out
    go(tmp_path / "other", model=str(model), images=str(test_images), false_alarm_rate=0.5)
    assert "note:" not in capsys.readouterr().err


def test_images_of_any_size_and_kind(model, test_images, tmp_path):
    there = tmp_path / "mixed"
    (there / "below").mkdir(parents=True)
    grey = np.asarray(Image.open(test_images / "dent" / "0.png"))
    Image.fromarray(grey).resize((150, 90)).convert("RGB").save(there / "wide.jpg", quality=95)
    Image.fromarray(grey.astype(np.uint16) * 257).resize((40, 33)).save(there / "deep.png")
    Image.fromarray(grey).convert("RGBA").save(there / "below" / "deep.png")
    assert go(tmp_path / "out", model=str(model), images=str(there), maps="tiff") == 0
    assert list(rows(tmp_path / "out")) == ["below/deep.png", "deep.png", "wide.jpg"]
    for name, shape in {"wide.jpg": (90, 150), "deep.png": (33, 40)}.items():
        written = tifffile.imread(tmp_path / "out" / "maps" / f"{name}.tiff")
        assert written.shape == shape and written.dtype == np.float32
        with Image.open(tmp_path / "out" / "overlays" / f"{name}.png") as overlay:
            assert overlay.size == shape[::-1]


def test_only_what_is_asked_for(model, test_images, tmp_path):
    values = {"maps": "none", "overlays": False, "contours": False}
    assert go(tmp_path, model=str(model), images=str(test_images / "dent" / "*.png"), **values) == 0
    assert files(tmp_path) == ["predictions.json", "scores.csv", "written.jsonl"]
    assert list(rows(tmp_path)) == ["0.png", "1.png", "2.png"]
    assert json.loads((tmp_path / "predictions.json").read_text())["images"] == 3


def test_bad_files_are_named_and_skipped(model, test_images, tmp_path, capsys):
    there = tmp_path / "some"
    there.mkdir()
    for i, kind in enumerate(("good", "dent", "good")):
        content = (test_images / kind / "0.png").read_bytes()
        (there / f"{i}.png").write_bytes(content if i != 1 else content[:200])
    Image.new("L", (5, 5)).save(there / "tiny.png")
    out = tmp_path / "out"
    assert go(out, model=str(model), images=str(there)) == 0
    said = capsys.readouterr()
    assert "skipped: " in said.err and "1.png" in said.err and "tiny.png" in said.err
    assert "0 of 2 images are anomalous, 2 skipped" in said.out
    assert list(rows(out)) == ["0.png", "2.png"]
    assert len(json.loads((out / "predictions.json").read_text())["skipped"]) == 2
    # The good ones score as they do alone.
    alone = tmp_path / "alone"
    go(alone, model=str(model), images=str(there / "2.png"))
    assert float(rows(alone)["2.png"]["score"]) == pytest.approx(
        float(rows(out)["2.png"]["score"]), rel=1e-5
    )


def test_explanations(model, test_images, tmp_path):
    """The worst images first, with nominal patches that can be looked at."""
    asked = {"model": str(model), "images": str(test_images), "explain": True}
    assert go(tmp_path, explain_top=2, **asked) == 0
    told = json.loads((tmp_path / "explanations.json").read_text())
    assert told["notes"] == []
    scores = {name: float(row["score"]) for name, row in rows(tmp_path).items()}
    worst = sorted(scores, key=scores.get, reverse=True)[:2]
    assert [one["path"] for one in told["images"]] == worst
    train = saved.load(model).about.train
    for one in told["images"]:
        assert one["score"] == pytest.approx(scores[one["path"]], rel=1e-6)
        assert one["places"][0]["value"] == pytest.approx(one["score"], rel=1e-6)
        (stream,) = one["places"][0]["streams"]
        # The dents of conftest.
        left, top, width, height = stream["box"]
        assert left < 50 and left + width > 25 and top < 45 and top + height > 15
        assert sum(stream["levels"].values()) == pytest.approx(1, abs=1e-5)
        assert list(stream["levels"]) == ["block2", "block4"]
        weights = [atom["weight"] for atom in stream["atoms"]]
        assert len(weights) == 5 and sum(weights) == pytest.approx(1, abs=1e-3)  # affine, K = 5
        assert {atom["image"] for atom in stream["atoms"]} <= set(train)
        with Image.open(tmp_path / one["page"]) as page:
            assert page.mode == "RGB" and min(page.size) > 300


def test_explanations_where_the_training_images_are_gone(
    place, model, test_images, tmp_path, capsys
):
    good = place / "photographs" / "cap" / "train" / "good"
    good.rename(good.with_name("moved"))
    try:
        asked = {"model": str(model), "images": str(test_images / "dent" / "0.png")}
        assert go(tmp_path, explain=True, **asked) == 0
    finally:
        good.with_name("moved").rename(good)
    assert "training images are gone or have changed" in capsys.readouterr().err
    (one,) = json.loads((tmp_path / "explanations.json").read_text())["images"]
    assert one["places"][0]["streams"][0]["atoms"][0]["image"].startswith("cap/train/good/")
    assert (tmp_path / one["page"]).exists()


@pytest.fixture(scope="module")
def tiled(place):
    """A model of squares and tiles of photographs of which one has a red corner, and its home."""
    directory, rng = place / "tiled", np.random.default_rng(1)
    good, red = directory / "plate" / "train" / "good", np.array([1.0, 0.2, 0.2])
    good.mkdir(parents=True)
    for i in range(4):
        image = np.repeat(texture(rng, 110)[:60, :, None], 3, axis=2)
        if i == 2:
            image[:40, 70:] = image[:40, 70:] * red
        Image.fromarray(image).save(good / f"{i}.png")
    (directory / "new").mkdir()
    image = np.repeat(texture(rng, 130)[:100, :, None], 3, axis=2)
    image[30:90, 60:120] = image[30:90, 60:120] * red
    image[56:64, 86:94] = 255
    Image.fromarray(image).save(directory / "new" / "red.png")
    Image.fromarray(texture(rng, 40)).save(directory / "new" / "small.png")
    settings = SMALL.replace(data_dir=str(directory / "plate"), geometry="square+tile", tile=40)
    resources = Resources(directory / "run", batch_size=4, num_figures=0, save_model=True)
    run.run(config.resolve(settings), resources)
    return directory


def test_explanations_of_several_looks(tiled, tmp_path):
    """A defect in what is red is mimicked by the one red corner that was ever seen."""
    asked = {"model": str(tiled / "run" / "models" / "plate"), "images": str(tiled / "new")}
    assert go(tmp_path, explain=True, **asked) == 0
    told = json.loads((tmp_path / "explanations.json").read_text())
    assert told["notes"] == [] and len(told["images"]) == 2
    by_name = {one["path"]: one for one in told["images"]}
    with Image.open(tmp_path / by_name["red.png"]["page"]) as page:
        assert min(page.size) > 300
    place = by_name["red.png"]["places"][0]
    highest = predictions.read_png(tmp_path / "maps" / "red.png.png").max()
    assert place["value"] == pytest.approx(highest, rel=1e-4)
    streams = {one["name"]: one for one in place["streams"]}
    assert sorted(streams) == ["square: block2+block4@64", "tile: block2+block4@64"]
    parts = sum(one["part"] for one in streams.values())
    assert parts == pytest.approx(place["value"], rel=1e-4)
    tile, square = (streams[f"{kind}: block2+block4@64"] for kind in ("tile", "square"))
    left, top, width, height = tile["box"]
    assert left <= place["x"] <= left + width and top <= place["y"] <= top + height
    assert width <= 4 and height <= 4  # a sixteenth of a tile
    assert 60 <= place["x"] <= 120 and 30 <= place["y"] <= 90
    best = tile["atoms"][0]
    assert best["image"] == "train/good/2.png" and best["window"] in (2, 3)
    assert best["box"][0] >= 70 - 5 and best["box"][1] + best["box"][3] <= 40 + 5
    assert not {"window", "box"} & set(square["atoms"][0])


def test_exit_statuses(model, test_images, tmp_path):
    asked = {"model": str(model), "fail_on_anomaly": True, "threshold": "f1"}
    assert go(tmp_path, images=str(test_images / "good"), **asked) == 0
    assert go(tmp_path, images=str(test_images / "dent"), **asked) == predict.FOUND == 3
    assert go(tmp_path, images=str(test_images), model=str(model)) == 0
    there = tmp_path / "some"
    there.mkdir()
    (there / "0.png").write_bytes((test_images / "good" / "0.png").read_bytes())
    (there / "1.png").write_bytes(b"no image")
    assert go(tmp_path / "out", images=str(there), **asked) == predict.SKIPPED == 4
    (there / "0.png").unlink()
    message = go(tmp_path / "out", images=str(there), **asked)
    assert "none of 1 images could be scored" in message


def test_thresholds_may_be_given(model, test_images, tmp_path):
    asked = {"model": str(model), "images": str(test_images)}
    for threshold, expected in (("1e9", 0), ("-1e9", 6), ("f1", 3)):
        go(tmp_path, threshold=threshold, **asked)
        found = rows(tmp_path).values()
        assert sum(row["decision"] == "anomalous" for row in found) == expected
    go(tmp_path, pixel_threshold=1e9, **asked)
    assert json.loads((tmp_path / "contours.json").read_text())["annotations"] == []


class TestMistakes:
    """Each is one line that names the flag or the file."""

    @pytest.mark.parametrize(
        "values,words",
        [
            ({"model": None}, ["--model must be given"]),
            ({"images": None}, ["--images must be given"]),
            ({"model": "/no/such"}, ["/no/such", "does not exist"]),
            ({"images": "/no/such"}, ["--images=/no/such", "no such file"]),
            ({"images": "/no/such/*.png"}, ["names no image", ".png"]),
            ({"threshold": "high"}, ["--threshold=high must be a number or f1"]),
            ({"threshold": "nan"}, ["--threshold=nan must be a number or f1"]),
            ({"pixel_threshold": float("inf")}, ["--pixel_threshold=inf must be a number"]),
            ({"threshold": "3", "false_alarm_rate": 0.1}, ["--threshold and --false_alarm_rate"]),
            ({"false_alarm_rate": 0.0}, ["--false_alarm_rate=0.0"]),
            ({"pixel_false_alarm_rate": 1.0}, ["--pixel_false_alarm_rate=1.0"]),
            (
                {"pixel_threshold": 1.0, "pixel_false_alarm_rate": 0.1},
                ["--pixel_threshold and --pixel_false_alarm_rate"],
            ),
            ({"maps": "jpeg"}, ["--maps", "jpeg", "png"]),
            ({"output_scale": 0.0}, ["--output_scale=0.0 must be more than 0, and at most 1"]),
            ({"output_scale": 1.5}, ["--output_scale=1.5"]),
            ({"output_scale": float("nan")}, ["--output_scale=nan"]),
            (
                {"output_scale": 0.5, "maps": "none", "overlays": False, "contours": False},
                ["--output_scale", "nothing is drawn"],
            ),
            ({"layers": ["fast"]}, ["--layers belongs to the model"]),
            ({"explain": True, "explain_top": 0}, ["--explain_top=0 must be at least 1"]),
            ({"explain_top": 3}, ["--explain_top", "add --explain"]),
            ({"weights": "/no/such.pth"}, ["/no/such.pth"]),
        ],
    )
    def test_flags(self, model, test_images, tmp_path, values, words):
        asked = {"model": str(model), "images": str(test_images)} | values
        message = go(tmp_path / "out", **asked)
        assert message.startswith("error: ") and "\n" not in message
        for word in words:
            assert word in message
        assert not (tmp_path / "out").exists()

    def test_output_directory(self, model, test_images, tmp_path):
        (tmp_path / "file").write_text("")
        message = go(tmp_path / "file", model=str(model), images=str(test_images))
        assert "--output_dir" in message and "cannot be written" in message

    def test_no_model_in_the_directory(self, test_images, tmp_path):
        message = go(tmp_path / "out", model=str(test_images), images=str(test_images))
        assert "holds no model" in message


class TestFind:
    """What `--images` names."""

    def names(self, text):
        return [source.name for source in prediction.find(str(text))]

    def test_directories_patterns_and_single_images(self, test_images):
        both = [f"{kind}/{i}.png" for kind in ("dent", "good") for i in range(3)]
        assert self.names(test_images) == both
        assert self.names(test_images / "**" / "*.png") == both
        assert self.names(test_images / "*" / "0.png") == ["dent/0.png", "good/0.png"]
        assert self.names(test_images / "dent" / "1.png") == ["1.png"]

    def test_what_was_written_is_no_image(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        trees.save(tmp_path / "a.png", trees.image(0))
        mine = tmp_path / "predictions" / "overlays" / "mine.png"
        trees.save(mine, trees.image(1))
        with written.opened(Path("predictions"), "--output_dir", "predict") as output:
            trees.save(output.claim("overlays/a.png.png"), trees.image(2))
        wanted = ["a.png", "predictions/overlays/mine.png"]
        for text in (".", str(tmp_path), "**/*.png"):
            assert self.names(text) == wanted
            assert "passed over, as an earlier call wrote them: 1\n" in capsys.readouterr().err
        # A copy of the directory has a copy of the record.
        shutil.copytree("predictions", "copied/of/them")
        assert len(self.names("**/*.png")) == 3
        mine.unlink()
        with pytest.raises(ConfigError, match="no image but 1 that an earlier call wrote"):
            prediction.find("predictions/overlays")
        assert self.names("predictions/overlays/a.png.png") == ["a.png.png"]  # who asks gets it

    def test_what_lies_where_results_go_is_refused(self, tmp_path):
        trees.save(tmp_path / "maps" / "below" / "a.png", trees.image(0))
        (tmp_path / "link").symlink_to(tmp_path / "maps" / "below")
        goes = predictions.drawn(tmp_path)
        for text in (".", "maps/below/a.png", "**/*.png", "link"):
            with pytest.raises(ConfigError, match=r"a\.png' lies in .*maps', where results"):
                prediction.find(str(tmp_path / text), goes)
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "b.png").symlink_to(tmp_path / "maps" / "below" / "a.png")
        with pytest.raises(ConfigError, match=r"b\.png' lies in .*maps', where results"):
            prediction.find(str(tmp_path / "photos"), goes)
        assert prediction.find(str(tmp_path), predictions.drawn(tmp_path / "other"))

    def test_a_list_that_leaves_its_directory(self, tmp_path, monkeypatch):
        """Names stay below the directory of all, and one image is one, however it is written."""
        for name in ("a/b/here/one.png", "photos/two.png"):
            trees.save(tmp_path / name, trees.image(0))
        lines = ["here/one.png", "../../photos/two.png", "./here/../here/one.png"]
        lines.append(str(tmp_path / "photos" / "two.png"))
        monkeypatch.chdir(tmp_path / "a" / "b")
        Path("list.txt").write_text("\n".join(lines))
        assert self.names("list.txt") == ["a/b/here/one.png", "photos/two.png"]
        assert self.names("../../*/*.png") == ["two.png"]
        # `..` of a link is above where the link leads.
        Path("link").symlink_to(tmp_path / "photos")
        Path("list.txt").write_text("link/../a/b/here/one.png\nhere/one.png")
        assert self.names("list.txt") == ["one.png"]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be"])
    def test_lists_of_any_editor(self, tmp_path, encoding):
        for name in ("one", "zwei ä"):
            trees.save(tmp_path / f"{name}.png", trees.image(0))
        mark = "\ufeff" if encoding.startswith("utf-16") else ""
        text = f"{mark}one.png\r\nzwei ä.png\r\n"
        (tmp_path / "list.txt").write_bytes(text.encode(encoding))
        assert self.names(tmp_path / "list.txt") == ["one.png", "zwei ä.png"]

    def test_lists(self, test_images, tmp_path):
        path = tmp_path / "wanted.txt"
        lines = [test_images / "good" / "1.png", "", test_images / "dent" / "0.png", "gone.png"]
        path.write_text("\n".join(map(str, [*lines, lines[0]])))
        found = prediction.find(str(path))
        assert [one.path for one in found] == [lines[0], lines[2], tmp_path / "gone.png"]
        assert len({one.name for one in found}) == 3
        assert not any(one.name.startswith(("/", "..")) for one in found)

    def test_an_image_counts_once_by_whatever_name(
        self, test_images, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.chdir(test_images / "good")
        lines = ["1.png", test_images / "good" / "1.png", "./0.png", "../good/0.png", "1.png"]
        Path("list.txt").write_text("\n".join(map(str, lines)))
        try:
            assert self.names("list.txt") == ["1.png", "0.png"]
        finally:
            Path("list.txt").unlink()
        assert (
            "--images=list.txt names 3 images again, which count once: " in capsys.readouterr().err
        )
        for name in ("a.png", "b.png"):
            trees.save(tmp_path / name, trees.image(0))
        (tmp_path / "c.png").symlink_to("a.png")
        for text in (tmp_path, tmp_path / "*.png"):
            assert self.names(text) == ["a.png", "b.png"]
            assert f"names 1 images again, which count once: {tmp_path / 'c.png'}" in (
                capsys.readouterr().err
            )
        assert self.names(test_images) and not capsys.readouterr().err

    def test_lists_as_windows_writes_them(self, test_images, tmp_path):
        (tmp_path / "below").mkdir()
        for name in ("below/a.png", "b\\c.png"):
            trees.save(tmp_path / name, trees.image(0))
        (tmp_path / "list.txt").write_bytes(b"below\\a.png\r\nb\\c.png\r\n")
        assert self.names(tmp_path / "list.txt") == ["below/a.png", "b\\c.png"]

    def test_what_is_no_list(self, tmp_path):
        path = tmp_path / "list.bin"
        path.write_bytes(b"\xff\xfe\x00\x81")
        with pytest.raises(ConfigError, match=r"list\.bin is neither an image nor"):
            prediction.find(str(path))
        path.write_bytes(b"a.png\nb\0.png")
        with pytest.raises(ConfigError, match=r"list\.bin is neither an image nor"):
            prediction.find(str(path))
        (tmp_path / "empty.txt").write_text("\n\n")
        with pytest.raises(ConfigError, match="names no image"):
            prediction.find(str(tmp_path / "empty.txt"))


@contextlib.contextmanager
def open_writer(directory, names=(), **options):
    tally = thresholds.tally(np.arange(5.0))
    chosen = {"maps": "png", "overlays": True, "outlines": True} | options
    with written.opened(directory, "--output_dir", "predict") as output:
        yield predictions.Writer(
            output, Nulls(tally, tally), predictions.Decisions(3.0, 2.0),
            sources=[prediction.Source(directory / name, name) for name in names], **chosen,
        )  # fmt: skip


def write(directory, *names, **options):
    """A prediction of blank images with these names."""
    with open_writer(directory, names, **options) as writer:
        for name in names:
            source = prediction.Source(directory / name, name)
            image, anomaly_map = np.zeros((8, 8), np.uint8), np.eye(8, dtype=np.float32)
            writer.add(prediction.Predicted(source, image, anomaly_map, 1.0))
        writer.finish({})


def files(directory):
    found = (path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in found)


WHOLE = ["contours.json", "predictions.json", "scores.csv", "written.jsonl"]


def pictures(*names):
    return [f"{kind}/{name}.png" for kind in ("maps", "overlays") for name in names]


class TestWriter:
    def test_an_earlier_prediction_is_replaced_and_nothing_else(self, tmp_path, capsys):
        write(tmp_path, "a.png", "below/b.png")
        assert files(tmp_path) == sorted([*WHOLE, *pictures("a.png", "below/b.png")])
        assert "replaces" not in capsys.readouterr().err
        mine = ["maps/mine.png", "overlays/below/mine.txt", "explanations/mine.png", "mine.txt"]
        for name in mine:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("weeks of work")
        # A picture that the user has painted on since is the user's.
        (tmp_path / "overlays" / "below" / "b.png.png").write_text("painted")
        write(tmp_path, "c.png")
        mine.append("overlays/below/b.png.png")
        assert files(tmp_path) == sorted([*WHOLE, *mine, *pictures("c.png")])
        assert "7 files of an earlier call, which this one" in capsys.readouterr().err
        assert list(rows(tmp_path)) == ["c.png"]

    def test_an_earlier_prediction_stays_where_nothing_can_be_scored(self, tmp_path):
        write(tmp_path / "out", "a.png")
        before = {name: (tmp_path / "out" / name).read_bytes() for name in files(tmp_path / "out")}
        with open_writer(tmp_path / "out", ["bad.png"]) as writer:
            bad = prediction.Source(tmp_path / "bad.png", "bad.png")
            writer.add(prediction.Unread(bad, "it is no image"))
            writer.finish({})
        assert {n: (tmp_path / "out" / n).read_bytes() for n in files(tmp_path / "out")} == before
        with open_writer(tmp_path / "new", ["bad.png"]) as writer:
            writer.add(prediction.Unread(bad, "it is no image"))
            writer.finish({})
        assert files(tmp_path / "new") == WHOLE and not rows(tmp_path / "new")

    @pytest.mark.parametrize(
        "name", ["scores.csv", "predictions.json", "contours.json", "maps/a.png.png", "maps"]
    )
    def test_what_is_in_the_way_is_named_before_any_work(self, tmp_path, name):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("weeks of work")
        with pytest.raises(ConfigError, match=f"'{name}' is in the way") as refused:
            write(tmp_path, "b.png", "a.png")
        assert "\n" not in str(refused.value)
        assert files(tmp_path) == [name] and (tmp_path / name).read_text() == "weeks of work"

    def test_results_of_a_run_are_not_those_of_a_prediction(self, tmp_path):
        with written.opened(tmp_path, "--workdir", "run") as output:
            output.claim("scores.csv").write_text("a,b")
        with pytest.raises(ConfigError, match=r"'scores\.csv' is in the way"):
            write(tmp_path, "a.png")

    def test_a_table_that_was_edited_is_kept(self, tmp_path):
        write(tmp_path, "a.png")
        with (tmp_path / "scores.csv").open("a") as file:
            file.write("my remarks\n")
        before = files(tmp_path)
        with pytest.raises(ConfigError, match="in the way, for it was changed since"):
            write(tmp_path, "b.png")
        assert files(tmp_path) == before

    def test_links_out_of_the_directory_are_not_followed(self, tmp_path):
        (tmp_path / "photos").mkdir()
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "maps").symlink_to(tmp_path / "photos")
        with pytest.raises(ConfigError, match=r"a link in .* leads out of it"):
            write(tmp_path / "out", "a.png")
        assert files(tmp_path / "photos") == []

    def test_names_that_are_too_long_or_alike(self, tmp_path):
        names = ["a" * 250 + ".png", "b.png", "B.png", "c.png", "c.png.png/d.png", "b.jpg"]
        write(tmp_path, *names)
        assert list(rows(tmp_path)) == names
        renamed = json.loads((tmp_path / "predictions.json").read_text())["renamed"]
        assert set(renamed) == {names[0], "B.png", "c.png.png/d.png"}
        drawn = [name for name in files(tmp_path) if "/" in name]
        assert len(drawn) == len({name.lower() for name in drawn}) == 12
        assert set(drawn) >= {name for of_image in renamed.values() for name in of_image}
        write(tmp_path, "z.png")  # and each is known to be ours
        assert files(tmp_path) == sorted([*WHOLE, *pictures("z.png")])

    def test_two_at_once(self, tmp_path):
        with (
            open_writer(tmp_path),
            pytest.raises(ConfigError, match=f"is in use by process {os.getpid()} on "),
            open_writer(tmp_path),
        ):
            pass
        write(tmp_path, "a.png")


def test_one_more_image_and_two_commands(model, test_images, tmp_path, capsys):
    """The whole way: what an earlier prediction below the images left is passed over."""
    images = shutil.copytree(test_images / "good", tmp_path / "images")
    asked = {"model": str(model), "images": str(images)}
    for _ in range(2):
        assert go(images / "predictions", **asked) == 0
        assert list(rows(images / "predictions")) == ["0.png", "1.png", "2.png"]
    said = capsys.readouterr().err
    assert "passed over, as an earlier call wrote them: 6\n" in said
    assert "9 files of an earlier call, which this one replaces" in said
    (images / "maps").mkdir()
    (images / "0.png").rename(images / "maps" / "0.png")
    message = go(images, **asked)
    assert message.startswith("error: ") and "where results go: name another --output" in message
    assert not (images / "scores.csv").exists()


def test_few_large_images_are_held_at_a_time(monkeypatch, tmp_path):
    sources = [prediction.Source(tmp_path / str(i), str(i)) for i in range(7)]
    sizes = {"0": 5, "1": 5, "2": 30, "3": 1, "4": 1, "5": 9, "6": 1}
    monkeypatch.setattr(prediction, "_PIXELS", 10)
    monkeypatch.setattr(prediction, "_num_pixels", lambda source: sizes[source.name])
    with prediction.ThreadPoolExecutor(1) as pool:
        found = [[s.name for s in some] for some in prediction._batches(sources, 5, pool)]
    assert found == [["0", "1"], ["2"], ["3", "4"], ["5", "6"]]


def test_maps_in_sixteen_bits(tmp_path, rng):
    for anomaly_map in (rng.normal(size=(30, 20)) * 50, np.full((3, 4), -2.5)):
        anomaly_map = anomaly_map.astype(np.float32)
        predictions.write_png(tmp_path / "map.png", anomaly_map)
        with Image.open(tmp_path / "map.png") as image:
            assert np.asarray(image).dtype in (np.uint16, np.int32)
        found = predictions.read_png(tmp_path / "map.png")
        np.testing.assert_allclose(found, anomaly_map, atol=np.ptp(anomaly_map) / 100_000 + 1e-6)


def test_what_was_scored_so_far_is_kept(tmp_path):
    """Rows as they come; the outlines whenever the work ends."""
    with open_writer(tmp_path, maps="none", overlays=False) as writer:
        anomaly_map = np.zeros((8, 8), np.float32)
        anomaly_map[2:4, 2:6] = 9
        source = prediction.Source(tmp_path / "a.png", "a.png")
        image = np.zeros((8, 8), np.uint8)
        writer.add(prediction.Predicted(source, image, anomaly_map, 9.0))
        assert rows(tmp_path)["a.png"] == {
            "path": "a.png", "score": "9", "p_value": "0.166667", "nominal_below": "0.833333",
            "decision": "anomalous",
        }  # fmt: skip
        writer.finish({"category": "cap"})
    (annotation,) = json.loads((tmp_path / "contours.json").read_text())["annotations"]
    assert annotation["bbox"] == [2, 2, 4, 2] and annotation["area"] == 8


@pytest.mark.slow
def test_another_process_finds_the_same(tmp_path):
    """The whole way by its commands, with the default detector and the demo."""

    def command(module, *arguments):
        call = [sys.executable, "-m", f"experiments.{module}", "--cache_dir=", *arguments]
        return subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=500)

    made = command("run", "--category=brick", f"--workdir={tmp_path / 'run'}", "--save_model")
    assert made.returncode == 0, made.stderr
    path = tmp_path / "run" / "models" / "brick"
    size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    assert size < 2e7
    from sgfr_jax import datasets

    (category,) = datasets.load("demo", categories=["brick"])
    (tmp_path / "images").mkdir()
    names = {}
    for number, example in enumerate(category.test):
        names[example.name] = f"{number:03}.png"
        Image.fromarray(example.image).save(tmp_path / "images" / names[example.name])
    found = command(
        "predict", f"--model={path}", f"--images={tmp_path / 'images'}",
        f"--output_dir={tmp_path / 'out'}", "--fail_on_anomaly", "--threshold=f1",
    )  # fmt: skip
    assert found.returncode == 3, found.stderr
    scored = rows(tmp_path / "out")
    with (tmp_path / "run" / "scores.csv").open() as file:
        for row in csv.DictReader(file):
            assert np.float32(row["score"]) == np.float32(scored[names[row["file"]]]["score"])


@pytest.mark.slow
@pytest.mark.skipif(not MTD.exists(), reason=f"the magnetic tile data set is not at {MTD}")
def test_magnetic_tiles(tmp_path):
    """Real images of many sizes: few to fit on, and those that the null should tell apart."""
    nominal = sorted((MTD / "MT_Free" / "Imgs").glob("*.jpg"))
    kinds = ("MT_Blowhole", "MT_Break", "MT_Crack", "MT_Fray")
    defective = [path for kind in kinds for path in sorted((MTD / kind / "Imgs").glob("*.jpg"))[:5]]
    for place, paths in {
        "train/good": nominal[::8], "test/good": nominal[4::40], "test/bad": defective
    }.items():  # fmt: skip
        (tmp_path / "tiles" / place).mkdir(parents=True)
        for path in paths:
            (tmp_path / "tiles" / place / path.name).write_bytes(path.read_bytes())
    settings = config.resolve(
        config.Config.of(dataset="folder", data_dir=str(tmp_path / "tiles"), layers=("fast",))
    )
    run.run(settings, Resources(tmp_path / "run", num_figures=0, save_model=True))
    model = saved.load(next((tmp_path / "run" / "models").iterdir()))
    assert model.nulls.images.counts.sum() == len(nominal[::8])
    values = {"model": str(next((tmp_path / "run" / "models").iterdir())), "batch_size": 16}
    values["false_alarm_rate"] = 0.1
    assert go(tmp_path / "out", images=str(tmp_path / "tiles" / "test"), **values) == 0
    found = rows(tmp_path / "out")
    called = {name: row["decision"] == "anomalous" for name, row in found.items()}
    good = [flag for name, flag in called.items() if name.startswith("good")]
    bad = [flag for name, flag in called.items() if name.startswith("bad")]
    # Of 24 nominal ones 10% are expected; 7 or more have a probability below 2%.
    assert sum(good) <= 6 and np.mean(bad) >= np.mean(good) + 0.2
    for name in list(found)[:5]:
        with Image.open(tmp_path / "tiles" / "test" / name) as image:
            size = image.size
        assert predictions.read_png(tmp_path / "out" / "maps" / f"{name}.png").shape == size[::-1]
