from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgfr_jax import datasets
from sgfr_jax.datasets import DatasetError
from tests.datasets import mtd_tiles

ROOT = Path(__file__).resolve().parents[3] / "shared" / "data" / "mtd"
real = pytest.mark.skipif(not ROOT.is_dir(), reason=f"the MTD data set is not at {ROOT}")

CLASSES = ("Blowhole", "Break", "Crack", "Fray", "Free", "Uneven")


@pytest.fixture
def small(tmp_path):
    for name in CLASSES:
        directory = tmp_path / f"MT_{name}" / "Imgs"
        directory.mkdir(parents=True)
        for i in range(10 if name == "Free" else 1):
            (directory / f"{name}_{i}.jpg").write_bytes(b"")
            (directory / f"{name}_{i}.png").write_bytes(b"")
    return tmp_path


def test_split_is_the_documented_one(small):
    (category,) = datasets.load("mtd", small, split_seed=3)
    order = np.random.RandomState(3).permutation(10)
    assert [e.image.stem for e in category.train] == sorted(f"Free_{i}" for i in order[:8])
    assert [e.image.stem for e in category.test[:2]] == sorted(f"Free_{i}" for i in order[8:])
    assert [(e.kind, e.label) for e in category.test[1:]] == [("good", 0)] + [
        (name.lower(), 1) for name in CLASSES if name != "Free"
    ]
    assert all(e.mask_threshold == 128 for e in category.test)


@pytest.mark.parametrize(
    "missing, message",
    [
        ("MT_Crack/Imgs/Crack_0.png", r"Crack_0.jpg' has no mask; '.*Crack_0.png'"),
        ("MT_Free/Imgs/Free_3.png", r"Free_3.jpg' has no mask"),
        ("MT_Free/Imgs/Free_3.jpg", r"Free_3.png' has no image; '.*Free_3.jpg'"),
        ("MT_Fray/Imgs/Fray_0.jpg", r"no images in MT_Fray/Imgs"),
    ],
)
def test_incomplete_copies_are_refused(small, missing, message):
    (small / missing).unlink()
    with pytest.raises(DatasetError, match=message):
        datasets.load("mtd", small)


def test_all_problems_are_named_together(small):
    for name in ("MT_Crack/Imgs/Crack_0.png", "MT_Free/Imgs/Free_3.png", "MT_Free/Imgs/Free_5.jpg"):
        (small / name).unlink()
    with pytest.raises(DatasetError) as refused:
        datasets.load("mtd", small)
    assert "there are 3 problems" in str(refused.value)
    assert all(stem in str(refused.value) for stem in ("Crack_0", "Free_3", "Free_5"))


def test_a_copy_that_lacks_images_is_split_as_the_whole_one(small):
    package = Path(datasets.__file__).parent
    stems = (package / "mtd_tiles.txt").read_text().split()
    tested = set((package / "mtd_test.txt").read_text().split())
    for i in range(10):
        for suffix in (".jpg", ".png"):
            (small / f"MT_Free/Imgs/Free_{i}{suffix}").unlink()
    present = stems[::7]
    for stem in present:
        for suffix in (".jpg", ".png"):
            (small / f"MT_Free/Imgs/{stem}{suffix}").write_bytes(b"")
    (category,) = datasets.load("mtd", small)
    train, test = ({e.image.stem for e in part} for part in (category.train, category.test))
    assert train == set(present) - tested and test & set(present) == set(present) & tested


@real
def test_the_committed_list_is_the_documented_draw():
    (category,) = datasets.load("mtd", ROOT)
    stems = sorted(path.stem for path in (ROOT / "MT_Free/Imgs").glob("*.jpg"))
    order = np.random.RandomState(0).permutation(len(stems))
    assert [e.image.stem for e in category.train] == sorted(stems[i] for i in order[:761])


def test_too_few_images_to_split(small):
    for i in range(1, 10):
        (small / f"MT_Free/Imgs/Free_{i}.jpg").unlink()
        (small / f"MT_Free/Imgs/Free_{i}.png").unlink()
    with pytest.raises(DatasetError, match="leaves no training image"):
        datasets.load("mtd", small)


def test_unknown_category(small):
    with pytest.raises(DatasetError, match="Known: mtd"):
        datasets.load("mtd", small, categories=["tile"])


@real
def test_published_counts_and_sizes():
    (category,) = datasets.load("mtd", ROOT)
    assert (len(category.train), len(category.test)) == (761, 191 + 392)
    assert Counter(e.kind for e in category.test) == {
        "good": 191,
        "blowhole": 115,
        "uneven": 103,
        "break": 85,
        "crack": 57,
        "fray": 32,
    }
    everything = category.train + category.test
    assert len({e.name for e in everything}) == 952 + 392
    widths, heights = zip(*(Image.open(e.image).size for e in everything), strict=True)
    assert (min(widths), max(widths), min(heights), max(heights)) == (103, 632, 222, 403)


@real
def test_every_mask_is_readable_and_four_are_empty():
    (category,) = datasets.load("mtd", ROOT)
    empty = []
    for index, loaded in datasets.read_examples(category.test, 256, workers=2):
        example = category.test[index]
        assert not isinstance(loaded, DatasetError), loaded
        if example.label == 0:
            assert not loaded.mask.any()
        elif not loaded.mask.any():
            empty.append(example.image.stem)
    assert sorted(empty) == sorted(
        f"exp{name}" for name in ("3_num_45042", "4_num_124690", "4_num_352527", "4_num_45057")
    )


def test_images_of_one_tile_stay_together(small):
    for stem in ("exp0_num_743", "exp1_num_824", "exp6_num_1965"):
        for suffix in (".jpg", ".png"):
            (small / f"MT_Free/Imgs/{stem}{suffix}").write_bytes(b"")
    for seed in range(10):
        (category,) = datasets.load("mtd", small, split="grouped", split_seed=seed)
        train, test = ({e.image.stem for e in part} for part in (category.train, category.test))
        assert ("exp0_num_743" in train) == ("exp1_num_824" in train)
        assert len(train) in (9, 10)  # of 13; a pair may not fit any more
        assert len(train | test) == 13 + 5 and not train & test


def test_unknown_splits_and_data_sets_that_have_one(small):
    with pytest.raises(DatasetError, match="unknown split 'groupd'"):
        datasets.load("mtd", small, split="groupd")
    with pytest.raises(DatasetError, match="split=grouped is for data set 'mtd'"):
        datasets.load("demo", split="grouped")


@real
def test_grouped_split_of_the_real_set():
    (category,) = datasets.load("mtd", ROOT, split="grouped")
    assert len(category.train) == 759 and len(category.test) == 193 + 392
    lines = (Path(datasets.__file__).parent / "mtd_tiles.txt").read_text().splitlines()
    tile_of = {stem: i for i, line in enumerate(lines) for stem in line.split()}
    good = [e for e in category.test if not e.label]
    train = {tile_of[e.image.stem] for e in category.train}
    assert not train & {tile_of[e.image.stem] for e in good}


@real
@pytest.mark.slow
def test_tiles_are_what_the_numbers_and_correlations_say():
    found = mtd_tiles.tiles(ROOT)
    lines = (Path(datasets.__file__).parent / "mtd_tiles.txt").read_text().splitlines()
    assert {frozenset(stems) for stems in found} == {frozenset(line.split()) for line in lines}
