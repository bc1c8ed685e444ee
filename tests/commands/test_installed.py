"""What an engineer without the checkout has: a wheel and a fitted model."""

import csv
import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest

from tests.small import write_folder

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def call(*command, cwd, status=0):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    found = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert found.returncode == status, found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """Where the commands of an installed wheel lie; dependencies are borrowed, not fetched."""
    place = tmp_path_factory.mktemp("installed")
    # Not built in the checkout, which it would leave directories in.
    source = place / "source"
    source.mkdir()
    call("cp", "-r", *(ROOT / n for n in ("sgfr_jax", "setup.py", "setup.cfg",
         "README.md", "LICENSE")), source, cwd=place)  # fmt: skip
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir=wheels")
    built = subprocess.run([*pip, str(source)], cwd=place, capture_output=True, text=True)
    if built.returncode:  # such as where setuptools cannot be fetched
        pytest.skip(f"no wheel can be built here: {built.stderr.strip().splitlines()[-1]}")
    venv.create(place / "venv", with_pip=True)
    scripts = place / "venv" / "bin"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    libraries = call(scripts / "python", "-c", where, cwd=place)
    borrowed = Path(libraries.strip()) / "borrowed.pth"
    borrowed.write_text(sysconfig.get_path("purelib") + "\n")
    (wheel,) = (place / "wheels").glob("*.whl")
    call(scripts / "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=place)
    return scripts


def test_the_commands_come_from_the_wheel(scripts, tmp_path):
    # A user's own package of that name is not ours to take.
    (tmp_path / "experiments.py").write_text("")
    code = "import experiments, sgfr_jax; print(experiments.__file__, sgfr_jax.__file__)"
    theirs, ours = call(scripts / "python", "-c", code, cwd=tmp_path).split()
    assert Path(theirs) == tmp_path / "experiments.py"
    assert Path(ours).is_relative_to(scripts.parent)
    said = call(scripts / "sgfr-predict", "--help", cwd=tmp_path)
    for flag in ("--model", "--images", "--false_alarm_rate"):
        assert flag in said
    assert "--batch_size" in call(scripts / "sgfr-predict", "--helpfull", cwd=tmp_path)
    assert "--layers" not in said and "Exit status" in said
    said = call(scripts / "sgfr-run", "--help", cwd=tmp_path)
    assert "--layers" in said and "Fits on nominal images" in said
    said = call(scripts / "sgfr-select", "--help", cwd=tmp_path)
    assert "--candidates" in said and "--layers" in said and "sgfr-select --dataset" in said
    said = call(scripts / "sgfr-sweep", "--help", cwd=tmp_path)
    assert "--executor" in said and "--layers" in said and "sgfr-sweep --grid" in said
    said = call(scripts / "sgfr-export", "--help", cwd=tmp_path)
    assert "usage: sgfr-export" in said and "--platforms" in said and "OUTPUT.json" in said
    said = call(scripts / "sgfr-report", "--help", cwd=tmp_path)
    assert "usage: sgfr-report" in said and "--workdir" in said and "--html" in said


def test_a_model_is_used_without_the_checkout(scripts, tmp_path):
    photographs = write_folder(tmp_path)
    call(
        scripts / "sgfr-run", "--dataset=folder", f"--data_dir={photographs}",
        "--category=cap", f"--workdir={tmp_path / 'run'}", "--layers=block2", "--image_size=64",
        "--bank_size=20", "--num_figures=0", "--save_model", "--cache_dir=", cwd=tmp_path,
    )  # fmt: skip
    model, wanted = tmp_path / "run" / "models" / "cap", photographs / "cap" / "test"
    predict = (scripts / "sgfr-predict", f"--model={model}", f"--images={wanted}", "--cache_dir=")
    call(*predict, "--fail_on_anomaly", cwd=tmp_path, status=3)
    with (tmp_path / "run" / "scores.csv").open() as file:
        expected = {row["file"]: np.float32(row["score"]) for row in csv.DictReader(file)}
    with (tmp_path / "predictions" / "scores.csv").open() as file:
        found = {f"cap/test/{r['path']}": np.float32(r["score"]) for r in csv.DictReader(file)}
    assert found == expected
    call(scripts / "sgfr-report", "--workdir=run", cwd=tmp_path)
    written = (tmp_path / "run" / "report" / "report.html").read_text()
    assert "cap/test/dent/0.png" in written and "function countsAt" in written
    code = f"from sgfr_jax.detector import saved; print(saved.load({str(model)!r}).about.category)"
    assert call(scripts / "python", "-c", code, cwd=tmp_path).strip() == "cap"
    call(scripts / "sgfr-export", f"--model={model}", "--output=cap.stablehlo", cwd=tmp_path)
    description = json.loads((tmp_path / "cap.stablehlo.json").read_text())
    usage = "\n".join([f"paths = {[str(p) for p in sorted(wanted.rglob('*.png'))]}",
                       *description["usage"], "print(scores.tolist())"])  # fmt: skip
    scores = json.loads(call(scripts / "python", "-c", usage, cwd=tmp_path))
    assert scores == pytest.approx([float(expected[name]) for name in sorted(expected)], rel=1e-5)
