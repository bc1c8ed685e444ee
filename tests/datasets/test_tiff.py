"""TIFF files that are small on disk and large in memory."""

import lzma
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from sgfr_jax.datasets import decoding, images, tiff
from sgfr_jax.datasets.types import DatasetError, Encoded, Example

_LONG, _SHORT = 4, 3
_FLOAT, _UNSIGNED = 3, 1


def write(path, width, height, *, bits=8, samples=1, kind=_UNSIGNED, data=b"", tile=None,
          planar=1, compression=8):  # fmt: skip
    """A TIFF file of one strip or tile, whatever its data."""
    tags = {
        256: (_LONG, width), 257: (_LONG, height), 258: (_SHORT, bits), 259: (_SHORT, compression),
        262: (_SHORT, 1 if samples == 1 else 2), 277: (_SHORT, samples), 284: (_SHORT, planar),
        339: (_SHORT, kind),
    }  # fmt: skip
    if tile is None:
        tags |= {273: (_LONG, 8), 278: (_LONG, height), 279: (_LONG, len(data))}
    else:
        tags |= {322: (_LONG, tile), 323: (_LONG, tile), 324: (_LONG, 8), 325: (_LONG, len(data))}
    data += b"\0" * (len(data) % 2)
    entries = b"".join(
        struct.pack("<HHI", tag, of, 1) + struct.pack("<I" if of == _LONG else "<Hxx", value)
        for tag, (of, value) in sorted(tags.items())
    )
    header = b"II*\0" + struct.pack("<I", 8 + len(data))
    path.write_bytes(header + data + struct.pack("<H", len(tags)) + entries + bytes(4))


def read(path):
    return images.read_native(Example("x", path, 0, "", None)).image


@pytest.mark.parametrize(
    "what, words",
    [
        (
            {"width": 14_000, "height": 14_000, "bits": 64, "kind": _FLOAT},
            "more than 178956970 pixels",
        ),
        ({"width": 12_000, "height": 12_000, "bits": 64, "kind": _FLOAT}, "takes 1152000000 bytes"),
        ({"width": 12_000, "height": 12_000, "bits": 64}, "takes 1152000000 bytes"),
        ({"width": 14_000, "height": 14_000}, "more than 178956970 pixels"),
        ({"width": 12_000, "height": 12_000, "bits": 16, "samples": 3}, "takes 864000000 bytes"),
        (
            {"width": 12_000, "height": 12_000, "bits": 16, "samples": 3, "planar": 2},
            "takes 864000000 bytes",
        ),
        ({"width": 16, "height": 16, "tile": 30_000}, "takes 900000000 bytes"),
        (
            {"width": 16, "height": 16, "bits": 64, "kind": _FLOAT, "tile": 12_000},
            "takes 1152000000 bytes",
        ),
    ],
)
def test_what_would_fill_the_memory_is_refused_before_it_is_decoded(tmp_path, what, words):
    """The data are missing: whoever decoded them would say that the file is damaged."""
    path = tmp_path / "x.tif"
    write(path, **what)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DatasetError, match=words) as caught:
        read(path)
    assert str(path) in str(caught.value)
    with pytest.raises(DatasetError):
        images.read_image(Encoded("x.tif", path.read_bytes), 8)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


@pytest.mark.parametrize("compression, compress", [(8, zlib.compress), (34925, lzma.compress)])
def test_a_strip_that_holds_more_than_its_pixels(tmp_path, compression, compress):
    """A kilobyte that says that it is 2 kB of pixels, and becomes 64 MB."""
    path = tmp_path / "x.tif"
    sound = np.linspace(0, 1, 16 * 16).reshape(16, 16)
    common = {"width": 16, "height": 16, "bits": 64, "kind": _FLOAT, "compression": compression}
    write(path, **common, data=compress(sound.tobytes()))
    np.testing.assert_array_equal(read(path), np.round(sound * 255))
    write(path, **common, data=compress(bytes(1 << 26)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DatasetError, match="holds more than its pixels"):
        read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_files_of_many_strips_and_tiles_are_read(tmp_path):
    """What is checked strip by strip is what tifffile writes, the last strip shorter."""
    pixels = np.random.default_rng(0).integers(0, 65536, (75, 50, 3), dtype=np.uint16)
    for number, layout in enumerate(({"rowsperstrip": 16}, {"tile": (32, 32)})):
        for planar in ("contig", "separate"):
            path = Path(tmp_path, f"{number}{planar}.tif")
            stored = pixels if planar == "contig" else np.moveaxis(pixels, -1, 0)
            tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar,
                             compression="zlib", **layout)  # fmt: skip
            np.testing.assert_array_equal(tiff.decode(path), pixels)


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_size_is_known_without_decoding(tmp_path, orientation):
    """Also of what Pillow does not know, and where the pixels are missing."""
    pixels = np.random.default_rng(0).random((20, 30))
    tag = [(274, "H", 1, orientation, False)]
    tifffile.imwrite(tmp_path / "x.tif", pixels, extratags=tag)
    assert decoding.header_shape(tmp_path / "x.tif") == read(tmp_path / "x.tif").shape
    write(tmp_path / "y.tif", width=5_000, height=4_000, bits=64, kind=_FLOAT)
    assert decoding.header_shape(tmp_path / "y.tif") == (4_000, 5_000)
    (tmp_path / "z.tif").write_bytes(b"II*\0")
    assert decoding.header_shape(tmp_path / "z.tif") is None


def test_no_limit_where_pillow_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    Image.new("L", (9, 9)).save(tmp_path / "x.tif")
    assert read(tmp_path / "x.tif").shape == (9, 9)
