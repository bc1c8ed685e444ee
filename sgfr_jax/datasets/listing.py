"""Listing files: which images lie in a directory and which mask belongs to which."""

import os
from collections.abc import Iterable
from pathlib import Path

from sgfr_jax.datasets.types import DatasetError

_COMMON = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_NETPBM = (".pbm", ".pgm", ".pnm", ".ppm")
SUFFIXES = (*_COMMON, ".jp2", *_NETPBM)


def require_directory(data_dir: Path | None, *, dataset: str, layout: str) -> Path:
    """Returns `data_dir` if it is a directory that holds something.

    Args:
      data_dir: what the user gave.
      dataset: the data set's name, for the message.
      layout: where to get the data and how they must lie, for the message.
    """
    if data_dir is None:
        problem = f"data set '{dataset}' needs a data directory (--data_dir), and none was given"
    elif not data_dir.exists():
        problem = f"the data directory (--data_dir) '{data_dir}' does not exist"
    elif not data_dir.is_dir():
        problem = f"the data directory (--data_dir) '{data_dir}' is a file, not a directory"
    elif not _entries(data_dir):
        problem = f"the data directory (--data_dir) '{data_dir}' is empty"
    else:
        return data_dir
    raise DatasetError(f"{problem}.\n{layout}")


def subdirectories(directory: Path) -> list[Path]:
    """Returns the visible directories right under `directory`, sorted; none if it is missing."""
    return [
        entry for entry in _entries(directory) if entry.is_dir() and not entry.name.startswith(".")
    ]


def _entries(directory: Path) -> list[Path]:
    """What lies right in a directory, sorted; nothing if it is missing."""
    try:
        return sorted(directory.iterdir()) if directory.is_dir() else []
    except OSError as error:
        _refuse(error)
        return []


def image_files(directory: Path, *, recursive: bool = True) -> list[Path]:
    """Returns the image files under `directory`, sorted; none if it is missing.

    A file counts by its suffix, in any case. Hidden files and directories (`.DS_Store`, `._x.png`)
    do not count.
    """
    found = []
    for parent, children, files in os.walk(directory, onerror=_refuse):
        children[:] = [child for child in children if recursive and not child.startswith(".")]
        for file in files:
            path = Path(parent, file)
            if not file.startswith(".") and path.suffix.lower() in SUFFIXES and path.is_file():
                _check_name(path)
                found.append(path)
    return sorted(found)


def _refuse(error: OSError) -> None:
    """Raises for a directory that cannot be listed; one that is not there is an empty one."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise DatasetError(f"the directory '{error.filename}' cannot be read: {error.strerror}.")


def _check_name(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise DatasetError(
            f"the file name {os.fsencode(path)!r} is not UTF-8; rename it."
        ) from None


def pair_masks(
    images: Iterable[Path], image_root: Path, masks: Iterable[Path], mask_root: Path
) -> dict[Path, Path]:
    """Returns the mask of every image that has one, paired by stem and never by order.

    `x.png` is paired with `x_mask.*`, or with `x.*` in the masks' own directory; subdirectories
    must agree. A mask without an image, and a pairing that is not unique, raise `DatasetError`.
    """
    image_of = {}
    for image in images:
        stem = image.relative_to(image_root).with_suffix("")
        image_of.setdefault(stem, []).append(image)
    mask_of = {}
    for mask in masks:
        stem = mask.relative_to(mask_root).with_suffix("")
        if stem not in image_of:
            # An image may itself be called x_mask, so the whole stem is tried first.
            stem = stem.parent / stem.name.removesuffix("_mask")
        candidates = image_of.get(stem, [])
        if not candidates:
            raise DatasetError(
                f"the mask '{mask}' has no image; an image '{image_root / stem}.*' was expected."
            )
        if len(candidates) > 1:
            raise DatasetError(
                f"the mask '{mask}' could belong to '{candidates[0]}' and to '{candidates[1]}'; "
                "give the two images different names."
            )
        if candidates[0] in mask_of:
            raise DatasetError(
                f"the image '{candidates[0]}' has two masks, '{mask_of[candidates[0]]}' and "
                f"'{mask}'; keep one."
            )
        mask_of[candidates[0]] = mask
    return mask_of
