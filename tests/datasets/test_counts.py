from pathlib import Path

import pytest

from sgfr_jax import datasets
from sgfr_jax.datasets import Category, Example, counts

ROOT = Path(__file__).resolve().parents[3] / "shared" / "data" / "mtd"


def _category(name, train, good, defective, validation=0):
    def examples(number, label):
        kind = "bad" if label else "good"
        return tuple(Example(f"{label}/{i}", Path("x"), label, kind, None) for i in range(number))

    test = examples(good, 0) + examples(defective, 1)
    return Category(name, examples(train, 0), test, examples(validation, 0))


@pytest.mark.parametrize(
    "dataset, totals",
    [
        ("mvtec", (15, 3629, 467, 1258, 0)),
        ("mvtec2", (8, 2528, 379, 705, 302)),
        ("btad", (3, 1799, 451, 290, 0)),
        ("visa", (12, 8659, 962, 1200, 0)),
    ],
)
def test_the_table_adds_up_to_the_published_totals(dataset, totals):
    table = counts.PUBLISHED[dataset].values()
    assert (len(table), *map(sum, zip(*table, strict=True))) == totals


def test_what_differs_is_said():
    categories = [_category("bottle", 209, 20, 63), _category("cable", 224, 50, 93)]
    assert counts.differences("mvtec", categories) == (
        "cable has 50 nominal test images instead of 58, 93 defective test images instead of 92.",
    )
    assert counts.shortfalls("mvtec", categories) == counts.differences("mvtec", categories)
    more = [_category("can", 412, 73, 90, 46)]
    assert "73 nominal test images instead of 72" in counts.differences("mvtec2", more)[0]
    assert counts.shortfalls("mvtec2", more) == ()


def test_what_is_not_published_does_not_differ():
    categories = [_category("my_product", 3, 1, 1)]
    assert counts.differences("folder", categories) == counts.differences("mvtec", categories) == ()
    assert counts.shortfalls("mvtec", categories) == ()


def test_mtd_has_more_images_than_papers_report():
    (note,) = counts.differences("mtd", [_category("mtd", 761, 191, 392)])
    assert "952" in note and "925" in note and "as the public copy" in note
    assert counts.shortfalls("mtd", [_category("mtd", 761, 191, 392)]) == ()
    assert len(counts.shortfalls("mtd", [_category("mtd", 740, 185, 392)])) == 1


@pytest.mark.skipif(not ROOT.is_dir(), reason=f"the MTD data set is not at {ROOT}")
def test_the_real_mtd_is_complete():
    found = datasets.load("mtd", ROOT)
    assert counts.shortfalls("mtd", found) == ()
    assert "as the public copy has" in counts.differences("mtd", found)[0]
