"""Images of fewer bits than their files have room for."""

import struct
import zlib

import numpy as np
import pytest
import tifffile

from sgfr_jax import datasets
from sgfr_jax.datasets import checking, decoding, depth, images
from sgfr_jax.datasets.types import FULL_RANGE, Example
from tests.datasets import trees

GREY = trees.image(0, grey=True)
RGB = trees.image(1)


def as_bits(pixels, bits):
    """8 bits as 8 to 16 of them, in 16."""
    return np.round(pixels.astype(np.float64) * (2**bits - 1) / 255).astype(np.uint16)


def save_colours(path, pixels):
    """A PNG of 16 bits per channel, which Pillow does not write; filtered, as most are."""
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8).astype(np.int16)
    step = 2 * channels
    rows[:, step:] -= rows[:, :-step].copy()  # filter 1: the difference to the pixel on the left
    lines = b"".join(b"\1" + (row % 256).astype(np.uint8).tobytes() for row in rows)

    def chunk(name, data):
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    kind = {3: 2, 4: 6}[channels]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + body)


def save_grey(path, pixels):
    trees.save(path, pixels)


def save_tiff(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    photometric = "rgb" if pixels.ndim == 3 else None
    tifffile.imwrite(path, pixels, photometric=photometric, compression="zlib")


def save_planes(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.moveaxis(pixels, -1, 0), photometric="rgb", planarconfig="separate")


FILES = {
    "grey.png": (save_grey, GREY),
    "grey.tif": (save_tiff, GREY),
    "colours.png": (save_colours, RGB),
    "colours.tif": (save_tiff, RGB),
    "planes.tif": (save_planes, RGB),
}


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("name", FILES)
def test_as_many_bits_are_read_as_are_used(tmp_path, name, bits):
    """Against the 8 bits that they were made of."""
    save, pixels = FILES[name]
    for place in ("train/good", "test/good", "test/dent"):
        save(tmp_path / place / name, as_bits(pixels, bits))
    (found,) = datasets.load("folder", tmp_path)
    for example in (*found.train, *found.test):
        np.testing.assert_array_equal(images.read_native(example).image, pixels)
    # And by a second route: as an array of its own.
    array = found.train[0]._replace(image=as_bits(pixels, bits))
    np.testing.assert_array_equal(images.read_native(array).image, pixels)
    said = [note for note in checking.survey([found]).notes if "is read as white" in note]
    assert len(said) == (bits < 16)
    if bits < 16:
        assert f"use {bits} bits" in said[0] and f"so {2**bits - 1} is read as white" in said[0]


def test_the_full_range_is_read_as_ever():
    values = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    found = images.read_native(Example("x", values, 0, "good", None)).image
    np.testing.assert_array_equal(found, (values.astype(np.uint32) + 128) // 257)


def test_alpha_of_16_bits_is_dropped_from_images_and_counts_in_masks(tmp_path):
    alpha = np.full((*RGB.shape[:2], 1), 255, np.uint8)
    alpha[:5] = 0
    save_colours(tmp_path / "x.png", as_bits(np.concatenate([RGB | 1, alpha], axis=2), 16))
    found = images.read_native(Example("x", tmp_path / "x.png", 0, "good", None)).image
    np.testing.assert_array_equal(found, RGB | 1)
    mask = images.read_mask(tmp_path / "x.png", 24)
    assert not mask[:4].any() and mask[6:].all()


def test_what_goes_beyond_the_training_images_is_said(tmp_path):
    trees.save(tmp_path / "train/good/0.png", as_bits(GREY, 12))
    trees.save(tmp_path / "test/good/0.png", as_bits(GREY, 16))
    trees.save(tmp_path / "test/good/1.png", as_bits(GREY, 12))
    (found,) = datasets.load("folder", tmp_path)
    own, brighter = found.notes
    assert "use 12 bits" in own and brighter.startswith("1 images have values above 4095")
    assert (images.read_native(found.test[0]).image == 255)[GREY > 20].all()


def test_images_that_a_model_would_see_dark_are_said(tmp_path):
    trees.save(tmp_path / "a.png", as_bits(GREY, 12))
    trees.save(tmp_path / "b.png", GREY)
    (dark,) = depth.note_on([tmp_path / "a.png", tmp_path / "b.png"], FULL_RANGE)
    assert (
        dark.startswith("images of 16 bits have no value above 4095 (1 looked at)")
        and "seen dark" in dark
    )
    assert depth.note_on([tmp_path / "b.png", tmp_path / "none.png"], FULL_RANGE) == []


def test_8_bits_are_not_decoded(tmp_path, monkeypatch):
    trees.mvtec(tmp_path)
    monkeypatch.setattr(decoding, "stored_pixels", lambda source: pytest.fail(f"{source} decoded"))
    (found,) = datasets.load("mvtec", tmp_path)
    assert found.train[0].white == FULL_RANGE and found.notes == ()


def test_what_cannot_be_read_has_no_depth(tmp_path):
    trees.save(tmp_path / "train/good/0.png", as_bits(GREY, 12))
    (tmp_path / "train/good/1.png").write_bytes((tmp_path / "train/good/0.png").read_bytes()[:99])
    (found,) = datasets.load("folder", tmp_path)
    assert found.train[1].white == 4095
