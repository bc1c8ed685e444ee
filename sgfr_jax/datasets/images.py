"""Reading images and masks of any size and mode into squares, in threads and in order.

Grey, RGB, palette, 1-bit and CMYK images are converted; an image's alpha channel is dropped, as is
the custom of the field, so what a transparent pixel hides is seen; in a mask what is transparent is
no defect. 16-bit images are scaled by their full range (value / 257), or by that of as many of
their bits as a category uses (`depth`), and never stretched to the values that occur, which would
hide a difference in brightness between two images. Floating-point images must lie in [0, 1]. 32-bit
integers have no agreed range and are refused. EXIF orientation is applied, also to masks. An
animation or a file of many pages is refused, as only its first would be seen (a phone's MPO file, a
JPEG with previews behind it, is read).

A file of more than twice `PIL.Image.MAX_IMAGE_PIXELS` (179 million pixels unless the caller
changed it), or of more bytes than so many pixels take as RGBA, is refused before it is decoded, as
several of them in flight would fill the memory.
"""

import io
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sgfr_jax.datasets import heif, tiff
from sgfr_jax.datasets.deep_colour import low_bytes
from sgfr_jax.datasets.formats import FORMATS, most_pixels, open_image
from sgfr_jax.datasets.geometry import Window, filled
from sgfr_jax.datasets.masks import mask_threshold
from sgfr_jax.datasets.types import FULL_RANGE, DatasetError, Encoded, Example

# That are converted to 8 bits at a time.
_ROWS = 128


class Loaded(NamedTuple):
    """The pixels of one example."""

    image: np.ndarray  # uint8 [S, S, 3]; of `read_native` [H, W] or [H, W, 3]
    mask: np.ndarray | None  # bool [S, S] or [H, W]; None: not known where a defect is


def read_image(source: Path | Encoded | np.ndarray, size: int) -> np.ndarray:
    """Returns the image resized to a square, uint8 `[size, size, 3]`.

    The aspect ratio is not kept. The filter is Pillow's bilinear one, which widens when shrinking
    and so does not alias. Bicubic is sharper but has negative lobes: beside a strong edge it makes
    ripples that are in no photograph, and a detector of small deviations would see them.

    Args:
      source: a file, or an array `[H, W]` or `[H, W, C]` of 1 to 4 channels.
      size: the side of the square.
    """
    return _resized_image(_image_pixels(source), (size, size))


def read_mask(
    source: Path | Encoded | np.ndarray, size: int, *, threshold: int | None = None
) -> np.ndarray:
    """Returns where the mask is at least `threshold`, bool `[size, size]`.

    Pixels are binarised first and then resized by nearest neighbour, so that every pixel of the
    result is one of the mask's own. In a colour mask the largest channel counts, and what marks a
    pixel must be as opaque as it is bright. By default the threshold is `masks.mask_threshold`.
    """
    if threshold is None:
        threshold = mask_threshold(source) if isinstance(source, Path) else 1
    return _resized_mask(_mask_pixels(source, threshold), (size, size))


def read_example(example: Example, size: int, *, min_side: int = 1) -> Loaded:
    """Returns the pixels of `example`; raises `DatasetError` if a file of it is not usable.

    Args:
      example: what to read. Where it has a window, that part of it, padded with the pixels of its
        border as the window asks; the mask is False there.
      size: the side of the square that image and mask are resized to.
      min_side: an image with a shorter side is refused: enlarging it would show a network nothing.
    """
    return _fit(read_native(example, min_side=min_side), example.window, size)


def read_native(example: Example, *, min_side: int = 1) -> Loaded:
    """Returns the pixels of `example` at their own size, as `read_example` resizes them.

    Args:
      example: what to read; where it has a window, that part of it.
      min_side: as of `read_example`.
    """
    return _part(_read_whole(example, min_side), example.window)


class WindowReader:
    """Reads as `read_example`, decoding an image once for its windows, if they follow each other.

    May be called from several threads, and pickles.
    """

    # Windows of so many images may be in flight at a time.
    _HELD = 2

    def __init__(self, size: int, min_side: int = 1):
        """Makes a reader; the arguments are those of `read_example`."""
        self._size, self._min_side = size, min_side
        self._lock, self._decoded = threading.Lock(), {}

    def __reduce__(self):
        """What is decoded stays here."""
        return WindowReader, (self._size, self._min_side)

    def __call__(self, example: Example) -> Loaded:
        """Reads one example; raises `DatasetError` if a file of it is not usable."""
        found = self._whole(example._replace(window=None)).result()
        return _fit(_part(found, example.window), example.window, self._size)

    def _whole(self, example: Example) -> Future:
        key = example.name
        with self._lock:
            known = self._decoded.get(key)
            if known is not None:
                return known
            found = self._decoded[key] = Future()
            if len(self._decoded) > self._HELD:
                del self._decoded[next(iter(self._decoded))]
        try:
            found.set_result(_read_whole(example, self._min_side))
        except Exception as error:  # raised where the result is asked for
            found.set_exception(error)
        return found


def shape_of(source: Path | Encoded | np.ndarray) -> tuple[int, int]:
    """Height and width of an image that can be read, upright; from its header where that tells."""
    return header_shape(source) or _image_pixels(source).shape[:2]


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


def _part(loaded: Loaded, window: Window | None) -> Loaded:
    """What a window shows of an image at its own size."""
    if window is None:
        return loaded
    top, left, bottom, right = window.box
    image = loaded.image[top:bottom, left:right]
    return Loaded(image, None if loaded.mask is None else loaded.mask[top:bottom, left:right])


def _fit(loaded: Loaded, window: Window | None, size: int) -> Loaded:
    """An image of any size as a square, padded as the window asks."""
    extent = (1.0, 1.0) if window is None else window.extent
    shape = tuple(filled(share, size) for share in extent)
    image, mask = _resized_image(loaded.image, shape), loaded.mask
    missing = tuple((0, size - length) for length in shape)
    if any(after for _, after in missing):
        image = np.pad(image, (*missing, (0, 0)), mode="edge")
    if mask is not None:
        mask = np.pad(_resized_mask(mask, shape), missing)
    return Loaded(image, mask)


def _read_whole(example: Example, min_side: int) -> Loaded:
    pixels = _image_pixels(example.image, example.white)
    if min(pixels.shape[:2]) < min_side:
        height, width = pixels.shape[:2]
        raise DatasetError(
            f"the image {_describe(example.image)} has {width} x {height} pixels; at least "
            f"{min_side} a side are needed (the network's stride)."
        )
    if example.mask is None:
        return Loaded(pixels, None if example.label else np.zeros(pixels.shape[:2], bool))
    mask = _mask_pixels(example.mask, example.mask_threshold)
    if mask.shape != pixels.shape[:2]:
        (height, width), (mask_height, mask_width) = pixels.shape[:2], mask.shape
        raise DatasetError(
            f"the mask {_describe(example.mask)} has {mask_width} x {mask_height} pixels and its "
            f"image {_describe(example.image)} has {width} x {height} (after the rotation that "
            "EXIF data may ask for); they must agree."
        )
    return Loaded(pixels, mask)


def read_examples(
    examples: Sequence[Example],
    size: int,
    *,
    min_side: int = 1,
    workers: int = 4,
) -> Iterator[tuple[int, Loaded | DatasetError]]:
    """Yields `(index, pixels)` in order, reading a few examples ahead.

    What is wrong with an example is yielded in its place instead of being raised: whether to skip
    it or to stop is the caller's choice. At most `2 * workers` examples are held at a time.
    Closing the iterator cancels what has not begun.

    Args:
      examples: what to read.
      size: the side of the square that everything is resized to.
      min_side: as of `read_example`.
      workers: the number of threads.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}.")
    read = partial(_read_or_error, size=size, min_side=min_side)
    return _read_ahead(examples, read, workers)


def _read_ahead(examples, read, workers):
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read_examples")
    pending = deque()
    try:
        for index, example in enumerate(examples):
            pending.append((index, pool.submit(read, example)))
            if len(pending) == 2 * workers:
                yield _next_result(pending)
        while pending:
            yield _next_result(pending)
    finally:
        pool.shutdown(cancel_futures=True)


def _next_result(pending):
    index, future = pending.popleft()
    return index, future.result()


def _read_or_error(example: Example, *, size: int, min_side: int) -> Loaded | DatasetError:
    try:
        return read_example(example, size, min_side=min_side)
    except DatasetError as error:
        return error


def _resized_image(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resizes side after side, which all versions of Pillow do to the same bit.

    Given both at once they do so too, rounding to 8 bits in between; but 12 always begins with the
    width, 13 with the height where that shrinks more than twice as much. A quarter of the pixels is
    then one level off, which moves the features of smooth tiles by 3%. Here it is the order of 13.
    """
    image, (height, width) = Image.fromarray(pixels), shape
    tall = image.height - height > max(0, 2 * (image.width - width))
    first = (image.width, height) if tall else (width, image.height)
    for size in (first, (width, height)):
        image = image.resize(size, Image.Resampling.BILINEAR)
    resized = np.asarray(image)
    return np.repeat(resized[:, :, None], 3, axis=2) if resized.ndim == 2 else resized.copy()


def _resized_mask(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    codes = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(codes.resize(shape[::-1], Image.Resampling.NEAREST)).astype(bool)


def stored_pixels(source: Path | Encoded | np.ndarray) -> np.ndarray:
    """Returns an image as it is stored but upright, `[H, W]` or `[H, W, 3]`; integers, of any type.

    Raises:
      DatasetError: it cannot be read.
    """
    return _pixels(source)[0]


def _image_pixels(source: Path | Encoded | np.ndarray, white: int = FULL_RANGE) -> np.ndarray:
    """Returns uint8 `[H, W]` or `[H, W, 3]`, of 16 bits with 255 for `white`."""
    pixels = stored_pixels(source)
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:  # of either byte order
        # Half of the divisor rounds; uint32 holds the product.
        return _by_rows(
            lambda rows: (np.minimum(rows, white).astype(np.uint32) * 255 + white // 2) // white,
            pixels,
        )
    if pixels.dtype != np.uint8:
        raise DatasetError(
            f"{_describe(source)} has pixels of type {pixels.dtype}, for which there is no agreed "
            "range; save it with 8 or 16 bits per channel."
        )
    return pixels


def _mask_pixels(source: Path | Encoded | np.ndarray, threshold: int) -> np.ndarray:
    """Returns bool `[H, W]`."""
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
            f"{_describe(source)} has the shape {list(pixels.shape)}; [H, W] or [H, W, C] with 1 "
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
                f"{_describe(source)} has floating-point pixels outside [0, 1]; scale them, or "
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


def _describe(source: Path | Encoded | np.ndarray) -> str:
    if isinstance(source, np.ndarray):
        return f"(an array of shape {list(source.shape)})"
    return f"'{source.name if isinstance(source, Encoded) else source}'"
