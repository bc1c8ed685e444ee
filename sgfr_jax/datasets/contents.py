"""What files hold, by hashes: which images are the same, byte for byte."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sgfr_jax.datasets.types import Encoded, Example

_NAMED = 3


def content_hash(source: Path | Encoded | np.ndarray | None) -> str:
    """A hash of a file's bytes or an array's values; empty for None or an unreadable file."""
    if source is None:
        return ""
    if isinstance(source, np.ndarray):
        described = f"{source.dtype} {source.shape}".encode()
        return hashlib.sha256(described + np.ascontiguousarray(source).tobytes()).hexdigest()
    try:
        if isinstance(source, Encoded):
            return hashlib.sha256(source.read()).hexdigest()
        with open(source, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError, IndexError):  # the last two from damaged records
        return ""  # reading it will say why


def notes_on_copies(
    train: Sequence[str], test: Sequence[Example], test_hashes: Sequence[str]
) -> list[str]:
    """Returns what is worth saying of images that are there more than once.

    Args:
      train: the content hashes of the training images; empty: not known, as below.
      test: the test images.
      test_hashes: their content hashes.
    """
    found = []
    known = [of_image for of_image in train if of_image]
    copies = len(known) - len(set(known))
    if copies:
        found.append(
            f"{copies} of {len(train)} training images are copies of others, byte for byte: scores"
            " of training images held out are too low"
        )
    learned, first = set(known), {}
    leaked, twice = [], []
    for example, of_image in zip(test, test_hashes, strict=True):
        if of_image in learned:
            leaked.append(example.name)
        elif of_image and first.setdefault(of_image, example.name) != example.name:
            twice.append(example.name)
    if leaked:
        found.append(
            f"{len(leaked)} of {len(test)} test images are training images, byte for byte, so"
            f" metrics are too good: {_names(leaked)}"
        )
    if twice:
        found.append(
            f"{len(twice)} of {len(test)} test images are copies of other test images, byte for"
            f" byte: {_names(twice)}"
        )
    return found


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
