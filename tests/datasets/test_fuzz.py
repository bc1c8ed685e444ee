"""Mutated files and directory trees: every outcome is a clean error or a correct read."""

import os
import random
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sgfr_jax import datasets
from sgfr_jax.datasets import DatasetError, checking
from tests.datasets import trees

SIZE = 16
FORMATS = ("png", "jpg", "bmp", "tiff", "webp", "gif", "ppm")


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """The bytes of one small image in each format, grey and in colour."""
    directory, found = tmp_path_factory.mktemp("encoded"), {}
    for kind in FORMATS:
        for grey in (True, False):
            path = directory / f"{grey}.{kind}"
            trees.save(path, trees.image(1, grey=grey))
            found[kind, grey] = path.read_bytes()
    return found


def _check_read(example):
    """Either a `DatasetError`, or arrays of the promised shapes and types."""
    try:
        loaded = datasets.read_example(example, SIZE)
    except DatasetError as error:
        assert str(error)
        return
    assert loaded.image.shape == (SIZE, SIZE, 3) and loaded.image.dtype == np.uint8
    if loaded.mask is not None:
        assert loaded.mask.shape == (SIZE, SIZE) and loaded.mask.dtype == bool


@given(
    kind=st.sampled_from(FORMATS),
    grey=st.booleans(),
    suffix=st.sampled_from(FORMATS),
    cut=st.floats(0, 1),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    extra=st.binary(max_size=8),
    as_mask=st.booleans(),
)
@settings(
    max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
def test_mutated_files(encoded, tmp_path_factory, kind, grey, suffix, cut, edits, extra, as_mask):
    data = bytearray(encoded[kind, grey])
    for place, value in edits:
        data[int(place * len(data))] = value
    if cut < 0.5:
        del data[int(2 * cut * len(data)) :]
    directory = tmp_path_factory.mktemp("fuzz")
    path, sound = directory / f"x.{suffix}", directory / "sound.png"
    path.write_bytes(bytes(data) + extra)
    trees.save(sound, trees.image(2))
    image, mask = (sound, path) if as_mask else (path, None)
    _check_read(datasets.Example("x", image, 1, "bad", mask))
    shutil.rmtree(directory)


def test_sound_files_are_read_right(encoded, tmp_path):
    for (kind, grey), data in encoded.items():
        path = tmp_path / f"x.{kind}"
        path.write_bytes(data)
        pixels = datasets.read_image(path, trees.HEIGHT)
        meant = Image.fromarray(trees.image(1, grey=grey)).convert("RGB")
        meant = np.asarray(meant.resize((24, 24), Image.Resampling.BILINEAR), int)
        if kind in ("png", "bmp", "tiff", "ppm"):
            np.testing.assert_array_equal(pixels, meant)
        else:
            # Noise is what these formats are worst at.
            assert np.corrcoef(pixels.ravel(), meant.ravel())[0, 1] > 0.5


def _delete(path, rng):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _rename(path, rng):
    names = (
        "x",
        "good",
        "bad",
        "train",
        ".hidden",
        path.stem + ".jpg",
        path.stem + "_mask.png",
        "ö",
    )
    target = path.with_name(rng.choice(names))
    if not target.exists():
        path.rename(target)


def _move_up(path, rng):
    target = path.parent.parent / path.name
    if not target.exists():
        path.rename(target)


def _copy(path, rng):
    target = path.with_name("copy" + rng.choice(("", ".png", path.suffix)))
    if not target.exists():
        shutil.copytree(path, target) if path.is_dir() else shutil.copy(path, target)


def _replace_by_link(path, rng):
    targets = (path.parent, path.with_name("none.png"), path.name, "/", os.devnull, "../..")
    _delete(path, rng)
    path.symlink_to(rng.choice(targets))


def _garble(path, rng):
    if path.is_file():
        data = path.read_bytes()
        path.write_bytes(rng.choice((b"", b"\0", data[: len(data) // 2], data[::-1], data + data)))


def _swap_kind(path, rng):
    was_directory = path.is_dir()
    _delete(path, rng)
    path.write_bytes(b"") if was_directory else path.mkdir()


MUTATIONS = (_delete, _rename, _move_up, _copy, _replace_by_link, _garble, _swap_kind)


@pytest.mark.parametrize("name", ["folder", *sorted(trees.TREES)])
def test_mutated_trees(tmp_path, name):
    made = trees.TREES["mvtec" if name == "folder" else name](tmp_path / "made")
    outcomes = set()
    for seed in range(40):
        rng = random.Random(f"{name} {seed}")
        root = tmp_path / "tree"
        shutil.copytree(made, root)
        for _ in range(rng.randint(1, 3)):
            paths = sorted(path for path in root.rglob("*") if not path.is_symlink())
            if paths:
                rng.choice(MUTATIONS)(rng.choice(paths), rng)
        before = _contents(root)
        try:
            found = datasets.load(name, root)
        except DatasetError as error:
            assert str(error)
            outcomes.add("refused")
        else:
            outcomes.add("listed")
            for category in found:
                assert category.train and all(example.label == 0 for example in category.train)
                names = [example.name for example in category.train + category.test]
                assert len(set(names)) == len(names)
            result = checking.survey(found, workers=1)
            checking.describe(result)
        assert _contents(root) == before
        shutil.rmtree(root)
    assert outcomes == {"refused", "listed"}


def _contents(root):
    return {str(path): path.lstat().st_mtime_ns for path in root.rglob("*")}


@given(
    text=st.one_of(
        st.text(max_size=60),
        st.lists(
            st.sampled_from(
                ("path", "split", "label", "mask", ",", ",", "\n", "\n", '"', "train", "test", "1",
                 "a.png", "..", "/", "\0", "{", "}", ":", "null", "\u2028", "\ufeff")
            ),
            max_size=30,
        ).map("".join),
    ),
    suffix=st.sampled_from((".csv", ".jsonl")),
)  # fmt: skip
@settings(
    max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
def test_mutated_manifests(tmp_path_factory, text, suffix):
    directory = tmp_path_factory.mktemp("fuzz")
    trees.save(directory / "a.png", trees.image(0))
    manifest = directory / f"list{suffix}"
    manifest.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found = datasets.load("folder", manifest=manifest)
    except DatasetError as error:
        assert str(error)
    else:
        assert all(category.train for category in found)
    shutil.rmtree(directory)


@given(globs=st.lists(st.text("*?[]!./a\\pngtrain\0~{}", max_size=12), min_size=1, max_size=3))
@settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
def test_mutated_globs(tmp_path_factory, globs):
    root = tmp_path_factory.getbasetemp() / "globs"
    if not root.exists():
        trees.save(root / "train/a.png", trees.image(0))
        trees.save(root / "a.png", trees.image(0))
    names = ("train_glob", "test_glob", "mask_glob")
    try:
        (found,) = datasets.load("folder", root, **dict(zip(names, globs, strict=False)))
    except DatasetError as error:
        assert str(error)
    else:
        assert found.train
