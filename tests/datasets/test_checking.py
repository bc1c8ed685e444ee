import numpy as np
import pytest
from PIL import Image

from sgfr_jax import datasets
from sgfr_jax.datasets import checking
from tests.datasets import trees


def test_what_there_is(tmp_path):
    trees.mvtec(tmp_path, "bottle")
    trees.mvtec(tmp_path, "screw", grey=True)
    seen = []
    result = checking.survey(
        datasets.load("mvtec", tmp_path), dataset="mvtec", report=lambda *at: seen.append(at)
    )
    bottle, screw = result.categories
    assert bottle == checking.CategorySurvey(
        "bottle", 3, 0, 1, {"broken_large": 2}, 0, 2, {(32, 24): 6}, {"RGB": 6}
    )
    assert screw.modes == {"L": 6}
    assert seen == [(i, 12) for i in range(1, 13)]
    assert result.problems == ()
    assert any(
        note.startswith("bottle has 3 training images instead of 209") for note in result.notes
    )
    text = checking.describe(result)
    assert "broken_large 2" in text and "32 x 24 (6)" in text and text.endswith("no problems")


def test_every_problem_is_found_at_once(tmp_path):
    trees.mvtec(tmp_path)
    bottle = tmp_path / "bottle"
    (bottle / "train/good/000.png").write_bytes(b"")
    truncated = (bottle / "train/good/001.png").read_bytes()[:200]
    (bottle / "train/good/001.png").write_bytes(truncated)
    trees.save(bottle / "ground_truth/broken_large/000_mask.png", np.zeros((9, 9), np.uint8))
    frames = [Image.fromarray(trees.image(i)) for i in range(3)]
    frames[0].save(
        bottle / "test/good/000.png", save_all=True, append_images=frames[1:], format="PNG"
    )
    result = checking.survey(datasets.load("mvtec", tmp_path))
    assert len(result.problems) == 4
    text = checking.describe(result)
    for message in ("is empty (0 bytes)", "truncated or damaged", "9 x 9", "3 pages or frames"):
        assert message in text
    assert text.endswith("4 problems")
    assert sum(result.categories[0].sizes.values()) == 2


def test_masks_that_contradict_the_class_are_noted(tmp_path):
    trees.mtd(tmp_path)
    result = checking.survey(datasets.load("mtd", tmp_path), dataset="mtd", workers=1)
    assert [note for note in result.notes if "marks no pixel" in note] == [
        "mtd: 'MT_Uneven/Imgs/exp1_num_0.jpg' has a mask that marks no pixel."
    ]
    assert any("952" in note for note in result.notes)


def test_images_that_are_too_small(tmp_path):
    trees.mvtec(tmp_path)
    result = checking.survey(datasets.load("mvtec", tmp_path), min_side=32)
    assert len(result.problems) == 6 and "at least 32" in result.problems[0]


def test_one_sided_tests_are_noted(tmp_path):
    trees.save(tmp_path / "a/train/good/1.png", trees.image(1))
    trees.save(tmp_path / "b/train/good/1.png", trees.image(1))
    trees.save(tmp_path / "b/test/bad/1.png", trees.image(1))
    result = checking.survey(datasets.load("folder", tmp_path))
    assert any("a has no test images" in note for note in result.notes)
    assert any("b has defective test images only" in note for note in result.notes)


def test_arrays_and_private_images(tmp_path):
    trees.mvtec2(tmp_path)
    can, _ = checking.survey(datasets.load("mvtec2", tmp_path)).categories
    assert (can.validation, can.private) == (1, 2)
    (brick,) = checking.survey(datasets.load("demo", categories=["brick"])).categories
    assert brick.sizes == {(128, 128): 146} and brick.modes == {"L": 146}


def test_many_sizes_are_shortened():
    sizes = {(i, i): i for i in range(1, 10)}
    category = checking.CategorySurvey("x", 1, 0, 0, {}, 0, 0, sizes, {"L": 45})
    text = checking.describe(checking.Survey((category,), (), ()))
    assert "9 x 9 (9), 8 x 8 (8), 7 x 7 (7), 6 x 6 (6), 5 x 5 (5), and 4 others" in text


def test_workers():
    with pytest.raises(ValueError, match="workers must be at least 1"):
        checking.survey((), workers=0)
