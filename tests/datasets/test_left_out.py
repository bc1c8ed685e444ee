"""What lies among images and is not read is said, in every layout."""

import sys

import numpy as np
import pytest
from PIL import Image

from sgfr_jax import datasets
from sgfr_jax.datasets import DatasetError, checking, left_out, listing
from tests.datasets import trees


def _folder(root):
    for name in ("train/good/a.png", "test/good/a.png", "test/dent/a.png"):
        trees.save(root / name, trees.image(0))
    trees.save(root / "ground_truth/dent/a.png", trees.mask())
    for name in ("train/good/b.CR2", "test/dent/b.nef", "test/dent/c.nef"):
        (root / name).write_bytes(b"a camera's own")
    (root / "ground_truth/dent/b.json").write_text("{}")
    (root / "test/.DS_Store").write_bytes(b"hidden")
    # An image by its content, whatever it is called; and one without a suffix.
    Image.fromarray(trees.image(1)).save(root / "train/good/c.bak", format="PNG")
    Image.fromarray(trees.image(2)).save(root / "train/good/d", format="TIFF")
    return root


_SKIPPED = (
    "skipped 5 files, images perhaps, of suffixes that are not read: .nef (2), .bak (1), .cr2 (1),"
    " without a suffix (1)"
)


def test_a_folder_names_what_it_leaves_out_by_suffix_and_number(tmp_path):
    (category,) = datasets.load("folder", _folder(tmp_path))
    assert category.notes == (_SKIPPED, "left out 1 file, no images: .json (1)")
    notes = checking.survey([category]).notes
    assert f"{category.name}: {_SKIPPED}." in notes


def test_a_pattern_names_what_it_matches_and_leaves_out(tmp_path):
    patterns = {"train_glob": "train/**/*", "test_glob": "test/*/*.[np]*"}
    (category,) = datasets.load("folder", _folder(tmp_path), **patterns)
    (note,) = category.notes
    assert "skipped 5 files" in note and ".nef (2)" in note
    patterns = {"train_glob": "train/**/*.png", "test_glob": "test/*/*.png"}
    (category,) = datasets.load("folder", tmp_path, **patterns)
    assert category.notes == ()


@pytest.mark.parametrize("name", trees.TREES)
def test_nothing_is_said_of_the_benchmarks(tmp_path, name):
    for category in datasets.load(name, trees.TREES[name](tmp_path)):
        assert category.notes == ()


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "avif", "JFIF", "j2k"])
def test_what_phones_and_browsers_save_is_read(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    flat = np.full((24, 32, 3), (200, 40, 90), np.uint8)
    known = {"jfif": "JPEG", "jpe": "JPEG", "avif": "AVIF", "j2k": "JPEG2000"}
    Image.fromarray(flat).save(path, format=known[suffix.lower()])
    assert listing.is_image(path) and not listing.is_other(path)
    assert np.abs(datasets.read_image(path, 16).astype(int) - flat[:16, :16]).max() < 6


def test_text_is_no_image(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("P1 is not the only thing that a note may begin with")
    assert not left_out.is_image_like(path)
    assert left_out.notes([]) == ()


def test_many_suffixes_are_counted_and_strange_ones_can_be_printed(tmp_path):
    paths = [tmp_path / f"x.{i:04d}" for i in range(20)]
    (note,) = left_out.notes([*paths, *(tmp_path / f"{i}.\udcff\x1b" for i in range(2))])
    assert note.startswith(r"left out 22 files, no images: .\udcff\x1b (2), .0000 (1)")
    assert note.endswith(".0006 (1), and 13 of other suffixes") and note.isprintable()


_HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heic"


def test_heic_without_its_extra_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for name in ("x.heic", "x.jpg"):  # phones' exports are often called so
        (tmp_path / name).write_bytes(_HEIC)
        assert listing.is_image(tmp_path / name)
        with pytest.raises(DatasetError, match=rf"{name}' is HEIC.*pip install 'sgfr_jax\[heic\]'"):
            datasets.read_image(tmp_path / name, 16)


@pytest.mark.slow
def test_heic_with_its_extra_is_read(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[16:32, 32:64] = 220
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(tmp_path / "x.heic")
    found = datasets.read_image(tmp_path / "x.heic", 64).astype(int)
    expected = datasets.read_image(pixels, 64).astype(int)
    assert np.abs(found - expected).mean() < 4
