"""Reading images and masks into squares of any size, in threads and in order.

`decoding` says which files are read, and how their pixels become integers.
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from sgfr_jax.datasets import decoding
from sgfr_jax.datasets.geometry import Window, filled
from sgfr_jax.datasets.masks import mask_threshold
from sgfr_jax.datasets.types import DatasetError, Encoded, Example


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
    return _resized_image(decoding.image_pixels(source), (size, size))


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
    return _resized_mask(decoding.mask_pixels(source, threshold), (size, size))


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
    pixels = decoding.image_pixels(example.image, example.white)
    if min(pixels.shape[:2]) < min_side:
        height, width = pixels.shape[:2]
        raise DatasetError(
            f"{_called(example)} has {width} x {height} pixels; at least {min_side} a side are "
            "needed (the network's stride)."
        )
    if example.mask is None:
        return Loaded(pixels, None if example.label else np.zeros(pixels.shape[:2], bool))
    mask = decoding.mask_pixels(example.mask, example.mask_threshold)
    if mask.shape != pixels.shape[:2]:
        (height, width), (mask_height, mask_width) = pixels.shape[:2], mask.shape
        raise DatasetError(
            f"the mask {decoding.describe(example.mask)} has {mask_width} x {mask_height} pixels"
            f" and its image {decoding.describe(example.image)} has {width} x {height} (after the"
            " rotation that EXIF data may ask for); they must agree."
        )
    return Loaded(pixels, mask)


def _called(example: Example) -> str:
    """How a message names an image: an array, which lies nowhere, by the example's name."""
    if isinstance(example.image, np.ndarray):
        return example.name
    return f"the image {decoding.describe(example.image)}"


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
