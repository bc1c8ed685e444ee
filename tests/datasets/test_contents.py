import shutil

import numpy as np

from sgfr_jax import datasets
from sgfr_jax.datasets import Example, checking, contents
from tests.datasets import trees


def _examples(*names):
    return [Example(name, np.zeros((2, 2), np.uint8), 0, "good", None) for name in names]


def test_images_that_are_there_more_than_once():
    assert contents.notes_on_copies(("a", "b"), _examples("x", "y"), ("c", "d")) == []
    copies, leaked, twice = contents.notes_on_copies(
        ("a", "b", "a"), _examples("v", "w", "x", "y"), ("b", "c", "c", "a")
    )
    assert copies.startswith("1 of 3 training images are copies")
    assert leaked.startswith("2 of 4 test images are training images") and leaked.endswith(": v, y")
    assert twice.startswith("1 of 4 test images are copies") and twice.endswith(": x")


def test_what_cannot_be_read_is_no_copy():
    assert contents.notes_on_copies(("", ""), _examples("x", "y"), ("", "")) == []


def test_a_survey_tells_training_images_in_the_test(tmp_path):
    for i in range(3):
        trees.save(tmp_path / f"train/good/{i}.png", trees.image(i))
    trees.save(tmp_path / "test/good/9.png", trees.image(9))
    (tmp_path / "test/dent").mkdir()
    shutil.copy(tmp_path / "train/good/1.png", tmp_path / "test/dent/other_name.png")
    notes = checking.survey(datasets.load("folder", tmp_path)).notes
    assert any("1 of 2 test images are training images" in note for note in notes)
    assert any(note.endswith("test/dent/other_name.png.") for note in notes)
