"""The data sets `mvtec` and `folder`, which share a layout."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgfr_jax import datasets
from sgfr_jax.datasets import DatasetError
from tests.datasets import trees

MVTEC = [
    "train/good/000.png",
    "train/good/001.png",
    "test/good/000.png",
    "test/crack/000.png",
    "test/crack/001.png",
    "ground_truth/crack/000_mask.png",
    "ground_truth/crack/001_mask.png",
]


def _write(root: Path, names):
    """Makes files that only have names: listing must not open them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


@pytest.fixture
def mvtec_dir(tmp_path):
    root = tmp_path / "mvtec"
    for category in ("bottle", "tile"):
        _write(root / category, MVTEC)
    _write(root, ["license.txt", "readme.txt", ".DS_Store", "bottle/license.txt", "notes/a.txt"])
    return root


def _load(name, root, *categories):
    return datasets.load(name, root, categories=list(categories) or None)


@pytest.mark.parametrize("name", ["mvtec", "folder"])
def test_root(mvtec_dir, name):
    bottle, tile = _load(name, mvtec_dir)
    assert (bottle.name, tile.name) == ("bottle", "tile")
    assert [e.name for e in bottle.train] == [
        "bottle/train/good/000.png",
        "bottle/train/good/001.png",
    ]
    rows = [(e.name, e.label, e.kind, e.mask and e.mask.name) for e in bottle.test]
    assert rows == [
        ("bottle/test/crack/000.png", 1, "crack", "000_mask.png"),
        ("bottle/test/crack/001.png", 1, "crack", "001_mask.png"),
        ("bottle/test/good/000.png", 0, "good", None),
    ]
    assert all(e.image.is_file() for e in bottle.train + bottle.test)


@pytest.mark.parametrize("name", ["mvtec", "folder"])
def test_one_category_directory(mvtec_dir, name):
    (tile,) = _load(name, mvtec_dir / "tile")
    assert tile.name == "tile"
    assert tile.test[0].name == "test/crack/000.png"


def test_unwanted_categories_are_not_listed(mvtec_dir):
    (mvtec_dir / "bottle/ground_truth/crack/000_mask.png").unlink()
    (tile,) = _load("mvtec", mvtec_dir, "tile")
    assert tile.name == "tile"
    with pytest.raises(DatasetError, match=r"Did you mean 'tile'\?.*bottle, tile"):
        _load("mvtec", mvtec_dir, "tiles")


def test_masks_pair_by_stem_not_by_order(tmp_path):
    root = tmp_path / "parts"
    _write(root, ["train/good/0.png", "test/bad/2.png", "test/bad/10.png", "test/bad/1.jpg"])
    _write(root, ["ground_truth/bad/10_mask.png", "ground_truth/bad/1.bmp"])
    (category,) = _load("folder", root)
    assert {e.image.name: e.mask and e.mask.name for e in category.test} == {
        "1.jpg": "1.bmp",
        "10.png": "10_mask.png",
        "2.png": None,
    }


def test_lossy_masks_have_a_higher_threshold(tmp_path):
    _write(tmp_path, ["train/good/0.png", "test/bad/1.png", "test/bad/2.png"])
    _write(tmp_path, ["ground_truth/bad/1.jpg", "ground_truth/bad/2.png"])
    (category,) = _load("folder", tmp_path)
    assert [e.mask_threshold for e in category.test] == [128, 1]


@pytest.mark.parametrize(
    "name", ["ok", "normal", "nominal", "pass", "Passed", "Good", "OK", "bad/ok"]
)
def test_nominal_directories_are_those_of_patterns(tmp_path, name):
    _write(tmp_path, ["train/good/0.png", f"test/{name}/1.png", "test/bad/2.png"])
    _write(tmp_path, [f"ground_truth/{name}/1.png"])
    patterns = {"train_glob": "train/good/*", "test_glob": "test/**/*.png"}
    (of_directories,) = _load("folder", tmp_path)
    (of_patterns,) = datasets.load("folder", tmp_path, **patterns)
    for category in (of_directories, of_patterns):
        rows = [(e.name, e.label, e.kind) for e in category.test]
        assert set(rows) == {("test/bad/2.png", 1, "bad"), (f"test/{name}/1.png", 0, "good")}
    assert sum(e.mask is not None for e in of_directories.test) == 1


@pytest.mark.parametrize("name", ["ok", "OK", "normal", "nominal", "pass", "passed", "Good"])
def test_nominal_training_images_are_called_as_those_of_tests(tmp_path, name):
    _write(tmp_path, [f"train/{name}/0.png", f"test/{name}/1.png", "test/NG/2.png"])
    (found,) = _load("folder", tmp_path)
    assert [e.name for e in found.train] == [f"train/{name}/0.png"]
    assert sorted((e.label, e.kind) for e in found.test) == [(0, "good"), (1, "NG")]


def test_two_directories_of_nominal_training_images_are_refused(tmp_path):
    _write(tmp_path, ["train/normal/0.png", "train/pass/1.png"])
    with pytest.raises(DatasetError, match=r"0\.png' .*belong in '.*train/good'"):
        _load("folder", tmp_path)


def test_defects_called_as_those_of_btad_are_no_folder(tmp_path):
    _write(tmp_path, ["train/ok/0.png", "test/ko/1.png"])
    with pytest.raises(DatasetError, match="looks like data set 'btad'"):
        _load("folder", tmp_path)


def test_nominal_images_alone(tmp_path):
    _write(tmp_path / "cups", ["train/good/b.JPG", "train/good/a.Tiff", "train/good/notes.txt"])
    (category,) = _load("folder", tmp_path / "cups")
    assert category.name == "cups" and category.test == ()
    assert [e.name for e in category.train] == ["train/good/a.Tiff", "train/good/b.JPG"]


def test_images_in_train_itself(tmp_path):
    _write(tmp_path, ["train/a.png", "test/good/a.png"])
    (category,) = _load("folder", tmp_path)
    assert [e.name for e in category.train] == ["train/a.png"]


def test_directories_within_a_kind_and_hidden_files(tmp_path):
    _write(tmp_path, ["train/good/monday/a.png", "train/good/tuesday/a.png"])
    _write(tmp_path, ["train/good/._a.png", "train/good/.cache/a.png", "test/bad/monday/a.png"])
    _write(tmp_path, ["test/.trash/x.png", "ground_truth/bad/monday/a_mask.png", "test/.DS_Store"])
    (category,) = _load("folder", tmp_path)
    assert [e.name for e in category.train] == [
        "train/good/monday/a.png",
        "train/good/tuesday/a.png",
    ]
    ((name, _, label, kind, mask, *_),) = category.test
    assert (name, label, kind) == ("test/bad/monday/a.png", 1, "bad")
    assert mask == tmp_path / "ground_truth/bad/monday/a_mask.png"


def test_masks_of_nominal_images_are_allowed(tmp_path):
    _write(tmp_path, ["train/good/a.png", "test/good/a.png", "ground_truth/good/a_mask.png"])
    (category,) = _load("folder", tmp_path)
    assert category.test[0].label == 0 and category.test[0].mask is not None


def test_an_image_may_be_called_mask(tmp_path):
    _write(tmp_path, ["train/good/a.png", "test/bad/face_mask.png"])
    _write(tmp_path, ["ground_truth/bad/face_mask.png"])
    (category,) = _load("folder", tmp_path)
    assert category.test[0].mask is not None


ERRORS = {
    "no training images": (["train/good/readme.txt", "test/good/a.png"], "no training images"),
    "no train": (["test/good/a.png"], "no training images"),
    "loose training image": (["train/good/a.png", "train/b.png"], "b.png.*belong"),
    "other training directory": (["train/good/a.png", "train/bad/b.png"], "b.png.*belong"),
    "training directory without good": (["train/fine/a.png"], "a.png.*belong"),
    "loose test image": (["train/good/a.png", "test/b.png"], "b.png.*kind"),
    "loose mask": (["train/good/a.png", "ground_truth/b.png"], "b.png.*kind"),
    "mask without image": (
        ["train/good/a.png", "test/bad/a.png", "ground_truth/bad/b_mask.png"],
        "b_mask.png' has no image; an image '.*test/bad/b",
    ),
    "masks of a kind without images": (
        ["train/good/a.png", "ground_truth/bad/b_mask.png"],
        "b_mask.png' has no image",
    ),
    "two masks": (
        [
            "train/good/a.png",
            "test/bad/a.png",
            "ground_truth/bad/a.png",
            "ground_truth/bad/a_mask.png",
        ],
        "two masks",
    ),
    "duplicate stems": (["train/good/a.png", "train/good/a.jpg"], "differ in their suffix alone"),
    "two images": (
        ["train/good/a.png", "test/bad/a.png", "test/bad/a.jpg", "ground_truth/bad/a_mask.png"],
        "could belong to",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_the_file(tmp_path, case):
    names, message = ERRORS[case]
    _write(tmp_path, names)
    with pytest.raises(DatasetError, match=message):
        _load("folder", tmp_path)


def test_all_mistakes_are_reported_together(tmp_path):
    _write(tmp_path, ["train/good/a.png", "train/b.png", "test/c.png", "test/bad/d.png"])
    _write(tmp_path, ["ground_truth/bad/e_mask.png"])
    with pytest.raises(DatasetError, match="there are 4 problems") as caught:
        _load("mvtec", tmp_path)
    for name in ("b.png", "c.png", "d.png", "e_mask.png"):
        assert name in str(caught.value)


def test_long_lists_of_mistakes_are_cut(tmp_path):
    _write(tmp_path, ["train/good/a.png", *(f"test/bad/{i}.png" for i in range(30))])
    with pytest.raises(DatasetError, match=r"there are 30 problems[^$]*and 10 more") as caught:
        _load("mvtec", tmp_path)
    assert str(caught.value).count("has no mask") == 20


def test_links_that_leave_the_data_directory_are_refused(mvtec_dir, tmp_path):
    _write(tmp_path, ["elsewhere/x.png"])
    (mvtec_dir / "tile/train/good/x.png").symlink_to(tmp_path / "elsewhere/x.png")
    (mvtec_dir / "tile/test/other").symlink_to("../../../elsewhere")
    (mvtec_dir / "tile/test/good/gone.png").symlink_to("nowhere.png")
    with pytest.raises(DatasetError, match="there are 3 problems") as caught:
        _load("mvtec", mvtec_dir)
    for name in ("train/good/x.png", "test/other", "gone.png"):
        assert f"'{mvtec_dir / 'tile'}" in str(caught.value) and name in str(caught.value)


def test_links_within_the_data_directory_are_followed(mvtec_dir, tmp_path):
    (mvtec_dir / "tile/train/good/x.png").symlink_to("000.png")
    (mvtec_dir / "copy").symlink_to("tile")
    link = tmp_path / "link"
    link.symlink_to(mvtec_dir)
    _, copy, tile = _load("mvtec", link)
    assert len(tile.train) == len(copy.train) == 3


def test_linked_directories_of_images_are_followed_once(mvtec_dir):
    before = len(_load("mvtec", mvtec_dir)[-1].train)
    trees.save(mvtec_dir / "tile/more/a.png", trees.image(7))
    (mvtec_dir / "tile/train/good/more").symlink_to("../../more")
    (mvtec_dir / "tile/train/good/again").symlink_to("../good")  # a circle
    assert len(_load("mvtec", mvtec_dir)[-1].train) == before + 1


def test_validation_without_a_test_is_a_folder_too(tmp_path):
    _write(tmp_path, ["train/good/a.png", "train/good/b.png", "validation/good/c.png"])
    (found,) = _load("folder", tmp_path)
    assert len(found.train) == 2
    (tmp_path / "test_public").mkdir()
    with pytest.raises(DatasetError, match="looks like data set 'mvtec2'"):
        _load("folder", tmp_path)


def test_only_mvtec_needs_masks(tmp_path):
    _write(tmp_path, ["train/good/a.png", "test/bad/b.png"])
    assert _load("folder", tmp_path)[0].test[0].mask is None
    with pytest.raises(DatasetError, match=r"bad/b.png' has no mask; '.*bad/b_mask.png'"):
        _load("mvtec", tmp_path)


def test_listed_files_are_read(tmp_path):
    _write(tmp_path, ["train/good/a.png", "test/bad/b.png", "ground_truth/bad/b_mask.png"])
    mask = np.zeros((20, 30), np.uint8)
    mask[:10] = 255
    for name in ("train/good/a.png", "test/bad/b.png", "ground_truth/bad/b_mask.png"):
        Image.fromarray(mask).save(tmp_path / name)
    (category,) = _load("mvtec", tmp_path)
    ((_, loaded),) = datasets.read_examples(category.test, 8)
    np.testing.assert_array_equal(loaded.mask, np.repeat([True] * 4 + [False] * 4, 8).reshape(8, 8))


def test_a_mask_without_a_stem_is_named(mvtec_dir):
    _write(mvtec_dir / "tile", ["ground_truth/crack/_mask.png"])
    with pytest.raises(DatasetError, match=r"_mask\.png' has no image"):
        _load("mvtec", mvtec_dir)


def test_what_is_no_file_is_no_image(mvtec_dir):
    os.mkfifo(mvtec_dir / "tile" / "train" / "good" / "pipe.png")
    (mvtec_dir / "tile" / "train" / "good" / "directory.png").mkdir()
    names = [example.name for example in _load("mvtec", mvtec_dir, "tile")[0].train]
    assert names == ["tile/train/good/000.png", "tile/train/good/001.png"]


def test_a_name_that_is_not_text_is_refused(mvtec_dir):
    good = os.fsencode(mvtec_dir / "tile" / "test" / "good")
    try:
        open(good + b"/\xff\xfe.png", "wb").close()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(DatasetError, match=r"xff.*is not UTF-8"):
        _load("mvtec", mvtec_dir)


def test_links_to_nothing_that_a_pattern_matches_are_refused(tmp_path):
    _write(tmp_path, ["a/0.png"])
    (tmp_path / "a" / "1.png").symlink_to("gone.png")
    with pytest.raises(DatasetError, match=r"1\.png' is a link to a file that does not exist"):
        datasets.load("folder", tmp_path, train_glob="a/*")


def test_a_directory_out_of_reach_is_named(mvtec_dir, monkeypatch):
    def walk(directory, onerror):
        onerror(PermissionError(13, "Permission denied", str(directory)))
        return []

    monkeypatch.setattr("os.walk", walk)
    with pytest.raises(DatasetError, match=r"' cannot be read: Permission denied"):
        _load("mvtec", mvtec_dir)
