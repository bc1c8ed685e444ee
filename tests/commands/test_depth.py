"""A camera of 12 bits in files of 16, from the run to whatever uses its model."""

import json

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from sgfr_jax.commands import predict, run
from sgfr_jax.commands import update as updating
from sgfr_jax.commands.files import artefacts
from sgfr_jax.commands.files import training_images as reading
from sgfr_jax.commands.flags import config
from sgfr_jax.commands.host import interruption
from sgfr_jax.commands.host.machine import Resources
from sgfr_jax.datasets import Example
from sgfr_jax.detector import saved, splits
from tests.small import SMALL, write_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photographs of 8 bits, the same ones of 12 in 16, and a run of either."""
    directory = tmp_path_factory.mktemp("depth")
    root = write_folder(directory)
    root = root.rename(directory / "of_8") / "cap"
    for path in sorted(root.rglob("*.png")):
        target = directory / "of_12" / "cap" / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.asarray(Image.open(path))
        if "ground_truth" not in str(path):
            pixels = np.round(pixels * (4095 / 255)).astype(np.uint16)
        Image.fromarray(pixels).save(target)
    for name in ("of_8", "of_12"):
        settings = SMALL.replace(data_dir=str(directory / name / "cap"), layers=("block2",))
        run.run(
            config.resolve(settings),
            Resources(directory / "runs" / name, batch_size=4, num_figures=0, save_model=True,
                      cache_dir=directory / "cache", cache_bytes=10**9),
        )  # fmt: skip
    return directory


@pytest.fixture(autouse=True)
def parsed(monkeypatch):
    monkeypatch.setattr(interruption, "exit_at_once", lambda *args: None)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["predict"])


def model_of(place, name="of_12"):
    return place / "runs" / name / "models" / "cap"


def test_the_same_scores_and_a_note(place):
    found = [
        json.loads((place / "runs" / name / "results.json").read_text())
        for name in ("of_8", "of_12")
    ]
    of_8, of_12 = (one["categories"]["cap"] for one in found)
    for name in ("image_auroc", "pixel_auroc", "pixel_ap", "aupro"):
        assert of_8[name] == of_12[name] is not None
    assert not any("bits" in note for note in found[0]["notes"].get("cap", ()))
    assert any("use 12 bits" in note for note in found[1]["notes"]["cap"])


def test_a_model_keeps_what_is_white(place):
    model = saved.load(model_of(place))
    assert model.about.white == 4095
    assert all(len(of_image) == 64 for of_image in model.about.hashes)
    # Its training images are found again, and shown as they were seen.
    grey = np.asarray(Image.open(place / "of_8" / "cap" / model.about.train[0]))
    np.testing.assert_array_equal(reading.make_reader(model)(0), grey)


def predicted(place, name, out, monkeypatch):
    values = {
        "model": str(model_of(place, name)), "images": str(place / name / "cap" / "test"),
        "output_dir": str(out), "batch_size": 4, "cache_dir": "",
    }  # fmt: skip
    with flagsaver.flagsaver(**values), pytest.raises(SystemExit) as stopped:
        predict.main(["predict"])
    assert stopped.value.code == 0
    return [line.split(",")[:2] for line in (out / "scores.csv").read_text().splitlines()]


def test_predictions_are_those_of_8_bits_and_pictures_are_not_black(place, tmp_path, monkeypatch):
    of_8 = predicted(place, "of_8", tmp_path / "of_8", monkeypatch)
    assert predicted(place, "of_12", tmp_path / "of_12", monkeypatch) == of_8
    for path in sorted((tmp_path / "of_8" / "overlays").rglob("*.png")):
        with Image.open(path) as one:
            other = Image.open(tmp_path / "of_12" / path.relative_to(tmp_path / "of_8"))
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
            assert np.asarray(one).mean() > 60


def test_a_model_of_other_depth_is_said(place, tmp_path, capsys):
    values = {
        "model": str(model_of(place, "of_8")), "images": str(place / "of_12" / "cap" / "test"),
        "output_dir": str(tmp_path), "batch_size": 4, "cache_dir": "",
    }  # fmt: skip
    with flagsaver.flagsaver(**values), pytest.raises(SystemExit):
        predict.main(["predict"])
    assert "note: images of 16 bits have no value above" in capsys.readouterr().err


def test_an_update_knows_its_images_again(place, tmp_path, capsys):
    values = {
        "model": str(model_of(place)), "images": str(place / "of_12" / "cap" / "train"),
        "output": str(tmp_path / "out"), "cache_dir": "",
    }  # fmt: skip
    with flagsaver.flagsaver(**values), pytest.raises(SystemExit) as stopped:
        updating.main(["update"])
    assert "the model has learned from all of these already" in str(stopped.value.code)
    values["images"] = str(place / "of_12" / "cap" / "test" / "good")
    with flagsaver.flagsaver(**values):
        updating.main(["update"])
    grown = saved.load(tmp_path / "out")
    assert grown.about.white == 4095
    assert all(len(of_image) == 64 for of_image in grown.about.hashes)


def test_pixels_that_differ_have_other_hashes(place):
    """Embeddings are kept by them: the same file may be read in two ways."""
    path = next((place / "of_12" / "cap" / "train").rglob("*.png"))
    example = Example("x", path, 0, "good", None)
    (usual,), (other,) = (
        splits.hash_images([one]) for one in (example, example._replace(white=4095))
    )
    assert usual != other and splits.of_contents([other]) == (usual,)


def test_what_uses_an_exported_file_reads_as_the_model_does(place):
    path = next((place / "of_12" / "cap" / "train").rglob("*.png"))
    grey = np.asarray(Image.open(place / "of_8" / path.relative_to(place / "of_12")))
    for white, expected in ((4095, grey), (65535, None)):
        text = artefacts.usage("onnx", "x.onnx", [72], white)
        defined = {}
        exec(text[text.index("import numpy") : text.index("\n\nsession")], defined)
        if expected is not None:
            square = np.asarray(defined["square"](Image.open(path), 72))
            np.testing.assert_array_equal(square, np.repeat(expected[..., None], 3, axis=2))
