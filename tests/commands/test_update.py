"""Models that learn from more images, on small photographs that the tests make."""

import contextlib
import csv
import dataclasses
import functools
import io
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from sgfr_jax import growing, pipeline, thresholds
from sgfr_jax.commands import run, update
from sgfr_jax.commands.files import locking, training_images
from sgfr_jax.commands.flags import config, usage
from sgfr_jax.commands.host import interruption
from sgfr_jax.commands.host.machine import Resources
from sgfr_jax.datasets import Example, geometry
from sgfr_jax.detector import (
    alternatives,
    assembly,
    explaining,
    model,
    network,
    places,
    predicting,
    saved,
    splits,
)
from sgfr_jax.detector import growing as of_detectors
from sgfr_jax.detector.services import Services
from sgfr_jax.detector.stages import Stages
from sgfr_jax.errors import ArgumentError
from tests.detector import pretended
from tests.small import SMALL, texture, write_folder

SHAPES = [(72, 120), (60, 72), (72, 72), (110, 72), (48, 72)]
# Models that see images of many shapes, each with room to grow.
RATIO = {"bank_size": None, "bank_ratio": 0.04}
LOOKING = {  # the last with streams, whose programs take long to compile
    "pad": {"geometry": "pad"},
    "crop": {"geometry": "crop", "crop": 0.9},
    "tile": {"geometry": "tile", "tile": 60},
    "square+tile": {"geometry": "square+tile", "tile": 60},
    "streams": {
        "geometry": "pad+tile", "tile": 60, "layers": ("fine@1", "coarse@1"), "solver": "nearest",
    },
}  # fmt: skip
QUICK = ("square+tile",)
ONE_BANK_EACH = [name for name, fields in LOOKING.items() if "layers" not in fields]
DESCRIBE, OURS = network.describe, network.ours
MTD = Path(__file__).parents[3] / "shared" / "data" / "mtd"


@pytest.fixture(scope="module", autouse=True)
def parsed():
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["update"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interruption, "exit_at_once", lambda *args: None)
        pretended.stand_in(patch)
        yield


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("update"))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """The same product in many shapes at one scale."""
    root, rng = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    for kind in ("train/good", "test/good", "test/dent", "ground_truth/dent"):
        (root / "cap" / kind).mkdir(parents=True)
    for i, (height, width) in enumerate(SHAPES):
        for kind in ("train/good", "test/good", "test/dent"):
            image = texture(rng, 120)[:height, :width]
            if kind == "test/dent":
                mask = np.zeros_like(image)
                mask[20:36, width - 34 : width - 18] = 255
                image[mask > 0] = 255 - image[mask > 0]
                Image.fromarray(mask).save(root / "cap" / "ground_truth" / "dent" / f"{i}_mask.png")
            Image.fromarray(image).save(root / "cap" / kind / f"{i}.png")
    return root


def fit(photographs, workdir, **fields):
    fields = {"data_dir": str(photographs), "categories": ("cap",)} | fields
    fields = {"layers": ("fine", "coarse")} | fields
    settings = usage.cleared(SMALL.replace(**fields))
    resources = Resources(workdir, batch_size=4, num_figures=0, save_model=True)
    with pytest.MonkeyPatch.context() as patch:
        pretended.few_defects(patch)
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


def write_novel(directory, shapes):
    """Nominal photographs of a kind that is new: another texture."""
    rng = np.random.default_rng(5)
    for i, (height, width) in enumerate(shapes):
        image = texture(rng, max(height, width)).T // 2 + 20
        Image.fromarray(image[:height, :width]).save(directory / f"{i}.png")
    return directory


@pytest.fixture(scope="module")
def novel(tmp_path_factory):
    return write_novel(tmp_path_factory.mktemp("novel"), [(72, 72)] * 5)


@pytest.fixture(scope="module")
def novel_shapes(tmp_path_factory):
    return write_novel(tmp_path_factory.mktemp("novel_shapes"), SHAPES[::-1])


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


def stages_of(detector):
    return model.stages_of(detector, Services(batch_size=4))


def score(detector, paths):
    images = [np.asarray(Image.open(path)) for path in sorted(paths)]
    scored = predicting.make_scorer(detector, stages_of(detector))(images)
    return np.array([found.score for found in scored])


def banks_of(detector):
    """The banks of all looks in a row, and where their atoms come from."""
    every_look = detector.state.looks
    banks = [bank for look in every_look for bank in look.banks]
    return banks, [origin for look in every_look for origin in look.origins]


def split_of(paths):
    examples = tuple(Example(path.name, path, 0, "good", None) for path in paths)
    return splits.Split(examples, splits.hash_images(examples), None)


def grow(detector, stages, split):
    return of_detectors.grow(detector, stages, split, jax.random.key(detector.about.seed))


class Grown(NamedTuple):
    """Directories of a model and of what it has become."""

    old: Path
    new: Path
    images: Path  # that it has learned from
    photographs: Path  # that it was fitted on before
    report: Path
    said: str


@pytest.fixture(
    scope="module",
    params=[
        "one_bank",
        pytest.param("automatic", marks=pytest.mark.slow),
        *(
            name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
            for name in ONE_BANK_EACH
        ),
        pytest.param("streams", marks=pytest.mark.slow),
    ],
)
def grown(request, tmp_path_factory):
    directory, of_shapes = tmp_path_factory.mktemp("grown"), request.param in LOOKING
    photographs = request.getfixturevalue("shapes" if of_shapes else "photographs")
    images = request.getfixturevalue("novel_shapes" if of_shapes else "novel")
    if of_shapes:
        old = fit(photographs, directory / "run", **RATIO, **LOOKING[request.param])
    else:
        old = request.getfixturevalue(request.param)
    new, report, said = directory / "new", directory / "report.csv", io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        asked = {"model": str(old), "images": str(images), "report": str(report)}
        assert go(output=str(new), **asked) is None
    return Grown(old, new, images, photographs, report, said.getvalue())


def test_it_learns_what_is_new_and_keeps_what_it_knew(grown):
    assert "grown by 5 images" in grown.said and "5 of 5 images score above" in grown.said
    old, new = saved.load(grown.old), saved.load(grown.new)

    rows = list(csv.DictReader(grown.report.open()))
    assert [row["path"] for row in rows] == [f"{i}.png" for i in range(5)]
    before = score(old, grown.images.iterdir())
    np.testing.assert_allclose([float(row["score"]) for row in rows], before, rtol=1e-4)
    assert all(0 <= float(row["known"]) < 0.8 for row in rows)
    after = score(new, grown.images.iterdir())
    assert (after < before).all()
    # What it knew it knows: nominal photographs, and that a dent is none.
    tests = grown.photographs / "cap" / "test"
    good, dents = score(new, (tests / "good").iterdir()), score(new, (tests / "dent").iterdir())
    if new.method.geometry != "crop":  # which may cut defects off
        assert good.max() < dents.min()

    assert new.about.train[:5] == old.about.train and len(new.about.train) == 10
    assert [Path(path).name for path in new.about.paths[5:]] == [f"{i}.png" for i in range(5)]
    assert new.about.data != old.about.data and new.about.f1_threshold is None
    assert "null of 5 images as they scored before" in new.about.notes[-1]
    assert new.nulls.images.counts.sum() == 10
    num_pixels = new.nulls.pixels.counts.sum() - old.nulls.pixels.counts.sum()
    sizes = [height * width for height, width in SHAPES]
    if new.method.geometry in ("square", "crop"):
        sizes = [64**2] * 5
    elif "square" in new.method.geometry:  # maps are as large as the larger one
        sizes = [max(64**2, size) for size in sizes]
    assert num_pixels == sum(sizes)


def embed(detector, paths):
    """What every bank has of images: patches, and which show them, `[windows, P, ...]` of each."""
    stages, looking = stages_of(detector), detector.method.geometries
    images = [np.asarray(Image.open(path)) for path in paths]
    laid, found = splits.laid(splits.of_arrays(images), looking), []
    for look, split in zip(looking, splits.looks(laid), strict=True):
        batches = [
            [np.asarray(x)[: batch.num] for x in batch.patches]
            for batch in assembly.batches(stages, splits.views(split))
        ]
        windows = [geometry.windows(image.shape, look) for image in images]
        ends = np.cumsum([len(own) for own in windows])
        for parts, stream in zip(zip(*batches, strict=True), stages.streams, strict=True):
            shown = np.zeros((ends[-1], stream.grid, stream.grid), bool)
            for square, window in zip(shown, sum(windows, ()), strict=True):
                filled = [geometry.filled(share, stream.grid) for share in window.extent]
                square[: filled[0], : filled[1]] = True
            shown = shown.reshape(len(shown), -1)
            of_images = zip(
                np.split(np.concatenate(parts), ends[:-1]), np.split(shown, ends[:-1]), strict=True
            )
            found.append(list(of_images))
    return found


def test_every_atom_is_the_patch_that_it_is_said_to_be(grown):
    new = saved.load(grown.new)
    embedded = embed(new, new.about.paths)
    for bank, origin, images in zip(*banks_of(new), embedded, strict=True):
        used = np.flatnonzero(bank.weights > 0)
        for atom, *place in zip(bank.atoms[used], *(x[used] for x in origin), strict=True):
            image, window, cell = place
            patches, shown = images[image]
            np.testing.assert_allclose(atom, patches[window, cell], atol=1e-5)
            assert shown[window, cell]  # no atom is padding
        assert (origin.images[used] >= 5).any()
        if new.method.geometry == "tile":
            assert origin.windows[used & (origin.images[used] >= 5)].any()


def test_banks_stay_within_the_size_of_a_fit_of_all_images(grown):
    old, new = saved.load(grown.old), saved.load(grown.new)
    embedded = embed(new, new.about.paths)
    for detector, num_images in ((old, 5), (new, 10)):
        num_patches = [sum(s.sum() for _, s in of_bank[:num_images]) for of_bank in embedded]
        assert detector.about.patches == tuple(num_patches)
        sizes = [detector.method.num_atoms(int(num)) for num in num_patches]
        assert [int(bank.weights.sum()) for bank in banks_of(detector)[0]] == sizes


def test_what_was_known_is_of_patches_that_show_something(grown):
    """Against the share of them within the level of each bank as it was."""
    old = saved.load(grown.old)
    code, known, shown = alternatives.make_coder(old.method.solver, old.method), 0, 0
    level_of = jax.jit(functools.partial(growing.nominal_level, code=code))
    score_all = jax.jit(functools.partial(pipeline.score, code=code))
    embedded = embed(old, sorted(grown.images.iterdir()))
    for bank, images in zip(banks_of(old)[0], embedded, strict=True):
        patches = np.concatenate([of_image for of_image, _ in images])
        mimicked = score_all(bank, patches.reshape(-1, patches.shape[-1])) <= level_of(bank)
        mimicked = iter(np.asarray(mimicked).reshape(patches.shape[:2]))
        known += np.array([sum(np.sum(next(mimicked) & of) for of in real) for _, real in images])
        shown += np.array([real.sum() for _, real in images])
    said = [float(row["known"]) for row in csv.DictReader(grown.report.open())]
    np.testing.assert_allclose(said, known / shown, atol=2 / shown.min())


@pytest.mark.slow
@pytest.mark.parametrize("grown", ["square+tile", "streams"], indirect=True)
def test_it_grows_again(grown, tmp_path):
    before, more = saved.load(grown.new), tmp_path / "more"
    more.mkdir()
    rng = np.random.default_rng(6)
    for i in range(2):  # as large as a tile
        blocks = rng.integers(0, 255, (10, 10), np.uint8)
        Image.fromarray(np.kron(blocks, np.ones((6, 6), np.uint8))).save(more / f"{i}.png")
    new = tmp_path / "again"
    assert go(model=str(grown.new), images=str(more), output=str(new)) is None
    again = saved.load(new)
    assert len(again.about.train) == 12 and again.nulls.images.counts.sum() == 12
    assert all(map(int.__lt__, before.about.patches, again.about.patches))
    assert all((origin.images < 12).all() for origin in banks_of(again)[1])
    assert score(again, more.iterdir()).mean() < score(before, more.iterdir()).mean()


def test_its_own_images_are_left_out_however_it_looks_at_them(grown, tmp_path):
    train = grown.photographs / "cap" / "train" / "good"
    for place, images in ((grown.old, train), (grown.new, train), (grown.new, grown.images)):
        message = go(model=str(place), images=str(images), output=str(tmp_path / "none"))
        assert "has learned from all of these already" in message


@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.slow
@pytest.mark.parametrize("grown", ["tile", "streams"], indirect=True)
def test_the_outcome_is_the_same_for_every_size_of_batch(grown, batch_size):
    detector, expected = saved.load(grown.old), saved.load(grown.new)

    class Regrouped(Stages):
        """The embeddings of the same network, which itself may round otherwise."""

        def batches(self, split):
            found = stages.batches(split)
            yield from map(tuple, of_detectors._regrouped(map(list, found), batch_size))

    stages = stages_of(detector)
    other = Regrouped(*stages)._replace(services=Services(batch_size=batch_size))
    found, _ = grow(detector, other, split_of(sorted(grown.images.iterdir())))
    for of_banks in zip(banks_of(found), banks_of(expected), strict=True):
        jax.tree.map(np.testing.assert_array_equal, *of_banks)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
        found.state, expected.state,
    )  # fmt: skip


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
    detector = saved.load(fitted)
    about = detector.about._replace(hashes=(), paths=())
    unknown, stages = dataclasses.replace(detector, about=about), stages_of(detector)
    split = split_of(sorted((photographs / "cap" / "train" / "good").iterdir()))
    grown, seen = grow(unknown, stages, split)
    again, _ = grow(unknown, stages, split)
    jax.tree.map(np.testing.assert_array_equal, grown, again)
    assert seen.known.mean() > 0.8


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 16])
def test_banks_take_up_the_same_images_together_whatever_the_batch(rng, batch_size):
    features, others = rng.normal(size=(11, 4, 2)), rng.normal(size=(11, 3))
    batches = (
        [x[i : i + batch_size] for x in (features, others)] for i in range(0, 11, batch_size)
    )
    found = list(of_detectors._regrouped(batches, 3))
    assert [len(x) for x, _ in found] == [len(y) for _, y in found] == [3, 3, 3, 2]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in found]), features)
    np.testing.assert_array_equal(np.concatenate([y for _, y in found]), others)


def test_a_model_grows_in_its_place(one_bank, novel, tmp_path):
    place = tmp_path / "model"
    shutil.copytree(one_bank, place)
    old = saved.load(place)
    assert go(model=str(place), images=str(novel), output=str(place)) is None
    new = saved.load(place)
    assert new.about.paths[:5] == old.about.paths and None not in new.about.paths[5:]
    assert len(new.about.hashes) == 10
    assert new.about.patches == (10 * new.method.grid**2,)


def test_one_training_image_and_then_more(photographs, tmp_path):
    """Few shots at first; the banks grow with what comes."""
    place = fit(photographs, tmp_path / "run", shots=1, bank_size=None, image_size=128)
    old = saved.load(place)
    ((bank,), _) = banks_of(old)
    assert bank.weights.sum() == 100  # one percent of 256 patches would be three
    images = photographs / "cap" / "train" / "good"
    assert go(model=str(place), images=str(images), output=str(tmp_path / "new")) is None
    new = saved.load(tmp_path / "new")
    ((bank,), (origin,)) = banks_of(new)
    assert bank.weights.sum() == 100 and (origin.images > 0).any()
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
            ({"report": "/tmp"}, ["--report=/tmp is a directory", "such as /tmp/report.csv"]),
            ({"report": "no_such_place/"}, ["--report=no_such_place/ is a directory"]),
            ({"report": "/dev/null/x.csv"}, ["--report=/dev/null/x.csv cannot be written"]),
            ({"report": __file__}, [f"--report={__file__} is in the way, for nothing says"]),
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

    def test_a_report_in_a_model(self, one_bank, novel, tmp_path):
        asked = {"model": str(one_bank), "images": str(novel), "output": str(tmp_path / "new")}
        for place, flag in ((tmp_path / "new", "output"), (one_bank, "model")):
            message = go(report=str(place / "x.csv"), **asked)
            assert f"lies in the model of --{flag}" in message
        assert not (tmp_path / "new").exists()

    def test_something_else_in_the_place(self, one_bank, novel, tmp_path):
        (tmp_path / "mine.txt").write_text("dear to me")
        message = go(model=str(one_bank), images=str(novel), output=str(tmp_path))
        assert "in the way" in message

    def test_two_at_once(self, one_bank, novel, tmp_path):
        new = tmp_path / "new"
        with locking.locked(locking.beside(new), "it"):
            message = go(model=str(one_bank), images=str(novel), output=str(new))
        assert f"--output={new} is in use by process {os.getpid()}" in message
        assert list(tmp_path.iterdir()) == []

    def test_images_in_the_new_model(self, one_bank, novel, tmp_path):
        place = tmp_path / "model"
        shutil.copytree(one_bank, place)
        shutil.copytree(novel, place / "photographs")
        message = go(model=str(place), images=str(place / "photographs"), output=str(place))
        assert "where results go: name another --output" in message

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
        detector = saved.load(one_bank)
        learned = dataclasses.replace(detector.method, subspaces="pca")
        with pytest.raises(ArgumentError, match=r"^`model`: its atoms are learned .*=pca"):
            of_detectors.check(dataclasses.replace(detector, method=learned))


def assert_explained(detector, defective):
    """What is explained is the defect, by patches of tiles that lie where they are said to."""
    explain = explaining.make_explainer(detector, stages_of(detector), least=np.inf)
    read, found_in_mask = training_images.make_reader(detector), 0
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
def test_magnetic_tiles(tmp_path, monkeypatch):
    """Ten tiles, then forty more: what was strange is known, and defects stay strange."""
    monkeypatch.setattr(network, "describe", DESCRIBE)
    monkeypatch.setattr(network, "ours", OURS)
    nominal = sorted((MTD / "MT_Free" / "Imgs").glob("*.jpg"))[::9]
    defective = sorted((MTD / "MT_Break" / "Imgs").glob("*.jpg"))[:8]
    for place, paths in {
        "tiles/train/good": nominal[:10], "more": nominal[10:50], "new": nominal[50:80],
        "bad": defective,
    }.items():  # fmt: skip
        (tmp_path / place).mkdir(parents=True)
        for path in paths:
            shutil.copy(path, tmp_path / place)
    settings = config.Config.of(
        dataset="folder", data_dir=str(tmp_path / "tiles"), layers=("fast",)
    )
    resources = Resources(tmp_path / "run", num_figures=0, save_model=True)
    run.run(config.resolve(settings), resources)
    path = next((tmp_path / "run" / "models").iterdir())
    assert (
        go(model=str(path), images=str(tmp_path / "more"), output=str(tmp_path / "grown")) is None
    )
    old, new = saved.load(path), saved.load(tmp_path / "grown")
    assert len(banks_of(new)[0][0].atoms) == 128  # one percent of the patches of fifty images
    assert len(new.about.hashes) == len(new.about.train) == 50
    good = score(new, (tmp_path / "new").iterdir())
    assert good.mean() < score(old, (tmp_path / "new").iterdir()).mean()
    bad = score(new, (tmp_path / "bad").iterdir())
    assert np.mean(bad[:, None] > good[None]) > 0.8
    assert thresholds.at_false_alarm_rate(new.nulls.images, 0.05).num_null == 50
    assert_explained(new, defective)
