"""The TFDS builders, and reading what they write."""

import hashlib
import json
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgfr_jax import checked_json, datasets
from sgfr_jax.datasets import DatasetError, counts, prepared
from sgfr_jax.datasets.archives import ARCHIVES
from sgfr_jax.detector import splits
from tests.commands.test_damage import damages
from tests.datasets import trees
from tests.test_unfinished import name_of_the_dead

tfds = pytest.importorskip("tensorflow_datasets")

REAL_MTD = Path(__file__).resolve().parents[3] / "shared" / "data" / "mtd"


@pytest.fixture(autouse=True)
def any_number_of_images(monkeypatch):
    monkeypatch.setattr(counts, "_is_short", lambda dataset, category: False)


def _prepare(name, tmp_path, **arguments):
    root = tmp_path / name
    if not root.exists():
        trees.TREES[name](root)
    return datasets.load(name, root, prepared_dir=tmp_path / "prepared", **arguments)


def _assert_same(category, expected):
    assert category.name == expected.name
    for field in ("train", "test", "validation", "private"):
        examples, others = getattr(category, field), getattr(expected, field)
        assert [(e.name, e.label, e.kind) for e in examples] == [
            (e.name, e.label, e.kind) for e in others
        ]
        pairs = zip(
            datasets.read_examples(examples, 40), datasets.read_examples(others, 40), strict=True
        )
        for (_, loaded), (_, other) in pairs:
            np.testing.assert_array_equal(loaded.image, other.image)
            assert (loaded.mask is None) == (other.mask is None)
            if loaded.mask is not None:
                np.testing.assert_array_equal(loaded.mask, other.mask)


@pytest.mark.parametrize("name", sorted(trees.TREES))
def test_prepared_data_is_the_files(tmp_path, name):
    found = _prepare(name, tmp_path)
    expected = datasets.load(name, tmp_path / name)
    assert len(found) == len(expected) > 0
    for category, other in zip(found, expected, strict=True):
        _assert_same(category, other)


def test_builders_are_registered_by_the_import_of_datasets():
    names = tfds.list_builders(with_community_datasets=False)
    assert set(prepared.BUILDERS.values()) <= set(names)
    builder = tfds.builder("mvtec_ad/bottle", data_dir="/nowhere")
    assert sorted(builder.builder_configs) == sorted(counts.PUBLISHED["mvtec"])
    specs = {
        str(tfds.builder_cls(name)(config=next(iter(tfds.builder_cls(name).builder_configs)),
                                   data_dir="/nowhere").info.features)
        for name in prepared.BUILDERS.values()
    }  # fmt: skip
    assert len(specs) == 1


def test_tfds_alone_reads_the_same_pixels(tmp_path):
    (bottle,) = _prepare("mvtec", tmp_path)
    source = tfds.builder("mvtec_ad/bottle", data_dir=tmp_path / "prepared").as_data_source("test")
    assert len(source) == len(bottle.test)
    for record, example in zip(source, bottle.test, strict=True):
        loaded = datasets.read_example(example, 64)
        np.testing.assert_array_equal(datasets.read_image(record["image"], 64), loaded.image)
        np.testing.assert_array_equal(datasets.read_mask(record["mask"], 64), loaded.mask)
        assert record["label"] == example.label and set(np.unique(record["mask"])) <= {0, 255}
        assert (record["category"], record["filename"]) == (b"bottle", example.name.encode())
        assert record["defect"] == example.kind.encode()


ODD = {
    "grey": lambda path: Image.fromarray(trees.image(0, grey=True)).save(path),
    "bits16": lambda path: Image.fromarray(
        trees.image(0, grey=True).astype(np.uint16) * 257 + 7
    ).save(path),
    "palette": lambda path: Image.fromarray(trees.image(0)).quantize(16).save(path),
    "alpha": lambda path: Image.fromarray(trees.image(0)).convert("RGBA").save(path),
    "jpeg": lambda path: Image.fromarray(trees.image(0)).save(path, "JPEG"),
    "turned": lambda path: Image.fromarray(trees.image(0).swapaxes(0, 1)).save(
        path, "JPEG", exif=_turned()
    ),
    "cmyk": lambda path: Image.fromarray(trees.image(0)).convert("CMYK").save(path, "JPEG"),
    "bmp": lambda path: Image.fromarray(trees.image(0)).save(path, "BMP"),
}


def _turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_every_kind_of_file_gives_the_same_pixels(tmp_path):
    root = tmp_path / "mvtec"
    trees.mvtec(root)
    for name, save in ODD.items():
        save(root / f"bottle/train/good/{name}.png")
    (bottle,) = _prepare("mvtec", tmp_path)
    (expected,) = datasets.load("mvtec", root)
    assert len(bottle.train) == 3 + len(ODD)
    _assert_same(bottle, expected)
    source = tfds.builder("mvtec_ad/bottle", data_dir=tmp_path / "prepared").as_data_source("train")
    for record, example in zip(source, expected.train, strict=True):
        pixels = datasets.read_example(example, 40).image
        np.testing.assert_array_equal(datasets.read_image(record["image"], 40), pixels)


def test_an_upright_rgb_file_is_stored_as_it_is(tmp_path):
    (candle, _) = _prepare("visa", tmp_path)
    stored, file = candle.train[0].image, tmp_path / "visa" / candle.train[0].name
    assert stored.read() == file.read_bytes()


def test_preparing_twice_costs_nothing(tmp_path, monkeypatch):
    _prepare("mvtec", tmp_path)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "prepared").rglob("*") if p.is_file()}
    monkeypatch.setattr("sgfr_jax.datasets.builders.run", None)
    (bottle,) = _prepare("mvtec", tmp_path, categories=["bottle"])
    monkeypatch.setitem(counts.PUBLISHED, "mvtec", {"bottle": counts.Counts(0, 0, 0)})
    assert datasets.load("mvtec", tmp_path / "gone", prepared_dir=tmp_path / "prepared")
    (again,) = datasets.load("mvtec", prepared_dir=tmp_path / "prepared")
    assert bottle.train[0].name == again.train[0].name
    assert before == {
        p: p.stat().st_mtime_ns for p in (tmp_path / "prepared").rglob("*") if p.is_file()
    }


def test_what_is_wrong_is_reported_together_and_leaves_nothing(tmp_path):
    root = trees.mvtec(tmp_path / "mvtec")
    (root / "bottle/train/good/000.png").write_bytes(b"")
    (root / "bottle/train/good/002.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match="there are 2 problems"):
        _prepare("mvtec", tmp_path)
    assert not list((tmp_path / "prepared").rglob("*array_record*"))
    with pytest.raises(DatasetError, match="no prepared data set 'mvtec'"):
        prepared.list_prepared("mvtec", tmp_path / "prepared")
    trees.mvtec(root)
    assert len(_prepare("mvtec", tmp_path)[0].train) == 3


def test_an_interrupted_preparation_leaves_nothing(tmp_path, monkeypatch):
    root = trees.mvtec(tmp_path / "mvtec")
    with monkeypatch.context() as patch:
        patch.setattr("sgfr_jax.datasets.builders.base.encode", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            _prepare("mvtec", tmp_path)
    assert not list((tmp_path / "prepared").rglob("*array_record*"))
    assert not list((tmp_path / "prepared").rglob("*incomplete*"))
    assert not list((tmp_path / "prepared").rglob("*.unfinished"))
    (bottle,) = _prepare("mvtec", tmp_path)
    _assert_same(bottle, datasets.load("mvtec", root)[0])


def test_what_a_killed_preparation_left_goes_with_the_next(tmp_path):
    left = tmp_path / "prepared" / name_of_the_dead("mvtec bottle")
    (left / "mvtec_ad" / "bottle" / "incomplete.ABCDEF_1.1.0").mkdir(parents=True)
    (other := tmp_path / "prepared" / "mine.unfinished").mkdir()
    _prepare("mvtec", tmp_path, categories=["bottle"])
    assert sorted(p.name for p in (tmp_path / "prepared").iterdir()) == [other.name, "mvtec_ad"]


def _interrupt(example):
    raise KeyboardInterrupt


def test_an_incomplete_copy_is_not_prepared(tmp_path, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(DatasetError, match="bottle has 3 training images instead of 209"):
        _prepare("mvtec", tmp_path)


def test_a_split_of_mtd_per_seed(tmp_path):
    (first,) = _prepare("mtd", tmp_path)
    (second,) = _prepare("mtd", tmp_path, split_seed=3)
    (expected,) = datasets.load("mtd", tmp_path / "mtd", split_seed=3)
    _assert_same(second, expected)
    assert [e.name for e in first.train] != [e.name for e in second.train]
    assert prepared.prepared_categories(tmp_path / "prepared", "mtd", 0) == ("mtd",)
    assert prepared.prepared_categories(tmp_path / "prepared", "mtd", 3) == ("mtd",)
    assert prepared.prepared_categories(tmp_path / "prepared", "mtd", 4) == ()


def test_what_lies_in_the_prepared_directory_is_checked(tmp_path):
    _prepare("mvtec", tmp_path)
    directory = prepared.config_directory(tmp_path / "prepared", "mvtec", "bottle")
    text = (directory / "metadata.json").read_text()
    for wrong in ("{", "{}", text.replace('"good"', '"bad"', 1)):
        (directory / "metadata.json").write_text(wrong)
        with pytest.raises(DatasetError, match=r"bottle/1\.1\.0' is damaged"):
            prepared.list_prepared("mvtec", tmp_path / "prepared")
    metadata = checked_json.verified(json.loads(text))
    metadata["examples"]["train"].pop()
    (directory / "metadata.json").write_text(checked_json.dumps(metadata))
    with pytest.raises(DatasetError, match=r"images are listed and .* stored"):
        prepared.list_prepared("mvtec", tmp_path / "prepared")


def test_damage_of_any_file_is_a_message_or_does_not_matter(tmp_path, rng):
    (whole,) = _prepare("mvtec", tmp_path)
    (expected,) = datasets.load("mvtec", tmp_path / "mvtec", categories=["bottle"])
    directory = prepared.config_directory(tmp_path / "prepared", "mvtec", "bottle")
    for path in sorted(directory.iterdir()):
        content = path.read_bytes()
        for changed in damages(content, rng, 6):
            path.write_bytes(changed)
            prepared._source.cache_clear()
            try:
                (found,) = datasets.load("mvtec", prepared_dir=tmp_path / "prepared")
                splits.hash_images(found.test)
                for one, other in zip(found.test, expected.test, strict=True):
                    assert (one.name, one.label, one.kind) == (other.name, other.label, other.kind)
                    pixels = (datasets.read_example(example, 8).image for example in (one, other))
                    np.testing.assert_array_equal(*pixels)
            except DatasetError as error:
                assert str(error)
        path.write_bytes(content)
    prepared._source.cache_clear()
    _assert_same(whole, expected)


def test_a_damaged_record_is_named(tmp_path):
    _prepare("mvtec", tmp_path)
    directory = prepared.config_directory(tmp_path / "prepared", "mvtec", "bottle")
    (records,) = directory.glob("*test.array_record*")
    records.write_bytes(b"")
    (bottle,) = datasets.load("mvtec", prepared_dir=tmp_path / "prepared")
    with pytest.raises(DatasetError, match=r"test 0 .*cannot be read"):
        datasets.read_example(bottle.test[0], 8)
    assert datasets.read_example(bottle.train[0], 8).image.shape == (8, 8, 3)


def test_examples_travel_to_worker_processes(tmp_path):
    (bottle,) = _prepare("mvtec", tmp_path)
    travelled = pickle.loads(pickle.dumps(bottle))
    _assert_same(travelled, bottle)


def test_nothing_to_prepare_from(tmp_path):
    with pytest.raises(DatasetError, match="give `data_dir` too"):
        datasets.load("visa", prepared_dir=tmp_path)
    with pytest.raises(DatasetError, match="give `data_dir` too"):
        prepared.list_prepared("visa", tmp_path)
    with pytest.raises(DatasetError, match="Known: btad, mtd"):
        prepared.list_prepared("demo", tmp_path)


def test_tfds_alone_says_what_to_fetch(tmp_path):
    builder = tfds.builder("btad/01", data_dir=tmp_path / "prepared")
    with pytest.raises(AssertionError, match=r"(?s)beanTech.*btad\.zip"):
        builder.download_and_prepare()


def test_tfds_alone_downloads_if_the_licence_is_accepted(tmp_path, monkeypatch):
    root = trees.btad(tmp_path / "made")
    content = Path(shutil.make_archive(tmp_path / "btad", "zip", root)).read_bytes()
    archive = ARCHIVES["btad"]._replace(
        url=(tmp_path / "btad.zip").as_uri(),
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    monkeypatch.setitem(ARCHIVES, "btad", archive)
    builder = tfds.builder("btad/01", data_dir=tmp_path / "prepared", accept_license=True)
    builder.download_and_prepare()
    (found,) = prepared.list_prepared("btad", tmp_path / "prepared")
    _assert_same(found, datasets.load("btad", root, categories=["01"])[0])


def test_tensorflow_is_neither_needed_nor_imported(tmp_path):
    trees.mvtec(tmp_path / "mvtec")
    program = f"""
        import sys
        import sgfr_jax.datasets
        assert "tensorflow_datasets" not in sys.modules
        import tensorflow_datasets as tfds
        from sgfr_jax.datasets import counts
        counts._is_short = lambda dataset, category: False
        builder = tfds.builder("mvtec_ad/bottle", data_dir={str(tmp_path / "prepared")!r})
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir={str(tmp_path / "mvtec")!r})
        )
        source = builder.as_data_source("test")
        print(len(source), source[0]["image"].shape, builder.info.file_format.value)
        assert not any(name.split(".")[0] == "tensorflow" for name in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("3 (24, 32, 3) array_record")


@pytest.mark.slow
@pytest.mark.skipif(not REAL_MTD.is_dir(), reason=f"the MTD data set is not at {REAL_MTD}")
def test_the_real_mtd_is_the_same_prepared(tmp_path):
    (found,) = datasets.load("mtd", REAL_MTD, prepared_dir=tmp_path)
    (expected,) = datasets.load("mtd", REAL_MTD)
    assert (len(found.train), len(found.test)) == (761, 583)
    _assert_same(found, expected)
