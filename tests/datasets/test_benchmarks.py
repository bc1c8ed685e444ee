"""The data sets btad, visa and mvtec2, on small trees in their exact layout."""

import numpy as np
import pytest

from sgfr_jax import datasets
from sgfr_jax.datasets import DatasetError
from tests.datasets import trees


def _rows(examples):
    return [(e.name, e.label, e.kind, e.mask and e.mask.name) for e in examples]


def test_btad(tmp_path):
    first, second, third = datasets.load("btad", trees.btad(tmp_path))
    assert [c.name for c in (first, second, third)] == ["01", "02", "03"]
    assert [e.name for e in first.train] == [f"01/train/ok/000{i}.bmp" for i in range(3)]
    assert _rows(first.test) == [
        ("01/test/ko/0000.bmp", 1, "ko", "0000.png"),
        ("01/test/ok/0000.bmp", 0, "good", None),
    ]
    assert third.test[0].mask.name == "0000.bmp"
    (alone,) = datasets.load("btad", tmp_path / "02")
    assert alone.name == "02" and alone.test[0].name == "test/ko/0000.png"


def test_btad_masks_are_read_whatever_their_ending(tmp_path):
    for category in datasets.load("btad", trees.btad(tmp_path)):
        loaded = datasets.read_example(category.test[0], 24)
        assert loaded.mask.any() and not loaded.mask.all()


def test_visa_follows_its_table(tmp_path):
    candle, pcb1 = datasets.load("visa", trees.visa(tmp_path))
    assert (candle.name, pcb1.name) == ("candle", "pcb1")
    # Sorted, though the table's order is not.
    assert [e.name[-8:] for e in candle.train] == ["0000.JPG", "0001.JPG", "0002.JPG"]
    assert _rows(candle.test) == [
        ("candle/Data/Images/Anomaly/000.JPG", 1, "anomaly", "000.png"),
        ("candle/Data/Images/Normal/0003.JPG", 0, "good", None),
    ]


def test_visa_from_where_we_are(tmp_path, monkeypatch):
    trees.visa(tmp_path / "visa")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    for root in ("../visa", f"{tmp_path}/below/../visa"):
        found = datasets.load("visa", root)
        assert [c.name for c in found] == ["candle", "pcb1"]
        assert found[0].train[0].name == datasets.load("visa", tmp_path / "visa")[0].train[0].name


def test_visa_small_codes_are_defect(tmp_path):
    (candle,) = datasets.load("visa", trees.visa(tmp_path), categories=["candle"])
    loaded = datasets.read_example(candle.test[0], trees.HEIGHT)
    assert loaded.mask.mean() == pytest.approx(8 * 12 / (24 * 32), abs=0.02)


VISA_MISTAKES = {
    "candle,train,anomaly,candle/Data/Images/Anomaly/000.JPG,m.png": [
        "row 12 of .* trains on an anomaly",
        "row 12 of .* names 'm.png', but there is no file",
        "row 12 of .* names 'candle/Data/Images/Anomaly/000.JPG' again, as row 6 does",
    ],
    "candle,test,normal,candle/9.JPG,": ["row 12 of .*names 'candle/9.JPG', but there is no file"],
    "candle,test,normal,../9.JPG,": [r"row 12 of .*names '\.\./9.JPG', which lies outside"],
    "candle,val,odd,candle/9.JPG,": ["row 12 of .*split 'val' and the label 'odd'"],
    "candle,test": ["row 12 of .* has 2 fields; the header has 5"],
    "dog,train,normal,candle/Data/Images/Normal/0000.JPG,": ["row 12 .* again, as row 3 does"],
}


@pytest.mark.parametrize("row", VISA_MISTAKES)
def test_visa_names_the_row_of_a_mistake(tmp_path, row):
    trees.visa(tmp_path)
    with open(tmp_path / "split_csv/1cls.csv", "a") as file:
        file.write(row + "\n")
    with pytest.raises(DatasetError) as caught:
        datasets.load("visa", tmp_path)
    for message in VISA_MISTAKES[row]:
        assert caught.match(message)


def test_visa_without_its_table(tmp_path):
    (trees.visa(tmp_path) / "split_csv/1cls.csv").unlink()
    with pytest.raises(DatasetError, match=r"there is no '.*1cls\.csv' .*, which says what trains"):
        datasets.load("visa", tmp_path)


def test_mvtec2(tmp_path):
    can, vial = datasets.load("mvtec2", trees.mvtec2(tmp_path))
    assert (can.name, vial.name) == ("can", "vial")
    assert len(can.train) == 3
    assert [e.name for e in can.validation] == ["can/validation/good/000_regular.png"]
    assert _rows(can.test)[:2] == [
        ("can/test_public/bad/000_overexposed.png", 1, "bad", "000_overexposed_mask.png"),
        ("can/test_public/bad/000_regular.png", 1, "bad", "000_regular_mask.png"),
    ]
    assert [e.label for e in can.test] == [1, 1, 1, 0, 0, 0]
    assert _rows(can.private) == [
        ("can/test_private/000_regular.png", -1, "private", None),
        ("can/test_private_mixed/000_mixed.png", -1, "private_mixed", None),
    ]


def test_mvtec2_private_images_have_no_mask(tmp_path):
    can, _ = datasets.load("mvtec2", trees.mvtec2(tmp_path))
    loaded = datasets.read_example(can.private[0], 16)
    assert loaded.mask is None and loaded.image.shape == (16, 16, 3)


def test_mvtec2_in_part(tmp_path):
    trees.mvtec2(tmp_path)
    for path in sorted((tmp_path / "can/test_public").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / "can/test_public").rmdir()
    (tmp_path / "vial/test_public/ground_truth/bad/000_regular_mask.png").unlink()
    with pytest.raises(DatasetError, match="there are 2 problems") as caught:
        datasets.load("mvtec2", tmp_path)
    assert caught.match("no directory '.*can/test_public'")
    assert caught.match("000_regular.png' has no mask; .*ground_truth/bad/000_regular_mask.png'")


def test_grey_and_colour_are_read_alike(tmp_path):
    trees.mvtec(tmp_path, "screw", grey=True)
    (screw,) = datasets.load("mvtec", tmp_path)
    pixels = datasets.read_example(screw.train[0], 24).image
    assert np.array_equal(pixels[..., 0], pixels[..., 2])
