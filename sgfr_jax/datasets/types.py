"""What a data set is to the rest of the package: lists of examples, not yet read."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sgfr_jax.datasets.geometry import Window

FULL_RANGE = 2**16 - 1  # of 16-bit pixels


class DatasetError(ValueError):
    """Something is wrong with the data, and the message says what and what would be right."""


class Encoded(NamedTuple):
    """The bytes of an image file that lie in no file of their own, such as a prepared record."""

    name: str  # what a message calls it
    read: Callable[[], bytes]  # a JPEG's or PNG's bytes; may be pickled, for worker processes


class Example(NamedTuple):
    """One image with what is known about it; the pixels are read by `sgfr_jax.datasets.images`."""

    name: str  # unique in its category; a file's is its POSIX path relative to the data directory
    image: Path | Encoded | np.ndarray  # an image file, or uint8 [H, W] or [H, W, 3]
    label: int  # 0 nominal, 1 defective, -1 not known; from the class, never from the mask
    kind: str  # 'good' for nominal images, otherwise the kind of defect
    mask: Path | Encoded | np.ndarray | None  # None: no defect if label is 0, else not located
    mask_threshold: int = 1  # a mask pixel of at least this value is defect
    window: Window | None = None  # the part of the image that is meant; None: all of it
    white: int = FULL_RANGE  # the value of a 16-bit image that is white; see `depth`


class Category(NamedTuple):
    """One product: a detector is fitted on `train`, all nominal, and judged on `test`."""

    name: str
    train: tuple[Example, ...]
    test: tuple[Example, ...]
    validation: tuple[Example, ...] = ()  # all nominal; for thresholds
    private: tuple[Example, ...] = ()  # label -1: a server holds the answers; for prediction only
    notes: tuple[str, ...] = ()  # of the listing: which files were left out
