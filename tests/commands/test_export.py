"""Files that other programs run, of models that are made."""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgfr_jax.commands import export
from sgfr_jax.commands.files import artefacts
from sgfr_jax.commands.flags import config, usage
from sgfr_jax.commands.host import interruption
from sgfr_jax.detector import exporting, model, predicting, saved
from sgfr_jax.detector.services import Services
from tests.detector import made_models
from tests.small import SMALL, texture

ONNX = pytest.mark.skipif(
    importlib.util.find_spec("jax2onnx") is None, reason="needs the extra [onnx]"
)


def made(**fields):
    return made_models.make(config.resolve(usage.cleared(SMALL.replace(**fields))))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Saved models by name, and photographs of several modes and sizes."""
    directory = tmp_path_factory.mktemp("export")
    saved.save(directory / "one_bank", made())
    saved.save(directory / "automatic", made(layers=("auto",), num_neighbors=4))
    saved.save(directory / "streams", made(layers=("block2@1", "block4@1.5"), num_neighbors=4))
    saved.save(directory / "omp", made(solver="omp"))
    saved.save(directory / "reduced", made(search="reduced"))
    rng = np.random.default_rng(0)
    grey = texture(rng, 80)
    Image.fromarray(grey).save(directory / "0.png")
    Image.fromarray(np.stack([grey, 255 - grey, grey.T], -1)[:70]).save(directory / "1.png")
    colours = Image.fromarray(np.stack([grey, grey // 2, grey.T], -1))
    exif = colours.getexif()
    exif[0x0112] = 6  # lies on its side
    colours.crop((0, 0, 80, 66)).save(directory / "2.jpg", exif=exif)
    return directory


@pytest.fixture(autouse=True)
def uninterrupted(monkeypatch):
    monkeypatch.setattr(interruption, "exit_at_once", lambda *args: None)


def go(*arguments):
    """The error's line, or None."""
    try:
        export.main([str(a) for a in arguments])
    except SystemExit as stopped:
        return stopped.code
    return None


# What a foreign process adds to the lines of the description.
_PROLOGUE = "paths = {paths!r}\n"
_EPILOGUE = """
import json, sys
roots = {{name.partition(".")[0] for name in sys.modules}}
assert not roots & {{"sgfr_jax", "experiments", "flax", "orbax", "skimage", "absl"}}, roots
maps = np.asarray(anomaly_maps)
sums = maps.astype(float).sum((1, 2))
print(json.dumps([maps.shape, sums.tolist(), np.asarray(scores).tolist()]))
"""


def run_elsewhere(output, paths):
    """What a process finds that has the description's lines alone, in the file's directory."""
    description = json.loads(output.with_name(f"{output.name}.json").read_text())
    lines = [_PROLOGUE.format(paths=paths), *description["usage"], _EPILOGUE.format()]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=output.parent, env=environment,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def from_the_model(model_dir, paths):
    from sgfr_jax.datasets import Example
    from sgfr_jax.datasets.images import read_native

    pixels = [read_native(Example(p, Path(p), -1, "", None)).image for p in paths]
    detector = saved.load(model_dir)
    stages = model.stages_of(detector, Services(batch_size=4))
    return list(predicting.make_scorer(detector, stages)(pixels))


@pytest.mark.parametrize(
    "form", ["stablehlo", pytest.param("onnx", marks=[ONNX, pytest.mark.slow])]
)
@pytest.mark.parametrize("name", ["one_bank", pytest.param("automatic", marks=pytest.mark.slow)])
def test_a_process_with_the_file_alone_finds_the_same(name, form, place, tmp_path, capsys):
    output = tmp_path / "new" / f"{name}.{form}"
    assert go("--model", place / name, "--output", output, "--format", form) is None
    assert "maps within" in capsys.readouterr().out
    paths = [str(place / image) for image in ("0.png", "1.png", "2.jpg")]
    shape, sums, scores = run_elsewhere(output, paths)
    expected = from_the_model(place / name, paths)
    assert shape == [3, 64, 64]
    assert scores == pytest.approx([float(one.score) for one in expected], rel=1e-5)
    assert sums == pytest.approx([one.anomaly_map.sum() for one in expected], rel=1e-5)


def test_the_flags_know_every_format():
    assert tuple(artefacts.FORMATS) == export.FORMATS


def test_the_file_is_for_three_platforms_and_calls_no_library(place):
    from jax import export as jax_export

    written = artefacts.FORMATS["stablehlo"].write(
        saved.load(place / "one_bank"), export.DEFAULT_PLATFORMS
    )
    found = jax_export.deserialize(bytearray(written))
    assert found.platforms == ("cpu", "cuda", "tpu") and not found.disabled_safety_checks
    calls = set(re.findall(r"custom_call @([\w.]+)", found.mlir_module()))
    assert calls <= {"shape_assertion"}  # JAX's own, of the batch
    (images,), (anomaly_map, score) = found.in_avals, found.out_avals
    assert str(images.shape) == "(b, 64, 64, 3)" and images.dtype == np.uint8
    assert str(anomaly_map.shape) == "(b, 64, 64)" and str(score.shape) == "(b,)"


def test_the_description_says_what_the_file_takes(place, tmp_path):
    output = tmp_path / "cap.stablehlo"
    asked = ("--model", place / "streams", "--output", output, "--platforms=cpu", "--no_check")
    output.write_text("mine")
    assert "cap.stablehlo is in the way, for nothing says that this" in go(*asked)
    assert output.read_text() == "mine"
    # Of its own it is known what they were.
    mine = {"file": output.name, "sha256": hashlib.sha256(b"mine").hexdigest()}
    (tmp_path / "cap.stablehlo.json").write_text(json.dumps(mine))
    assert go(*asked) is None
    found = json.loads((tmp_path / "cap.stablehlo.json").read_text())
    assert found["platforms"] == ["cpu"]
    assert found["bytes"] == output.stat().st_size > 2e5  # the network's weights lie in it
    assert [(x["name"], x["shape"]) for x in found["inputs"]] == [
        ("images_64", ["b", 64, 64, 3]), ("images_96", ["b", 96, 96, 3])
    ]  # fmt: skip
    assert found["agreement"] is None and found["category"] == "made"
    assert found["thresholds"]["false_alarm_rates"][0]["wanted"] == 0.01
    assert [p.name for p in sorted(tmp_path.iterdir())] == [output.name, f"{output.name}.json"]


def test_a_file_that_does_not_agree_is_not_written(place, tmp_path, monkeypatch):
    """The weights of the network are others when it is exported."""
    whole = exporting.make(saved.load(place / "one_bank"))

    def score(patches):
        return whole.score([features * 1.001 for features in patches])

    monkeypatch.setattr(exporting, "make", lambda _: whole._replace(score=score))
    output = tmp_path / "cap"
    assert "away from the model" in go("--model", place / "one_bank", "--output", output)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model=omp"], "--solver=omp cannot be exported; affine_ridge, ridge, nearest can"),
        (["--model=reduced", "--format=onnx"], "fit it with --search=exact"),
        (["--model=0.png"], "is a file: a directory that a model was saved in is needed"),
        (["--model=nothing"], "does not exist"),
        (["--model=damaged"], "is damaged"),
        (["--model=one_bank", "--format=onx"], "--format: unknown format 'onx'"),
        (["--model=one_bank", "--platforms=cpu,gpu"], "--platforms: unknown platform 'gpu'"),
        (["--model=one_bank", "--platforms=cpu,cpu"], "each named once"),
        (["--model=one_bank", "--platforms=tpu"], "add cpu, or --no_check"),
        (["--model=one_bank", "--format=onnx", "--platforms=cpu"], "--platforms is for"),
        (["--model=one_bank", "--output=one_bank"], "is a directory: name a file"),
        (["--model=one_bank", "--output=a.onnx"], "is named as onnx, and stablehlo would be writ"),
        (["--model=one_bank", "--output=0.png/x"], "0.png"),
        (["--model=one_bank", "--weights=0.png"], "other weights"),
    ],
    ids=lambda x: x if isinstance(x, str) else " ".join(x),
)
def test_mistakes_are_one_line(arguments, said, place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(artefacts, "_require", lambda *args: None)
    damaged = place / "damaged"
    if not damaged.exists():
        saved.save(damaged, saved.load("one_bank"))
        (damaged / "model.json").write_text("{")
    line = go("--output=out", *arguments)
    assert line.startswith("error: ") and said in line and "\n" not in line
    assert not (place / "out").exists() and not (place / "out.json").exists()


def test_a_package_that_is_missing(place, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    line = go("--model", place / "one_bank", "--output", tmp_path / "x", "--format=onnx")
    assert "pip install 'sgfr_jax[onnx]'" in line
