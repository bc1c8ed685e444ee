"""Which pixels of a mask are defect, by what its file is and not by what it is called."""

import itertools

import numpy as np
import pytest
import tifffile
from PIL import Image

from sgfr_jax import datasets
from sgfr_jax.datasets import checking, images, masks
from tests.datasets import trees

MASK = np.zeros((64, 64), np.uint8)
MASK[16:40, 8:32] = 255


@pytest.mark.parametrize(
    "name, options, threshold",
    [
        ("x.jpg", {}, 128),
        ("x.png", {"format": "JPEG"}, 128),  # whatever it is called
        ("x.jfif", {}, 128),
        ("x.webp", {"quality": 60}, 128),
        ("x.webp", {"lossless": True}, 1),
        ("x.webp", {"lossless": True, "xmp": b"<x/>"}, 1),
        ("x.jp2", {"quality_mode": "dB", "quality_layers": [30]}, 128),
        ("x.avif", {"quality": 50}, 128),
        ("x.tif", {"compression": "jpeg"}, 128),
        ("x.tif", {"compression": "tiff_lzw"}, 1),
        ("x.jpg", {"format": "PNG"}, 1),
        ("x.png", {}, 1),
        ("x.bmp", {}, 1),
        ("x.gif", {}, 1),
    ],
)
def test_a_lossy_format_has_a_higher_threshold(tmp_path, name, options, threshold):
    path = tmp_path / name
    Image.fromarray(MASK).save(path, **options)
    assert masks.mask_threshold(path) == threshold
    found = images.read_mask(path, 64)
    assert 0.97 < found.sum() / (MASK > 0).sum() < 1.03


def test_a_lossy_mask_of_16_bits(tmp_path):
    deep = MASK.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "x.jp2", quality_mode="dB", quality_layers=[30])
    found = images.read_mask(tmp_path / "x.jp2", 64)
    np.testing.assert_array_equal(found, MASK > 0)


def test_what_cannot_be_opened_is_told_by_its_suffix(tmp_path):
    for name, threshold in (("x.jpg", 128), ("x.jp2", 128), ("x.png", 1), ("none.jpeg", 128)):
        if name.startswith("x"):
            (tmp_path / name).write_bytes(b"")
        assert masks.mask_threshold(tmp_path / name) == threshold
    assert masks.mask_threshold(None) == 1


def _transparent(mode):
    """White, and the defect a colour, on a ground that is transparent."""
    rgba = np.full((64, 64, 4), 255, np.uint8)
    rgba[MASK > 0, :3] = (255, 0, 0)
    rgba[..., 3] = MASK
    image = Image.fromarray(rgba)
    return image.quantize(4) if mode == "P" else image.convert(mode)


@pytest.mark.parametrize(
    "mode, suffix",  # a TIFF's palette has no transparency
    [*itertools.product(("RGBA", "LA"), ("png", "tif", "webp")), ("P", "png"), ("P", "webp")],
)
def test_what_is_transparent_is_no_defect(tmp_path, mode, suffix):
    path = tmp_path / f"x.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    _transparent(mode).save(path, **options)
    np.testing.assert_array_equal(images.read_mask(path, 64), MASK > 0)
    # In an image what a transparent pixel hides is seen, as ever.
    if mode == "RGBA" and suffix == "png":
        assert (images.read_image(path, 64)[0, 0] == 255).all()


def test_one_colour_may_be_the_transparent_one(tmp_path):
    """The chunk tRNS of a grey PNG, which has no alpha channel."""
    grey = np.where(MASK, 200, 255).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "x.png", transparency=255)
    np.testing.assert_array_equal(images.read_mask(tmp_path / "x.png", 64), MASK > 0)


def test_arrays_with_alpha():
    grey_alpha = np.stack([np.full_like(MASK, 255), MASK], axis=2)
    np.testing.assert_array_equal(images.read_mask(grey_alpha, 64), MASK > 0)
    codes = np.stack([MASK // 255 * 3, np.full_like(MASK, 255)], axis=2)  # small, and opaque
    np.testing.assert_array_equal(images.read_mask(codes, 64), MASK > 0)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.uint32])
def test_a_tiff_whose_zero_is_white(tmp_path, dtype):
    white = True if dtype is bool else np.iinfo(dtype).max
    shown = np.where(MASK, white, 0).astype(dtype)
    stored = ~shown if dtype is bool else white - shown
    tifffile.imwrite(tmp_path / "x.tif", stored, photometric="miniswhite")
    np.testing.assert_array_equal(images.read_mask(tmp_path / "x.tif", 64), MASK > 0)


def test_a_tiff_of_fractions_whose_zero_is_white(tmp_path):
    stored = np.where(MASK, 0.0, 1.0).astype(np.float32)
    tifffile.imwrite(tmp_path / "x.tif", stored, photometric="miniswhite")
    np.testing.assert_array_equal(images.read_mask(tmp_path / "x.tif", 64), MASK > 0)
    assert (images.read_image(tmp_path / "x.tif", 64)[..., 0] == MASK).all()


@pytest.mark.parametrize(
    "mask, expected",
    [
        (MASK > 0, False),
        (MASK == 0, True),
        (np.ones((4, 4), bool), True),
        (np.zeros((4, 4), bool), False),
        (np.pad(np.zeros((62, 62), bool), 1, constant_values=True), True),  # a frame
        (np.arange(64 * 64).reshape(64, 64) < 2000, False),  # a corner, less than half
    ],
)
def test_which_masks_look_inverted(mask, expected):
    assert masks.looks_inverted(mask) == expected


def test_what_is_said_of_masks():
    assert list(masks.notes()) == list(masks.notes(defective=9)) == []
    (note,) = masks.notes(defective=2, empty=2)
    assert note.startswith("2 of 2 masks") and note.endswith("pixel metrics are undefined")
    empty, inverted, nominal = masks.notes(defective=5, empty=1, inverted=3, nominal=2)
    assert empty.startswith("1 of 5 masks") and "undefined" not in empty
    assert inverted.startswith("3 of 5") and "may be inverted" in inverted
    assert nominal.startswith("2 nominal images have masks")


def test_a_survey_notes_inverted_masks(tmp_path):
    trees.save(tmp_path / "train/good/a.png", trees.image(0))
    for i, mask in enumerate((trees.mask(), 255 - trees.mask())):
        trees.save(tmp_path / f"test/dent/{i}.png", trees.image(i + 1))
        trees.save(tmp_path / f"ground_truth/dent/{i}.png", mask)
    notes = checking.survey(datasets.load("folder", tmp_path)).notes
    assert [note for note in notes if "is it inverted" in note] == [
        f"{tmp_path.name}: 'test/dent/1.png' has a mask that marks more than half of it or all of"
        " its border; is it inverted?"
    ]
