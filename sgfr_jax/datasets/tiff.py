"""TIFF files: those that Pillow misreads or does not know, and what any of them takes to decode."""

import lzma
import math
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from sgfr_jax.datasets.formats import check_memory
from sgfr_jax.datasets.types import DatasetError

# Tags; the sizes are as stored, before the image is turned upright.
WIDTH, LENGTH, PHOTOMETRIC, ORIENTATION = 256, 257, 262, 274
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL, _PLANAR_CONFIGURATION = 258, 277, 284
_TILE_WIDTH, _TILE_LENGTH = 322, 323
WHITE_IS_ZERO, _INKS = 0, 5  # of PHOTOMETRIC
TRANSPOSED = (5, 6, 7, 8)  # the orientations that turn rows into columns
_SEPARATE = 2  # of _PLANAR_CONFIGURATION: one plane per channel
# Of tag 259, those that tifffile undoes without asking how much comes out.
_ZLIB, _LZMA = (8, 32946, 50013), (34925,)
_PIECE = 1 << 20  # bytes


def check(name: Path | str, image: Image.Image) -> None:
    """Raises `DatasetError` if an open TIFF file takes too much memory to decode."""
    tags = image.tag_v2
    bits = max(tags.get(_BITS_PER_SAMPLE, (1,))) * tags.get(_SAMPLES_PER_PIXEL, 1)
    num_pixels = image.width * image.height
    of_tile = tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_LENGTH, 0)  # larger than the image, if any
    check_memory(name, num_pixels, max(num_pixels, of_tile) * bits // 8)


def misread(image: Image.Image) -> bool:
    """Returns whether Pillow would misread this open TIFF file.

    It takes the wrong byte of 16-bit planes, and reads grey that is not compressed in rows of the
    wrong length where the orientation swaps the sides.
    """
    tags = image.tag_v2
    grey = image.mode == "L" or image.mode.startswith("I;16")
    if grey and tags.get(ORIENTATION) in TRANSPOSED and image.tile[0][0] == "raw":
        return True
    deep = max(tags.get(_BITS_PER_SAMPLE, (1,))) > 8
    return deep and tags.get(_PLANAR_CONFIGURATION) == _SEPARATE


def header_shape(path: Path) -> tuple[int, int] | None:
    """Returns the upright height and width of what `decode` reads; None if they are not told."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            shape, orientation = (page.imagelength, page.imagewidth), _orientation(page)
    except Exception:  # it raises all kinds
        return None
    return shape[::-1] if orientation in TRANSPOSED else shape


def decode(path: Path) -> np.ndarray:
    """Returns the upright pixels of what Pillow cannot read: 16-bit planes, float colour, 64 bits.

    Raises:
      DatasetError: if the file has several pages, takes too much memory, or has inks or white
        zeros of a type for which they mean nothing.
    """
    import tifffile  # comes with scikit-image; seldom needed

    with tifffile.TiffFile(path) as file:
        if len(file.pages) > 1:
            raise DatasetError(
                f"'{path}' has {len(file.pages)} pages or frames; save the one that is meant as an "
                "image of its own."
            )
        page = file.pages[0]
        _check_page(path, page)
        pixels = page.asarray()
        if page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        orientation = _orientation(page)
        photometric = int(page.photometric)
    if photometric in (WHITE_IS_ZERO, _INKS):
        if not np.issubdtype(pixels.dtype, np.unsignedinteger):
            raise DatasetError(
                f"'{path}' has pixels of type {pixels.dtype} of which zero is white, or inks; save"
                " it as RGB or grey with 8 or 16 bits per channel."
            )
        pixels = np.iinfo(pixels.dtype).max - pixels
    if photometric == _INKS and pixels.ndim == 3 and pixels.shape[2] >= 4:
        # What ink leaves of the light, in each colour and then in all.
        light = pixels[:, :, :3].astype(np.float64) * pixels[:, :, 3:4]
        pixels = np.round(light / np.iinfo(pixels.dtype).max).astype(pixels.dtype)
    return _upright(pixels, orientation)


def _orientation(page) -> int:
    tag = page.tags.get("Orientation")
    return 1 if tag is None else int(tag.value)


def _check_page(path: Path, page) -> None:
    """Raises `DatasetError` if a page of tifffile's takes too much memory to decode."""
    itemsize = page.dtype.itemsize
    of_segment = math.prod(page.chunks) * itemsize  # a strip or tile
    num_pixels = page.imagewidth * page.imagelength * page.imagedepth
    check_memory(path, num_pixels, max(math.prod(page.shape) * itemsize, of_segment))
    compression = int(page.compression)
    if compression in (*_ZLIB, *_LZMA):
        make = zlib.decompressobj if compression in _ZLIB else lzma.LZMADecompressor
        handle = page.parent.filehandle
        for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
            handle.seek(offset)
            if _expands_beyond(handle.read(length), make(), of_segment):
                raise DatasetError(
                    f"'{path}' cannot be read; it may be damaged (a strip or tile holds more than"
                    " its pixels)."
                )


def _expands_beyond(data: bytes, decompressor, most: int) -> bool:
    """Whether more bytes than `most` come out; no more than a piece of them is held."""
    found = 0
    while found <= most and not decompressor.eof:
        piece = decompressor.decompress(data, _PIECE)
        # zlib gives back what it has not taken yet, and LZMA keeps it.
        data = getattr(decompressor, "unconsumed_tail", b"")
        found += len(piece)
        if not piece and not data:
            break
    return found > most


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes an EXIF orientation: 2 to 4 flip or turn by 180 degrees, 5 to 8 also transpose."""
    if orientation in TRANSPOSED:
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
