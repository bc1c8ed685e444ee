import hashlib
import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from sgfr_jax.datasets import decoding, images
from sgfr_jax.datasets.geometry import Window
from sgfr_jax.datasets.types import DatasetError, Encoded, Example

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
RGB = RNG.integers(0, 256, (24, 24, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (24, 24), dtype=np.uint16)
DEEP_RGB = RNG.integers(0, 65536, (24, 24, 3), dtype=np.uint16)
# An arrow with no symmetry, so that every orientation of it is another image.
ARROW = np.zeros((24, 24), np.uint8)
ARROW[2:22, 4] = 255
ARROW[2, 4:14] = 128


def _grey3(grey):
    return np.repeat(np.asarray(grey)[:, :, None], 3, axis=2)


def _scaled(deep):
    return np.round(deep / 257).astype(np.uint8)


def _example(image, mask=None, label=1, **kwargs):
    return Example("x", image, label, "bad" if label else "good", mask, **kwargs)


# Modes: every file is 24 x 24 and read at 24, so that no filter blurs the comparison.


def _save_png(mode):
    def save(path):
        image = Image.fromarray(RGB)
        if mode == "RGBA":
            image.putalpha(Image.fromarray(RGB[..., 0]))
        elif mode == "LA":
            image = image.convert("L")
            image.putalpha(Image.fromarray(RGB[..., 1]))
        else:
            image = image.convert(mode)
        image.save(path)

    return save


def _palette(path):
    indices = RGB[..., 0] // 64
    image = Image.fromarray(indices).convert("L")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 10, 20, 30])
    image.save(path, transparency=0)


COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]], np.uint8)
LUMA = np.asarray(Image.fromarray(RGB).convert("L"))
BITS = np.asarray(Image.fromarray(RGB).convert("1"))

FILES = {
    "rgb.png": (_save_png("RGB"), RGB),
    "rgb.bmp": (_save_png("RGB"), RGB),
    "rgba.png": (_save_png("RGBA"), RGB),
    "grey.png": (_save_png("L"), _grey3(LUMA)),
    "grey_alpha.png": (_save_png("LA"), _grey3(LUMA)),
    "bits.png": (_save_png("1"), _grey3(np.where(BITS, 255, 0))),
    "palette.png": (_palette, COLOURS[RGB[..., 0] // 64]),
    "deep.png": (lambda path: Image.fromarray(DEEP).save(path), _grey3(_scaled(DEEP))),
    "deep.tif": (lambda path: tifffile.imwrite(path, DEEP), _grey3(_scaled(DEEP))),
    "deep_big_endian.tif": (
        lambda path: tifffile.imwrite(path, DEEP, byteorder=">"),
        _grey3(_scaled(DEEP)),
    ),
    "deep_white_is_zero.tif": (
        lambda path: tifffile.imwrite(path, DEEP, photometric="miniswhite"),
        _grey3(_scaled(65535 - DEEP)),
    ),
    "deep.pgm": (
        lambda path: path.write_bytes(b"P5\n24 24\n65535\n" + DEEP.astype(">u2").tobytes()),
        _grey3(_scaled(DEEP)),
    ),
    "deep_rgb_planes.tif": (
        lambda path: tifffile.imwrite(
            path, np.moveaxis(DEEP_RGB, -1, 0), photometric="rgb", planarconfig="separate"
        ),
        _scaled(DEEP_RGB),
    ),
    "float.tif": (
        lambda path: tifffile.imwrite(path, (DEEP / 65535).astype(np.float32)),
        _grey3(np.round(DEEP / 65535 * 255)),
    ),
    "float_rgb.tif": (
        lambda path: tifffile.imwrite(
            path, (DEEP_RGB / 65535).astype(np.float32), photometric="rgb"
        ),
        np.round(DEEP_RGB / 65535 * 255),
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_every_mode_gives_the_pixels_that_were_meant(tmp_path, name):
    save, expected = FILES[name]
    save(tmp_path / name)
    pixels = images.read_image(tmp_path / name, 24)
    assert pixels.dtype == np.uint8 and pixels.shape == (24, 24, 3)
    np.testing.assert_array_equal(pixels, expected)


PAGES = {
    "pages.tif": lambda path: tifffile.imwrite(path, np.stack([RGB, 255 - RGB]), photometric="rgb"),
    "float_pages.tif": lambda path: tifffile.imwrite(
        path, np.zeros((3, 24, 24, 3), np.float32), photometric="rgb"
    ),
    "animated.gif": lambda path: _save_frames(path),
    "animated.png": lambda path: _save_frames(path),
}


def _save_frames(path):
    Image.fromarray(ARROW).save(path, save_all=True, append_images=[Image.fromarray(255 - ARROW)])


@pytest.mark.parametrize("name", PAGES)
def test_animations_and_files_of_many_pages_are_refused(tmp_path, name):
    PAGES[name](tmp_path / name)
    with pytest.raises(DatasetError, match=rf"{name}' has [23] pages or frames"):
        images.read_image(tmp_path / name, 24)


def test_the_picture_of_a_phone_with_a_preview_behind_it_is_read(tmp_path):
    Image.fromarray(RGB).save(
        tmp_path / "x.jpg", "MPO", save_all=True, append_images=[Image.fromarray(255 - RGB)]
    )
    assert np.abs(images.read_image(tmp_path / "x.jpg", 24).astype(int) - RGB).mean() < 60


def test_bytes_that_lie_elsewhere_are_read_as_files_are(tmp_path):
    (tmp_path / "x.jpg").write_bytes(_jpeg_bytes())
    source = Encoded("record 3", (tmp_path / "x.jpg").read_bytes)
    np.testing.assert_array_equal(
        images.read_image(source, 24), images.read_image(tmp_path / "x.jpg", 24)
    )
    for wrong in (bytes, lambda: b"no image", lambda: _jpeg_bytes()[:100], lambda: 1 / 0):
        with pytest.raises(DatasetError, match="'record 3' cannot be read"):
            images.read_image(Encoded("record 3", wrong), 24)


def test_native_pixels_are_those_that_are_resized():
    example = Example("x", GREY, 1, "bad", GREY > 128)
    image, mask = images.read_native(example)
    np.testing.assert_array_equal(image, GREY)
    np.testing.assert_array_equal(mask, GREY > 128)
    assert images.read_native(example._replace(mask=None)).mask is None
    assert not images.read_native(example._replace(mask=None, label=0)).mask.any()


def test_16_bit_colour_is_within_one_level_of_its_full_range(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", DEEP_RGB, photometric="rgb")
    pixels = images.read_image(tmp_path / "x.tif", 24).astype(int)
    assert np.abs(pixels - DEEP_RGB / 257).max() <= 1


def test_cmyk_and_jpeg(tmp_path):
    flat = np.full((24, 24, 3), (200, 100, 50), np.uint8)
    Image.fromarray(flat).convert("CMYK").save(tmp_path / "x.jpg", quality=100)
    pixels = images.read_image(tmp_path / "x.jpg", 24).astype(int)
    assert np.abs(pixels - flat).max() <= 4


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, suffix, dtype, orientation):
    # What the sensor saw, for each orientation, if the arrow stands upright (EXIF 2.3, tag 274).
    stored = {
        1: ARROW,
        2: ARROW[:, ::-1],
        3: ARROW[::-1, ::-1],
        4: ARROW[::-1],
        5: ARROW.T,
        6: np.rot90(ARROW),
        7: ARROW[::-1, ::-1].T,
        8: np.rot90(ARROW, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    scale = 257 if dtype == np.uint16 else 1
    image = Image.fromarray(np.ascontiguousarray(stored).astype(dtype) * dtype(scale))
    image.save(tmp_path / f"x.{suffix}", exif=exif)
    pixels = images.read_image(tmp_path / f"x.{suffix}", 24)
    np.testing.assert_array_equal(pixels, _grey3(ARROW))


def test_orientation_of_what_tifffile_reads(tmp_path):
    # Two routes to one answer: Pillow turns the grey file, our own code the planes.
    for orientation in range(1, 9):
        tag = [(274, "H", 1, orientation, True)]
        planes = np.stack([DEEP, DEEP, DEEP])
        tifffile.imwrite(
            tmp_path / "planes.tif",
            planes,
            photometric="rgb",
            planarconfig="separate",
            extratags=tag,
        )
        tifffile.imwrite(tmp_path / "grey.tif", DEEP, extratags=tag)
        np.testing.assert_array_equal(
            images.read_image(tmp_path / "planes.tif", 24),
            images.read_image(tmp_path / "grey.tif", 24),
        )


@pytest.mark.parametrize("scale", [np.uint8(1), np.uint16(257)])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_what_is_not_square(tmp_path, scale, compression, orientation):
    pixels = np.arange(40, dtype=scale.dtype).reshape(5, 8)
    path = tmp_path / "x.tif"
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels * scale).save(path, exif=exif, compression=compression)
    turned = orientation > 4
    expected = pixels.T if turned else pixels
    if orientation in (3, 4, 7, 8):
        expected = expected[::-1]
    if orientation in (2, 3, 6, 7):
        expected = expected[:, ::-1]
    found = images.read_native(Example("x", path, 0, "good", None)).image
    np.testing.assert_array_equal(found, expected)
    assert decoding.shape_of(path) == found.shape == ((8, 5) if turned else (5, 8))


def test_inks_and_white_zeros_that_tifffile_reads(tmp_path):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, 65535 - DEEP, byteorder=">", photometric="miniswhite")
    np.testing.assert_array_equal(images.read_image(path, 24), _grey3(_scaled(DEEP)))
    inks = np.zeros((4, 6, 6), np.uint16)
    inks[0], inks[3, :3] = 65535, 13107  # cyan, of which the upper half is a fifth black
    tifffile.imwrite(path, inks, photometric="separated", planarconfig="separate")
    found = images.read_image(path, 6)
    assert found[0, 0].tolist() == [0, 204, 204] and found[5, 5].tolist() == [0, 255, 255]


def test_arrays_of_either_byte_order():
    for order in "<>":
        pixels = images.read_image(DEEP.astype(f"{order}u2"), 24)
        np.testing.assert_array_equal(pixels, _grey3(_scaled(DEEP)))


# Sizes


def test_shrinking_averages_instead_of_aliasing():
    stripes = np.tile(np.array([0, 255], np.uint8), (128, 64))
    pixels = images.read_image(stripes, 16).astype(int)
    assert np.abs(pixels - 127.5).max() < 8


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (700, 3), (20, 30)])
def test_any_size_and_aspect(shape):
    pixels = images.read_image(np.full(shape, 77, np.uint8), 32)
    assert pixels.shape == (32, 32, 3) and (pixels == 77).all()


@pytest.mark.parametrize(
    "height,width,digest",
    [
        (373, 248, "f5152991cf284bc4"),
        (512, 40, "394fd3a03ce801da"),
        (300, 300, "06c667a594b902ca"),
        (40, 500, "23a22edbf802ffbc"),
    ],
)
def test_every_version_of_pillow_resizes_to_the_same_bits(height, width, digest):
    """What Pillow 11.0, 12.0, 12.3 and 13.0 give; in one call they differ on the first two."""
    pixels = (np.arange(height * width * 3) ** 2 % 251).astype(np.uint8)
    square = images.read_image(pixels.reshape(height, width, 3), 128)
    assert hashlib.sha256(square.tobytes()).hexdigest().startswith(digest)


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20)), st.integers(1, 40)
)
@settings(max_examples=50, deadline=None)
def test_resizing_never_overshoots(pixels, size):
    square = images.read_image(pixels, size)
    assert pixels.min() <= square.min() and square.max() <= pixels.max()


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20)),
    st.integers(1, 40),
    st.integers(1, 255),
)
@settings(max_examples=50, deadline=None)
def test_masks_are_resized_by_picking_pixels(mask, size, threshold):
    """Compares with the nearest centre, worked out by indexing."""
    square = images.read_mask(mask, size, threshold=threshold)
    assert square.dtype == bool and square.shape == (size, size)
    # Integers, because a quotient of floats can fall on the wrong side of a pixel's edge.
    rows, columns = ((2 * np.arange(size) + 1) * side // (2 * size) for side in mask.shape)
    # Where a centre falls on the very edge between two pixels, either is nearest.
    ties = [((2 * np.arange(size) + 1) * side) % (2 * size) == 0 for side in mask.shape]
    picked = (mask >= threshold)[rows[:, None], columns]
    settled = ~(ties[0][:, None] | ties[1])
    np.testing.assert_array_equal(square[settled], picked[settled])


@pytest.mark.parametrize(
    "values, threshold, expected",
    [
        ([0, 1, 2, 255], 1, [0, 1, 1, 1]),
        ([0, 127, 128, 255], 128, [0, 0, 1, 1]),
    ],
)
def test_mask_threshold(values, threshold, expected):
    mask = np.repeat(np.array([values], np.uint8), 4, axis=0)
    np.testing.assert_array_equal(
        images.read_mask(mask, 4, threshold=threshold), np.array([expected] * 4, bool)
    )


def test_mask_files_of_other_modes(tmp_path):
    expected = ARROW > 0
    red = np.zeros((24, 24, 3), np.uint8)
    red[expected, 0] = 9
    codes = expected.astype(np.uint16)  # 1 of 65535 would vanish if it were scaled to 8 bits
    Image.fromarray(red).save(tmp_path / "red.png")
    Image.fromarray(codes).save(tmp_path / "codes.png")
    Image.fromarray(expected).save(tmp_path / "bits.png")
    for name in ("red.png", "codes.png", "bits.png"):
        np.testing.assert_array_equal(images.read_mask(tmp_path / name, 24), expected)


# Examples


def test_the_label_says_what_a_missing_mask_means():
    assert images.read_example(_example(GREY, label=1), 8).mask is None
    assert not images.read_example(_example(GREY, label=0), 8).mask.any()


def test_mask_of_another_size_names_both(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(GREY).save(tmp_path / "photo.jpg", exif=exif)
    Image.fromarray(GREY).save(tmp_path / "photo_mask.png")
    example = _example(tmp_path / "photo.jpg", tmp_path / "photo_mask.png")
    with pytest.raises(DatasetError, match=r"photo_mask.png.*30 x 20.*photo.jpg.*20 x 30"):
        images.read_example(example, 8)


def _png_bytes(pixels=RGB):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def _jpeg_bytes():
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "jpeg")
    return buffer.getvalue()


def _tiff_bytes(pixels):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("empty.png", b"", "is empty"),
        ("text.png", b"hello, I am no image", "is not an image"),
        ("text.tif", b"hello, I am no image", "truncated or damaged"),
        ("cut.png", _png_bytes()[:600], "truncated or damaged"),
        ("cut.jpg", _jpeg_bytes()[:700], "truncated or damaged"),
        ("cut.tif", _tiff_bytes(RGB)[:600], "truncated or damaged"),
        ("integers.tif", _tiff_bytes(DEEP.astype(np.uint32)), "no agreed range"),
        ("floats.tif", _tiff_bytes(DEEP.astype(np.float32)), r"outside \[0, 1\]"),
        ("nan.tif", _tiff_bytes(np.full((24, 24), np.nan, np.float32)), r"outside \[0, 1\]"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        images.read_image(path, 8)
    assert str(path) in str(caught.value)


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        images.read_image(tmp_path / "none.png", 8)
    with pytest.raises(DatasetError, match="cannot be read"):
        images.read_image(tmp_path, 8)


def test_huge_images_are_refused(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(_png_bytes())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 24 // 2 - 1)
    with pytest.raises(DatasetError, match="more than 574 pixels"):
        images.read_image(tmp_path / "x.png", 8)


@pytest.mark.parametrize("shape", [(4,), (4, 4, 5), (0, 4), (2, 4, 4, 3)])
def test_arrays_of_other_shapes_are_refused(shape):
    with pytest.raises(DatasetError, match="shape"):
        images.read_image(np.zeros(shape, np.uint8), 8)


# Many


@pytest.mark.parametrize("workers", [1, 3])
def test_many_are_read_in_order_with_errors_in_place(workers):
    examples = [_example(np.full((9, 9), i, np.uint8)) for i in range(20)]
    examples[7] = _example(Path("/nowhere/seven.png"))
    results = list(images.read_examples(examples, 4, workers=workers))
    assert [index for index, _ in results] == list(range(20))
    for index, result in results:
        if index == 7:
            assert isinstance(result, DatasetError) and "seven.png" in str(result)
        else:
            assert (result.image == index).all()


def test_reading_ahead_is_bounded_and_stops_when_closed(monkeypatch):
    started, lock = [], threading.Lock()

    def read(example, size, min_side):
        with lock:
            started.append(example)
        return size

    monkeypatch.setattr(images, "read_example", read)
    results = images.read_examples(list(range(1000)), 4, workers=2)
    for _ in range(10):
        next(results)
    assert len(started) <= 10 + 4
    results.close()
    assert len(started) <= 10 + 4


def test_workers_must_be_positive():
    with pytest.raises(ValueError, match="workers"):
        images.read_examples([], 4, workers=0)


def test_an_image_smaller_than_the_least_side_is_refused():
    example = _example(np.zeros((9, 30), np.uint8))
    with pytest.raises(DatasetError, match=rf"^{example.name} has 30 x 9 pixels; at least 10"):
        images.read_example(example, 4, min_side=10)
    assert images.read_example(example, 4, min_side=9).image.shape == (4, 4, 3)


WINDOWS = [
    Window((0, 0, 24, 24)),
    Window((4, 2, 16, 20)),
    Window((0, 0, 24, 24), (0.5, 1.0)),
    Window((3, 0, 9, 24), (0.25, 1.0)),
]


@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_shows_its_part_and_pads_the_rest(window):
    mask = (RGB[..., 0] > 128).astype(np.uint8)
    found = images.read_example(_example(RGB, mask, window=window), 48)
    top, left, bottom, right = window.box
    rows, columns = (round(share * 48) for share in window.extent)
    part = Image.fromarray(RGB[top:bottom, left:right])
    expected = np.asarray(part.resize((columns, rows), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(found.image[:rows, :columns], expected)
    assert (found.image[rows:] == found.image[rows - 1]).all()
    assert not found.mask[rows:].any() and not found.mask[:, columns:].any()
    assert found.mask.any()


@pytest.mark.parametrize("kind", ["path", "bytes", "array"])
def test_windows_read_together_are_those_read_alone(tmp_path, kind):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    source = {"path": tmp_path / "a.png", "bytes": Encoded("a", lambda: data), "array": RGB}[kind]
    examples = [_example(source, label=0, window=window) for window in WINDOWS]
    reader = images.WindowReader(32, 8)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(reader, examples))
    for example, found in zip(examples, together, strict=True):
        alone = images.read_example(example, 32, min_side=8)
        np.testing.assert_array_equal(found.image, alone.image)
        np.testing.assert_array_equal(found.mask, alone.mask)


def test_an_image_is_decoded_once_for_its_windows(monkeypatch):
    decoded, read_whole = [], images._read_whole
    monkeypatch.setattr(
        images, "_read_whole", lambda *args: decoded.append(args[0].name) or read_whole(*args)
    )
    reader = images.WindowReader(16)
    for name in "abc":
        for window in WINDOWS:
            reader(_example(RGB, label=0, window=window)._replace(name=name))
    assert decoded == ["a", "b", "c"]
    assert isinstance(pickle.loads(pickle.dumps(reader)), images.WindowReader)


def test_a_bad_image_is_bad_through_every_window(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    reader = images.WindowReader(16)
    for window in WINDOWS:
        with pytest.raises(DatasetError, match="empty"):
            reader(_example(tmp_path / "a.png", window=window))


@pytest.mark.parametrize("name", [*FILES, "turned.jpg"])
def test_the_shape_is_that_of_the_pixels(tmp_path, name):
    path = tmp_path / name
    if name == "turned.jpg":
        exif = Image.Exif()
        exif[274] = 6
        Image.fromarray(GREY).save(path, exif=exif)
    else:
        FILES[name][0](path)
    assert decoding.shape_of(path) == images.read_native(_example(path, label=0)).image.shape[:2]
    data = path.read_bytes()
    if path.suffix in (".png", ".jpg"):
        assert decoding.shape_of(Encoded("x", lambda: data)) == decoding.shape_of(path)
    assert decoding.shape_of(GREY) == (20, 30)
