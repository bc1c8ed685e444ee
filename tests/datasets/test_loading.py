import ast
import sys
from pathlib import Path

import pytest

from sgfr_jax import datasets
from sgfr_jax.datasets import DatasetError


def test_unknown_data_set_lists_the_known_and_suggests():
    with pytest.raises(DatasetError, match=r"'mvtek'. Did you mean 'mvtec'\?.*demo, folder, mtd"):
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


@pytest.mark.parametrize("name", ["mvtec", "folder", "mtd"])
def test_every_directory_problem_says_how_the_files_must_lie(tmp_path, name):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    cases = {
        None: "none was given",
        tmp_path / "missing": "does not exist",
        tmp_path / "file": "not a directory",
        tmp_path / "empty": "is empty",
        tmp_path: "no ca|neither|no images",
    }
    for data_dir, message in cases.items():
        with pytest.raises(DatasetError, match=message) as caught:
            datasets.load(name, data_dir)
        assert "--data_dir" in str(caught.value)
        assert "DIR/" in str(caught.value)


def test_only_numpy_and_pillow_are_imported_at_once():
    sources = Path(datasets.__file__).parent.glob("*.py")
    packages = set()
    for source in sources:
        for node in ast.parse(source.read_text()).body:
            if isinstance(node, ast.Import):
                packages |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                packages.add(node.module.split(".")[0])
    assert packages - set(sys.stdlib_module_names) == {"PIL", "numpy", "sgfr_jax"}
