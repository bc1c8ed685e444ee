"""Results are no photographs, wherever they lie."""

import json

import pytest

from sgfr_jax import datasets
from sgfr_jax.datasets import listing, outputs
from tests.datasets import trees


def record(directory, *names, size=None):
    lines = [outputs.HEADER]
    for name in names:
        entry = outputs.Entry("run", size or (directory / name).stat().st_size, "0" * 64)
        lines.append({"path": name} | entry._asdict())
    (directory / outputs.RECORD).write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.fixture
def results(tmp_path):
    """Six images of a category with figures of an earlier run in the midst of them."""
    trees.mvtec(tmp_path)
    work = tmp_path / "bottle" / "test" / "broken_large"
    trees.save(work / "figures" / "bottle" / "good_most_1.png", trees.image(0))
    record(work, "figures/bottle/good_most_1.png")
    return work


def test_what_a_record_names_is_no_photograph(results, tmp_path):
    assert len(listing.image_files(tmp_path)) == 8 and len(listing.pictures(tmp_path)) == 9
    mine = results / "figures" / "bottle" / "mine.png"
    trees.save(mine, trees.image(0))
    assert mine in listing.image_files(tmp_path)
    assert listing.image_files(results / "figures") == [mine]  # asked for by a directory below


def test_what_the_user_has_put_in_its_place_is(results, tmp_path):
    record(results, "figures/bottle/good_most_1.png", size=5)
    assert len(listing.image_files(tmp_path)) == 9


def test_data_sets_pass_it_over(results, tmp_path):
    (found,) = datasets.load("folder", tmp_path)
    assert len(found.test) == 3
    patterns = {"train_glob": "train/**/*.png", "test_glob": "test/**/*.png"}
    (found,) = datasets.load("folder", tmp_path / "bottle", **patterns)
    assert len(found.test) == 3


def test_a_prediction_without_a_record(tmp_path):
    for name in ("a.png", "out/maps/a.png.png", "out/overlays/a.png.png", "out/b.png"):
        trees.save(tmp_path / name, trees.image(0))
    (tmp_path / "out" / "scores.csv").write_text("path,score\n")
    assert len(listing.image_files(tmp_path)) == 4
    (tmp_path / "out" / "scores.csv").write_text(",".join(outputs.COLUMNS) + "\n")
    assert [p.name for p in listing.image_files(tmp_path)] == ["a.png", "b.png"]
