"""Models that learn from more images, on small photographs that the tests make."""

import csv
import dataclasses
import functools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from experiments import (
    assembly,
    config,
    explanations,
    growth,
    interruption,
    loading,
    models,
    nulls,
    places,
    run,
    synthetic,
    training_images,
    update,
)
from sgfr_jax import thresholds
from sgfr_jax.datasets import Example
from tests.experiments.conftest import SMALL, texture, write_folder

MTD = Path(__file__).parents[3] / "shared" / "data" / "mtd"


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """One detector for all that are alike: programs take longer to compile than to run."""
    make = functools.cache(run.make_detector)

    def alike(settings, resources):
        settings = dataclasses.replace(settings, data_dir=None, categories=None)
        return make(settings, run.Resources(Path("unused"), batch_size=4))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "make_detector", alike)
        yield


@pytest.fixture(autouse=True)
def parsed(monkeypatch):
    monkeypatch.setattr(interruption, "exit_at_once", lambda *args: None)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["update"])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("update"))


def fit(photographs, workdir, **fields):
    settings = dataclasses.replace(SMALL, data_dir=str(photographs), categories=("cap",), **fields)
    resources = run.Resources(workdir, batch_size=4, num_figures=0, save_model=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SIZES", (0.1, 0.4))
        patch.setitem(synthetic.draw.__kwdefaults__, "copies", 1)
        run.run(config.resolve(settings), resources)
    return workdir / "models" / "cap"


@pytest.fixture(scope="module")
def one_bank(photographs, tmp_path_factory):
    return fit(photographs, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def automatic(photographs, tmp_path_factory):
    return fit(photographs, tmp_path_factory.mktemp("auto"), layers=("auto",), solver="nearest")


@pytest.fixture(params=["one_bank", pytest.param("automatic", marks=pytest.mark.slow)])
def fitted(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def novel(tmp_path_factory):
    """Nominal photographs of a kind that is new: another texture."""
    directory = tmp_path_factory.mktemp("novel")
    rng = np.random.default_rng(5)
    for i in range(5):
        Image.fromarray(texture(rng).T // 2 + 20).save(directory / f"{i}.png")
    return directory


def go(**values):
    """The error's line; None where there is none."""
    values = {"batch_size": 4, "cache_dir": ""} | values
    presence = {name: flags.FLAGS[name].present for name in flags.FLAGS}
    with flagsaver.flagsaver():
        for name, value in values.items():
            flags.FLAGS[name].value = value
            flags.FLAGS[name].present = 1
        try:
            update.main(["update"])
        except SystemExit as stopped:
            return stopped.code
        finally:
            for name, present in presence.items():
                flags.FLAGS[name].present = present


def score(model, paths):
    images = [np.asarray(Image.open(path)) for path in sorted(paths)]
    return np.array([found.score for found in models.make_scorer(model, batch_size=4)(images)])


def test_it_learns_what_is_new_and_keeps_what_it_knew(fitted, novel, photographs, tmp_path, capsys):
    report = tmp_path / "report.csv"
    asked = {"model": str(fitted), "images": str(novel), "report": str(report)}
    assert go(output=str(tmp_path / "new"), **asked) is None
    said = capsys.readouterr()
    assert "grown by 5 images" in said.out and "5 of 5 images score above" in said.err
    old, new = models.load(fitted), models.load(tmp_path / "new")

    rows = list(csv.DictReader(report.open()))
    assert [row["path"] for row in rows] == [f"{i}.png" for i in range(5)]
    before = score(old, novel.iterdir())
    np.testing.assert_allclose([float(row["score"]) for row in rows], before, rtol=1e-4)
    assert all(0 <= float(row["known"]) < 0.8 for row in rows)
    after = score(new, novel.iterdir())
    assert (after < before).all()
    # What it knew it knows: nominal photographs, and that a dent is none.
    tests = photographs / "cap" / "test"
    good, dents = score(new, (tests / "good").iterdir()), score(new, (tests / "dent").iterdir())
    assert good.max() < dents.min()

    assert new.about.train[:5] == old.about.train and len(new.about.train) == 10
    assert [Path(path).name for path in new.about.paths[5:]] == [f"{i}.png" for i in range(5)]
    assert new.about.data != old.about.data and new.about.f1_threshold is None
    assert "null of 5 images as they scored before" in new.about.notes[-1]
    assert new.nulls.images.counts.sum() == 10
    assert new.nulls.pixels.counts.sum() == old.nulls.pixels.counts.sum() + 5 * 64**2


def test_every_atom_is_the_patch_that_it_is_said_to_be(fitted, novel, tmp_path):
    go(model=str(fitted), images=str(novel), output=str(tmp_path / "new"))
    new = models.load(tmp_path / "new")
    detector = models.make_detector(new, batch_size=4)
    images = [np.asarray(Image.open(path)) for path in new.about.paths]
    seen = loading.views(models.as_split(images))
    embedded = [
        [np.asarray(x)[: found.num] for x in jax.tree.leaves(found.patches)]
        for found in assembly.batches(detector, seen)
    ]
    each = [np.concatenate(parts) for parts in zip(*embedded, strict=True)]
    came = 0
    for bank, origin, patches in zip(nulls.banks(new.state), new.origins, each, strict=True):
        used = bank.weights > 0
        expected = patches[origin.images[used], origin.cells[used]]
        np.testing.assert_allclose(bank.atoms[used], expected, atol=1e-5)
        came += np.sum(origin.images[used] >= 5)
    assert came > 0


def test_what_it_has_learned_from_is_left_out(fitted, photographs, tmp_path, capsys):
    train = photographs / "cap" / "train" / "good"
    asked = {"model": str(fitted), "output": str(tmp_path / "new")}
    assert "has learned from all of these already" in go(images=str(train), **asked)
    assert not (tmp_path / "new").exists()
    mixed = tmp_path / "mixed"
    shutil.copytree(train, mixed)
    shutil.copy(mixed / "0.png", mixed / "twice.png")
    shutil.copy(photographs / "cap" / "test" / "good" / "0.png", mixed / "more.png")
    shutil.copy(photographs / "cap" / "test" / "good" / "0.png", mixed / "more_twice.png")
    capsys.readouterr()
    assert go(images=str(mixed), **asked) is None
    assert "grown by 1 images" in (said := capsys.readouterr().out)
    assert "7 known already were left out" in said


def test_its_own_images_are_known_and_the_outcome_is_the_same_twice(fitted, photographs):
    """The training images, as if the model could not tell that they are."""
    model = models.load(fitted)
    unknown = dataclasses.replace(model, about=model.about._replace(hashes=(), paths=()))
    detector = models.make_detector(model, batch_size=4)
    paths = sorted((photographs / "cap" / "train" / "good").iterdir())
    examples = tuple(Example(path.name, path, 0, "good", None) for path in paths)
    split = loading.Split(examples, loading.hash_images(examples), None)
    grown, seen = growth.grow(unknown, detector, split)
    again, _ = growth.grow(unknown, detector, split)
    jax.tree.map(np.testing.assert_array_equal, grown, again)
    assert seen.known.mean() > 0.8


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 16])
def test_banks_take_up_the_same_images_together_whatever_the_batch(rng, batch_size):
    features, others = rng.normal(size=(11, 4, 2)), rng.normal(size=(11, 3))
    batches = (
        [x[i : i + batch_size] for x in (features, others)] for i in range(0, 11, batch_size)
    )
    found = list(growth._regrouped(batches, 3))
    assert [len(x) for x, _ in found] == [len(y) for _, y in found] == [3, 3, 3, 2]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in found]), features)
    np.testing.assert_array_equal(np.concatenate([y for _, y in found]), others)


def test_an_older_model_grows(one_bank, novel, tmp_path):
    older = tmp_path / "older"
    shutil.copytree(one_bank, older)
    whole = json.loads((older / "model.json").read_text())
    del whole["description"]["data"]["paths"], whole["description"]["data"]["sha256"]
    (older / "model.json").write_text(json.dumps(whole))
    assert go(model=str(older), images=str(novel), output=str(older)) is None  # in its place
    new = models.load(older)
    assert new.about.paths[:5] == (None,) * 5 and None not in new.about.paths[5:]
    assert len(new.about.hashes) == 10


def test_one_training_image_and_then_more(photographs, tmp_path):
    """Few shots at first; the banks grow with what comes."""
    model = fit(photographs, tmp_path / "run", shots=1, bank_size=None)
    old = models.load(model)
    assert old.state.weights.sum() == 100  # one percent of 256 patches would be three
    images = photographs / "cap" / "train" / "good"
    assert go(model=str(model), images=str(images), output=str(tmp_path / "new")) is None
    new = models.load(tmp_path / "new")
    assert new.state.weights.sum() == 100 and (new.origins[0].images > 0).any()
    assert len(new.about.train) == 5 and new.nulls.images.counts.sum() == 5
    others = sorted((photographs / "cap" / "test" / "good").iterdir())
    assert score(new, others).mean() < score(old, others).mean()


class TestMistakes:
    """Each is one line that names the flag or the file."""

    @pytest.mark.parametrize(
        "values,words",
        [
            ({"model": None}, ["--model must be given"]),
            ({"images": None}, ["--images must be given"]),
            ({"output": None}, ["--output must be given"]),
            ({"model": "/no/such"}, ["/no/such", "does not exist"]),
            ({"images": "/no/such"}, ["--images=/no/such"]),
            ({"report": "/tmp"}, ["--report=/tmp is a directory"]),
            ({"bank_size": 30}, ["--bank_size belongs to the model"]),
        ],
    )
    def test_flags(self, one_bank, novel, tmp_path, values, words):
        asked = {"model": str(one_bank), "images": str(novel), "output": str(tmp_path / "new")}
        message = go(**asked | values)
        assert message.startswith("error: ") and "\n" not in message
        for word in words:
            assert word in message
        assert not (tmp_path / "new").exists()

    def test_something_else_in_the_place(self, one_bank, novel, tmp_path):
        (tmp_path / "mine.txt").write_text("dear to me")
        message = go(model=str(one_bank), images=str(novel), output=str(tmp_path))
        assert "in the way" in message

    def test_bad_images(self, one_bank, novel, tmp_path, capsys):
        there = tmp_path / "some"
        shutil.copytree(novel, there)
        (there / "bad.png").write_bytes(b"no image")
        asked = {"model": str(one_bank), "images": str(there), "output": str(tmp_path / "new")}
        assert "bad.png" in go(**asked)
        assert go(skip_bad_images=True, **asked) is None
        said = capsys.readouterr()
        assert "skipped: " in said.err and "grown by 5 images" in said.out

    def test_learned_bases(self, one_bank):
        model = models.load(one_bank)
        learned = dataclasses.replace(
            model, config=dataclasses.replace(model.config, subspaces="pca")
        )
        with pytest.raises(config.ConfigError, match=r"--model: its atoms are learned .*=pca"):
            growth.check(learned)


def assert_explained(model, defective):
    """What is explained is the defect, by patches of tiles that lie where they are said to."""
    explain = explanations.make_explainer(
        model, models.make_detector(model, batch_size=4), least=np.inf
    )
    read, found_in_mask = training_images.make_reader(model), 0
    images = [np.asarray(Image.open(path)) for path in defective]
    for path, found in zip(defective, explain(images), strict=True):
        (place,) = found.places
        mask = np.asarray(Image.open(path.with_suffix(".png"))) >= 128
        (view,) = place.views
        left, top, width, height = places.cell_box(view.cell, view.grid, mask.shape)
        found_in_mask += mask[top : top + height, left : left + width].any()
        assert sum(view.levels.values()) == pytest.approx(1, abs=1e-5)
        assert all(read(atom.image) is not None for atom in view.atoms)
    assert found_in_mask > len(defective) / 2


@pytest.mark.slow
@pytest.mark.skipif(not MTD.exists(), reason=f"the magnetic tile data set is not at {MTD}")
def test_magnetic_tiles(tmp_path):
    """Ten tiles, then forty more: what was strange is known, and defects stay strange."""
    nominal = sorted((MTD / "MT_Free" / "Imgs").glob("*.jpg"))[::9]
    defective = sorted((MTD / "MT_Break" / "Imgs").glob("*.jpg"))[:8]
    for place, paths in {
        "tiles/train/good": nominal[:10], "more": nominal[10:50], "new": nominal[50:80],
        "bad": defective,
    }.items():  # fmt: skip
        (tmp_path / place).mkdir(parents=True)
        for path in paths:
            shutil.copy(path, tmp_path / place)
    settings = config.Config(dataset="folder", data_dir=str(tmp_path / "tiles"), layers=("fast",))
    resources = run.Resources(tmp_path / "run", num_figures=0, save_model=True)
    run.run(config.resolve(settings), resources)
    path = next((tmp_path / "run" / "models").iterdir())
    assert (
        go(model=str(path), images=str(tmp_path / "more"), output=str(tmp_path / "grown")) is None
    )
    old, new = models.load(path), models.load(tmp_path / "grown")
    assert len(new.state.atoms) == 128  # one percent of the patches of fifty images
    assert len(new.about.hashes) == len(new.about.train) == 50
    good = score(new, (tmp_path / "new").iterdir())
    assert good.mean() < score(old, (tmp_path / "new").iterdir()).mean()
    bad = score(new, (tmp_path / "bad").iterdir())
    assert np.mean(bad[:, None] > good[None]) > 0.8
    assert thresholds.at_false_alarm_rate(new.nulls.images, 0.05).num_null == 50
    assert_explained(new, defective)
