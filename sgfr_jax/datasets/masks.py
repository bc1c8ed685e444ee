"""Masks: from which value on a pixel marks a defect, and which masks can hardly be meant."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from sgfr_jax.datasets import heif
from sgfr_jax.datasets.formats import open_image
from sgfr_jax.datasets.types import Example

# Compression that loses blurs a mask's edge, so there "not zero" would mark far too much. Nothing
# in a JPEG 2000 file tells for sure whether it lost anything.
_LOSSY_FORMATS = frozenset({"AVIF", "HEIF", "JPEG", "JPEG2000", "MPO"})
_LOSSY_SUFFIXES = frozenset({".avif", ".heic", ".heif", ".j2k", ".jp2", ".jpeg", ".jpg"})
_LOSSY_THRESHOLD = 128
# TIFF tag 259, and of its values JPEG (old and new), JPEG 2000 (three), lossy DNG and WebP.
_COMPRESSION, _LOSSY_COMPRESSIONS = 259, frozenset({6, 7, 33003, 33005, 34712, 34892, 50001})


def mask_threshold(mask: Path | None) -> int:
    """Returns from which value on a mask's pixel is defect: half of the range if its format loses.

    Else whatever is not zero. The file's header tells its format; where it cannot be read, which
    reading the mask will explain, its suffix does.
    """
    if mask is None:
        return 1
    if heif.is_heif(mask):
        return _LOSSY_THRESHOLD
    try:
        with open_image(mask) as image:
            if not _is_lossy(mask, image):
                return 1
            return _LOSSY_THRESHOLD * 257 if image.mode.startswith("I;16") else _LOSSY_THRESHOLD
    except Exception:  # Pillow raises all kinds on damaged files
        return _LOSSY_THRESHOLD if mask.suffix.lower() in _LOSSY_SUFFIXES else 1


def looks(example: Example, mask: np.ndarray) -> Iterator[str]:
    """Yields what the mask of an image, bool `[H, W]`, counts as, of the arguments of `notes`."""
    if example.mask is None:
        return
    if not example.label:
        if mask.any():
            yield "nominal"
        return
    yield "defective"
    if not mask.any():
        yield "empty"
    elif looks_inverted(mask):
        yield "inverted"


def notes(
    *, defective: int = 0, empty: int = 0, inverted: int = 0, nominal: int = 0
) -> Iterator[str]:
    """Yields what is worth saying of the masks of test images.

    Args:
      defective: how many masks there are of defective images.
      empty: how many of them mark no pixel.
      inverted: how many of them mark most of their image; see `looks_inverted`.
      nominal: how many masks of nominal images mark a pixel.
    """
    of_defective = f"of {defective} masks of defective images mark"
    if empty:
        undefined = ": pixel metrics are undefined" if empty == defective and not nominal else ""
        yield (
            f"{empty} {of_defective} no pixel (what is neither zero nor transparent is defect)"
            f"{undefined}"
        )
    if inverted:
        yield (
            f"{inverted} {of_defective} more than half of their image or all of its border: they"
            " may be inverted (what is not zero is defect)"
        )
    if nominal:
        yield f"{nominal} nominal images have masks that mark defects: pixel metrics count them"


def looks_inverted(mask: np.ndarray) -> bool:
    """Whether a mask, bool `[H, W]`, marks more than half of its image or all of its border."""
    border = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return bool(mask.mean() > 0.5 or all(side.all() for side in border))


def _is_lossy(path: Path, image: Image.Image) -> bool:
    if image.format == "WEBP":
        return _has_lossy_chunk(path)
    if image.format == "TIFF":
        return image.tag_v2.get(_COMPRESSION) in _LOSSY_COMPRESSIONS
    return image.format in _LOSSY_FORMATS


def _has_lossy_chunk(path: Path) -> bool:
    """Whether the first pixels of a WebP file are coded with loss, a chunk `VP8 `, not `VP8L`."""
    with open(path, "rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", head)
            if name in (b"VP8 ", b"VP8L"):
                return name == b"VP8 "
            file.seek(length + length % 2, 1)
    return False
