"""The pixels of image files of any format and mode, upright and as integers.

Grey, RGB, palette, 1-bit and CMYK images are converted; an image's alpha channel is dropped, as is
the custom of the field, so what a transparent pixel hides is seen; in a mask what is transparent is
no defect. 16-bit images are scaled by their full range (value / 257), or by the range of the bits
that a category uses (`depth`). They are never stretched to the values that occur, which would hide
a difference in brightness between two images. Floating-point images must lie in [0, 1]. 32-bit
integers have no agreed range and are refused. EXIF orientation is applied, also to masks. An
animation or a file of many pages is refused, as only its first would be seen (a phone's MPO file, a
JPEG with previews behind it, is read).

A file of more than twice `PIL.Image.MAX_IMAGE_PIXELS` (179 million pixels unless the caller
changed it), or of more bytes than that number of RGBA pixels, is refused before it is decoded:
several such files in flight would fill the memory.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sgfr_jax.datasets import heif, tiff
from sgfr_jax.datasets.deep_colour import low_bytes
from sgfr_jax.datasets.formats import FORMATS, most_pixels, open_image
from sgfr_jax.datasets.types import FULL_RANGE, DatasetError, Encoded

# That are converted to 8 bits at a time.
_ROWS = 128


def shape_of(source: Path | Encoded | np.ndarray) -> tuple[int, int]:
    """Height and width of an image that can be read, upright; from its header where that tells."""
    return header_shape(source) or image_pixels(source).shape[:2]


def header_shape(source: Path | Encoded | np.ndarray) -> tuple[int, int] | None:
    """As `shape_of`, without decoding anything; None if the header does not tell."""
    if isinstance(source, np.ndarray):
        return source.shape[:2]
    try:
        with open_image(io.BytesIO(source.read()) if isinstance(source, Encoded) else source) as im:
            if im.format == "TIFF":  # of which versions of Pillow give the width before or after
                shape = im.tag_v2[tiff.LENGTH], im.tag_v2[tiff.WIDTH]
                orientation = im.tag_v2.get(tiff.ORIENTATION, 1)
            else:
                shape, orientation = (im.height, im.width), im.getexif().get(tiff.ORIENTATION, 1)
    except UnidentifiedImageError:
        return None if isinstance(source, Encoded) else tiff.header_shape(source)
    except Exception:  # Pillow raises all kinds on damaged files
        return None
    height, width = shape
    return (width, height) if orientation in tiff.TRANSPOSED else (height, width)


def stored_pixels(source: Path | Encoded | np.ndarray) -> np.ndarray:
    """Returns an image as it is stored but upright, `[H, W]` or `[H, W, 3]`; integers, of any type.

    Raises:
      DatasetError: it cannot be read.
    """
    return _pixels(source)[0]


def image_pixels(source: Path | Encoded | np.ndarray, white: int = FULL_RANGE) -> np.ndarray:
    """Returns an image as uint8 `[H, W]` or `[H, W, 3]`, of 16 bits with 255 for `white`.

    Raises:
      DatasetError: it cannot be read, or is of a type whose range is not known.
    """
    pixels = stored_pixels(source)
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:  # of either byte order
        # Half of the divisor rounds; uint32 holds the product.
        return _by_rows(
            lambda rows: (np.minimum(rows, white).astype(np.uint32) * 255 + white // 2) // white,
            pixels,
        )
    if pixels.dtype != np.uint8:
        raise DatasetError(
            f"{describe(source)} has pixels of type {pixels.dtype}, for which there is no agreed "
            "range; save it with 8 or 16 bits per channel."
        )
    return pixels


def mask_pixels(source: Path | Encoded | np.ndarray, threshold: int) -> np.ndarray:
    """Returns where a mask is at least `threshold` and not transparent, bool `[H, W]`.

    Raises:
      DatasetError: it cannot be read.
    """
    pixels, alpha = _pixels(source, with_alpha=True)
    if pixels.ndim == 3:
        pixels = pixels.max(axis=2)
    # Not scaled to 8 bits first: a mask may hold small codes in 16 or 32 bits.
    marked = pixels >= threshold
    return marked if alpha is None else marked & (alpha >= threshold)


def _pixels(
    source: Path | Encoded | np.ndarray, *, with_alpha: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the upright image, integers `[H, W]` or `[H, W, 3]`, and its alpha `[H, W]`.

    That is None where there is none, or where it is not asked for.
    """
    if isinstance(source, np.ndarray):
        pixels = source
    elif isinstance(source, Encoded):
        pixels = _decode_bytes(source, with_alpha)
    else:
        pixels = _decode(Path(source), with_alpha)
    alpha = None
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        alpha = _as_integers(source, pixels[:, :, -1]) if with_alpha else None
        pixels = pixels[:, :, :-1]
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or 0 in pixels.shape or pixels.shape[2:] not in ((), (3,)):
        raise DatasetError(
            f"{describe(source)} has the shape {list(pixels.shape)}; [H, W] or [H, W, C] with 1 "
            "to 4 channels is needed."
        )
    return _as_integers(source, pixels), alpha


def _as_integers(source: Path | Encoded | np.ndarray, pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(pixels.dtype, np.floating):
        # A comparison with NaN is false, so NaN is refused too.
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise DatasetError(
                f"{describe(source)} has floating-point pixels outside [0, 1]; scale them, or "
                "save it with 8 or 16 bits per channel."
            )
        return _by_rows(lambda rows: np.round(rows * 255), pixels)
    return np.ascontiguousarray(pixels)


def _by_rows(convert: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """The uint8 of what is made of pixels, a few rows at a time: wider types take memory."""
    found = np.empty(pixels.shape, np.uint8)
    for begin in range(0, len(pixels), _ROWS):
        found[begin : begin + _ROWS] = convert(pixels[begin : begin + _ROWS])
    return found


def _decode_bytes(source: Encoded, with_alpha: bool) -> np.ndarray:
    try:
        with open_image(io.BytesIO(source.read())) as image:
            if image.format == "TIFF":
                tiff.check(source.name, image)
            return _to_array(image, with_alpha)
    except DatasetError:
        raise
    except Exception as error:  # as below, and whatever keeps the bytes
        raise _damaged(source.name, error) from error


def _open(path: Path) -> Image.Image:
    try:
        return open_image(path)
    except UnidentifiedImageError:
        if not heif.is_heif(path):
            raise
        heif.register(path)
        return open_image(path)


def _decode(path: Path, with_alpha: bool) -> np.ndarray:
    try:
        with _open(path) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":
                raise DatasetError(
                    f"'{path}' has {frames} pages or frames; save the one that is meant as an "
                    "image of its own."
                )
            if image.format == "TIFF":
                tiff.check(path, image)
                if tiff.misread(image):
                    return tiff.decode(path)
            return _to_array(image, with_alpha)
    except FileNotFoundError:
        raise DatasetError(f"the image file '{path}' does not exist.") from None
    except UnidentifiedImageError:
        return _decode_unidentified(path)
    except Image.DecompressionBombError:
        raise DatasetError(
            f"the image file '{path}' has more than {most_pixels()} pixels; shrink it or cut it "
            "into tiles."
        ) from None
    except DatasetError:
        raise
    except Exception as error:  # Pillow's decoders raise all kinds on damaged files.
        raise _damaged(path, error) from error


def _decode_unidentified(path: Path) -> np.ndarray:
    """Reads what Pillow does not know, if it is a TIFF file by its suffix."""
    if not path.stat().st_size:
        raise DatasetError(f"the image file '{path}' is empty (0 bytes).")
    if path.suffix.lower() not in FORMATS["TIFF"]:
        raise DatasetError(
            f"'{path}' is not an image, or of an unknown format; {', '.join(FORMATS)} are read."
        )
    try:
        return tiff.decode(path)
    except DatasetError:
        raise
    except Exception as error:  # as of Pillow
        raise _damaged(path, error) from error


def _to_array(image: Image.Image, with_alpha: bool) -> np.ndarray:
    inverted = image.format == "TIFF" and image.tag_v2.get(tiff.PHOTOMETRIC) == tiff.WHITE_IS_ZERO
    low = low_bytes(image)
    if low is not None:
        with low:
            high = np.asarray(ImageOps.exif_transpose(image)).astype(np.uint16)
            return high << 8 | np.asarray(ImageOps.exif_transpose(low))
    wide_grey = image.mode == "I" and image.format in ("PNG", "PPM")  # Pillow widens 16 bits to 32
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)
        # Pillow inverts 8-bit TIFFs whose zero is white, but not these.
        return np.uint16(65535) - pixels if inverted else pixels
    if wide_grey:
        return np.asarray(image).astype(np.uint16)
    if image.mode == "F":
        # Nor these, of which white is 1; see `_as_integers`.
        return 1 - np.asarray(image) if inverted else np.asarray(image)
    if with_alpha and image.has_transparency_data:
        return np.asarray(image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA"))
    if image.mode in ("L", "RGB", "I"):
        return np.asarray(image)
    return np.asarray(image.convert("L" if image.mode in ("1", "LA", "La") else "RGB"))


def _damaged(path: Path | str, error: Exception) -> DatasetError:
    return DatasetError(f"'{path}' cannot be read; it may be truncated or damaged ({error}).")


def describe(source: Path | Encoded | np.ndarray) -> str:
    """How a message names an image."""
    if isinstance(source, np.ndarray):
        return f"(an array of shape {list(source.shape)})"
    return f"'{source.name if isinstance(source, Encoded) else source}'"
