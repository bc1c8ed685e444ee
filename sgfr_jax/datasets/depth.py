"""How many of their 16 bits images use: read by all 16, a 12-bit camera's images look black.

The depth is one of a few that cameras have, found over a category's training images and the same
for all of its images: pictures are never stretched to the values that occur in them.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sgfr_jax.datasets import decoding
from sgfr_jax.datasets.deep_colour import low_bytes
from sgfr_jax.datasets.formats import open_image
from sgfr_jax.datasets.types import FULL_RANGE, Category, DatasetError, Encoded, Example

_BITS_PER_SAMPLE = 258  # TIFF tag
_SAMPLED = 32
_DEPTHS = (8, 10, 12, 14, 16)


def with_white(category: Category) -> Category:
    """The category with what is white in its images, and a note if that is not all 16 bits.

    Only 16-bit images are decoded.
    """
    largest = _largest([example.image for example in category.train])
    if largest is None or (white := white_of(largest)) == FULL_RANGE:
        return category

    def seen(examples: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(example._replace(white=white) for example in examples)

    train, test = seen(category.train), seen(category.test)
    validation, private = seen(category.validation), seen(category.private)
    note = (
        f"the 16-bit training images use {white.bit_length()} bits (largest value {largest}), so"
        f" {white} is read as white"
    )
    brighter = note_on([example.image for example in (*test, *validation, *private)], white)
    notes = (*category.notes, note, *brighter)
    return Category(category.name, train, test, validation, private, notes)


def white_of(largest: int) -> int:
    """The largest value of the least depth that has a value."""
    return next(2**bits - 1 for bits in _DEPTHS if largest < 2**bits)


def note_on(sources: Sequence[Path | Encoded | np.ndarray], white: int) -> list[str]:
    """A note on images whose 16-bit values do not go with what is read as white, or none.

    Nothing is above the full range, so there some of the images tell.
    """
    looked_at = _deep(sources)[: _SAMPLED if white == FULL_RANGE else None]
    found = [value for value in _each(largest_value, looked_at) if value is not None]
    brighter = sum(value > white for value in found)
    if brighter:
        return [
            f"{brighter} images have values above {white}, which the training images have not, up"
            f" to {max(found)}: they are read as white"
        ]
    if found and white_of(max(found)) < white:
        return [
            f"images of 16 bits have no value above {max(found)} ({len(found)} looked at), and"
            f" {white} is read as white: they are seen dark"
        ]
    return []


def largest_value(source: Path | Encoded | np.ndarray) -> int | None:
    """The largest value of a 16-bit image; None for others and for what cannot be read."""
    try:
        pixels = decoding.stored_pixels(source)
    except DatasetError:  # which reading it for its own sake will say
        return None
    return int(pixels.max()) if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2 else None


def _largest(sources: Sequence[Path | Encoded | np.ndarray]) -> int | None:
    found = [value for value in _each(largest_value, _deep(sources)) if value is not None]
    return max(found, default=None)


def _deep(sources: Sequence[Path | Encoded | np.ndarray]) -> list[Path | Encoded | np.ndarray]:
    """Those that may have 16 bits, as headers tell."""
    return [s for s, deep in zip(sources, _each(_may_be_deep, sources), strict=True) if deep]


def _may_be_deep(source: Path | Encoded | np.ndarray) -> bool:
    if isinstance(source, np.ndarray):
        return source.dtype.itemsize == 2
    if isinstance(source, Encoded):
        return False  # 8 bits, as they were prepared
    try:
        with open_image(source) as image:
            if image.format == "TIFF":
                return max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))) > 8
            return image.mode.startswith("I") or low_bytes(image) is not None
    except Exception:  # what tifffile may know, or nobody does
        return source.suffix.lower() in (".tif", ".tiff")


def _each(function: Callable, sources: Sequence) -> list:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, sources))
