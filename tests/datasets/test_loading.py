import ast
import sys
from pathlib import Path

import pytest

from sgfr_jax import datasets
from sgfr_jax.datasets import DatasetError


def test_unknown_data_set_lists_the_known_and_suggests():
    with pytest.raises(DatasetError, match=r"'mvtek'. Did you mean 'mvtec'\?.*demo, folder,"):
        datasets.load("mvtek")


def test_unknown_category_lists_the_known_and_suggests():
    with pytest.raises(DatasetError, match=r"'Gras'. Did you mean 'grass'\?.*brick, grass, gravel"):
        datasets.load("demo", categories=["brick", "Gras"])


def test_far_off_names_get_no_suggestion():
    with pytest.raises(DatasetError) as caught:
        datasets.load("zzzzzz")
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize("categories", [[], "brick"])
def test_categories_is_a_sequence_of_names(categories):
    with pytest.raises(DatasetError, match="categories"):
        datasets.load("demo", categories=categories)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_split_seed_range(seed):
    with pytest.raises(DatasetError, match="split_seed"):
        datasets.load("demo", split_seed=seed)


@pytest.mark.parametrize("name", ["mvtec", "folder", "mtd", "btad", "mvtec2", "visa"])
def test_every_directory_problem_says_how_the_files_must_lie(tmp_path, name):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    cases = {
        None: "none was given",
        tmp_path / "missing": "does not exist",
        tmp_path / "file": "not a directory",
        tmp_path / "empty": "is empty",
        tmp_path: "no ca|neither|no images|there is no",
    }
    for data_dir, message in cases.items():
        with pytest.raises(DatasetError, match=message) as caught:
            datasets.load(name, data_dir)
        assert "`data_dir`" in str(caught.value)
        assert "DIR/" in str(caught.value)


OTHERS = {
    "btad": "01/train/ok/0000.bmp",
    "folder": "train/good/a.png",
    "mtd": "MT_Free/Imgs/a.jpg",
    "mvtec": "bottle/train/good/000.png",
    "mvtec2": "can/test_public/good/000_regular.png",
    "visa": "candle/Data/Images/Normal/0000.JPG",
}


@pytest.mark.parametrize("name", ["btad", "mvtec", "mvtec2", "visa"])
def test_another_data_set_is_recognised(tmp_path, name):
    for other, file in OTHERS.items():
        path = tmp_path / other / file
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
        if name in ("mvtec", "folder") and other in ("mvtec", "folder", name):
            continue
        known = "mvtec" if other == "folder" else other
        if known != name:
            with pytest.raises(DatasetError, match=f"looks like data set '{known}', not '{name}'"):
                datasets.load(name, tmp_path / other)


@pytest.mark.parametrize("name", ["btad", "mvtec", "mvtec2", "visa"])
def test_a_directory_too_high_is_mended(tmp_path, name):
    path = tmp_path / "above" / "unpacked" / OTHERS[name]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"use data_dir=.*unpacked"):
        datasets.load(name, tmp_path / "above")


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("mvtec", {"train_glob": "*.png"}, "`train_glob` is for data set 'folder'"),
        ("mvtec", {"manifest": "a.csv"}, "`manifest` is for data set 'folder'"),
        ("folder", {"manifest": "a.csv", "test_glob": "*"}, "both say which images"),
        ("folder", {"test_glob": "*"}, "`test_glob` needs `train_glob`"),
        ("folder", {"prepared_dir": "p"}, "`prepared_dir` is for btad, mtd, mvtec"),
        ("folder", {"data_dir": ""}, "data_dir= is empty"),
        ("folder", {"manifest": ""}, "manifest= is empty"),
        ("mtd", {"prepared_dir": ""}, "prepared_dir= is empty"),
        ("demo", {"accept_license": True}, "`accept_license` is for btad, mtd, mvtec"),
    ],
)
def test_routes_that_contradict_each_other(name, arguments, message):
    with pytest.raises(DatasetError, match=message):
        datasets.load(name, **arguments)


def test_little_is_imported_at_once():
    # TFDS takes a third of a second; synthesis, with SciPy, is not imported with the package.
    sources = Path(datasets.__file__).parent.glob("*.py")
    packages = set()
    for source in sources:
        for node in ast.parse(source.read_text()).body:
            if isinstance(node, ast.Import):
                packages |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                packages.add(node.module.split(".")[0])
    assert packages - set(sys.stdlib_module_names) <= {"PIL", "numpy", "scipy", "sgfr_jax", "wrapt"}
