import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgfr_jax import datasets
from sgfr_jax.datasets import DatasetError
from sgfr_jax.datasets.defects import DEFECTS
from sgfr_jax.datasets.demo import (
    BIAS,
    CATEGORIES,
    CROP,
    GAIN,
    GRADIENT,
    NUM_GOOD,
    NUM_PER_KIND,
    NUM_TRAIN,
    TEST_COLUMNS,
    TRAIN_COLUMNS,
    random_crop,
)


@pytest.fixture(scope="module")
def categories():
    return datasets.load("demo")


def _same(left, right):
    assert left.name == right.name
    for part in ("train", "test"):
        for a, b in zip(getattr(left, part), getattr(right, part), strict=True):
            assert a[0] == b[0] and a[2:4] == b[2:4]
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.mask, b.mask)


def test_counts_kinds_and_masks(categories):
    assert tuple(category.name for category in categories) == CATEGORIES
    for category in categories:
        assert len(category.train) == NUM_TRAIN
        assert len(category.test) == NUM_GOOD + NUM_PER_KIND * len(DEFECTS)
        assert {e.kind for e in category.test} == {"good", *DEFECTS}
        everything = category.train + category.test
        assert len({example.name for example in everything}) == len(everything)
        for example in everything:
            assert example.image.shape == (CROP, CROP) and example.image.dtype == np.uint8
            assert example.label == (example.kind != "good")
            assert (example.mask is not None) == bool(example.label)
        sizes = [example.mask.mean() for example in category.test if example.label]
        assert min(sizes) > 0.005 and max(sizes) < 0.2 and max(sizes) > 4 * min(sizes)


def test_no_category_depends_on_which_others_are_made(categories):
    for category in categories:
        _same(category, *datasets.load("demo", categories=[category.name]))


def test_the_split_seed_decides(categories):
    _same(categories[0], datasets.load("demo", split_seed=0)[0])
    other = datasets.load("demo", split_seed=1)[0]
    assert (other.train[0].image != categories[0].train[0].image).any()


@pytest.mark.parametrize("name", CATEGORIES)
def test_training_and_test_share_no_column(name):
    columns = np.arange(512)
    parts = [columns[part] for part in (*TRAIN_COLUMNS[name], TEST_COLUMNS[name])]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), columns)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_a_crop_lies_within_its_region(seed):
    # Pillow fills what lies outside with zeros, which a region of 200 would show.
    region = np.full((512, 170), 200, np.uint8)
    crop = random_crop(np.random.default_rng(seed), region)
    assert crop.min() > 200 * GAIN[0] + BIAS[0] - GRADIENT[1] - 1


def test_it_takes_no_directory(tmp_path):
    with pytest.raises(DatasetError, match="folder"):
        datasets.load("demo", tmp_path)
