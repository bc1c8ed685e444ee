"""Listing files: which images lie in a directory and which mask belongs to which."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from sgfr_jax.datasets.formats import SUFFIXES
from sgfr_jax.datasets.outputs import photographs
from sgfr_jax.datasets.problems import refuse
from sgfr_jax.datasets.types import DatasetError


def require_directory(data_dir: Path | None, *, dataset: str, layout: str) -> Path:
    """Returns `data_dir` if it is a directory that holds something and no way out of it.

    Args:
      data_dir: what the user gave.
      dataset: the data set's name, for the message.
      layout: where to get the data and how they must lie, for the message.
    """
    if data_dir is None:
        problem = f"data set '{dataset}' needs a data directory (`data_dir`), and none was given"
    elif not data_dir.exists():
        problem = f"the data directory (`data_dir`) '{data_dir}' does not exist"
    elif not data_dir.is_dir():
        problem = f"the data directory (`data_dir`) '{data_dir}' is a file, not a directory"
    elif not _entries(data_dir):
        problem = f"the data directory (`data_dir`) '{data_dir}' is empty"
    else:
        refuse(bad_links(data_dir))
        return data_dir
    raise DatasetError(f"{problem}.\n{layout}")


def bad_links(data_dir: Path) -> list[str]:
    """Returns a sentence for each symbolic link that leads out of `data_dir`, or to nothing.

    `data_dir` itself may be a link. What a link to nothing is called decides whether it matters:
    only images do.
    """
    root = real(data_dir)
    problems = []
    for link in _links(data_dir):
        target = real(link)
        if not target.is_relative_to(root):
            problems.append(
                f"'{link}' is a link to '{target}', outside the data directory '{data_dir}'; put "
                "a copy there instead."
            )
        elif not target.exists() and link.suffix.lower() in SUFFIXES:
            problems.append(f"'{link}' is a link to '{target}', which does not exist.")
    return problems


def real(path: Path) -> Path:
    """Returns where a path leads, as `Path.resolve`, which raises at links in a circle."""
    return Path(os.path.realpath(path))


def _links(directory: Path) -> Iterator[Path]:
    """Yields the visible symbolic links under `directory`, sorted within each directory."""
    for parent, children, files in os.walk(directory, onerror=_refuse):
        children[:] = sorted(child for child in children if not child.startswith("."))
        for name in (*children, *sorted(files)):
            path = Path(parent, name)
            if not name.startswith(".") and path.is_symlink():
                yield path


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

    As `pictures`, without those that our commands have written (`outputs.photographs`).
    """
    return photographs(pictures(directory, recursive=recursive))


def pictures(directory: Path, *, recursive: bool = True) -> list[Path]:
    """Returns the files with an image's suffix under `directory`, sorted; none if it is missing.

    A file counts by its suffix, in any case. Hidden files and directories (`.DS_Store`, `._x.png`)
    do not count. Links to directories are followed, into each directory once.
    """
    return sorted(filter(is_image, files(directory, recursive=recursive)))


def other_files(directory: Path) -> list[Path]:
    """Returns the visible files under `directory` that are no image by their suffix, sorted."""
    return sorted(filter(is_other, files(directory)))


def files(directory: Path, *, recursive: bool = True) -> Iterator[Path]:
    """Yields all but directories under `directory`, of each visible directory once, links or not.

    Links to nothing and special files are among them, and hidden files.
    """
    seen = set()
    for parent, children, names in os.walk(directory, onerror=_refuse, followlinks=True):
        seen.add(os.path.realpath(parent))
        children[:] = [
            child
            for child in sorted(children)
            if recursive
            and not child.startswith(".")
            and os.path.realpath(os.path.join(parent, child)) not in seen
        ]
        for name in names:
            yield Path(parent, name)


def is_image(path: Path) -> bool:
    """Whether `path` is a visible file with an image's suffix.

    Raises:
      DatasetError: if it has such a name, and is a link to nothing or the name is not UTF-8.
    """
    if not is_called_image(path) or not (os.path.isfile(path) or os.path.islink(path)):
        return False
    problem = fault(path)
    if problem is not None:
        raise DatasetError(f"{problem}.")
    return True


def is_called_image(path: Path) -> bool:
    """Whether `path` is visible, has an image's suffix and is no directory; see `fault`."""
    visible = not path.name.startswith(".")
    return visible and path.suffix.lower() in SUFFIXES and not os.path.isdir(path)


def fault(path: Path) -> str | None:
    """Returns why what lies at `path` is no file that can be read and named, or None.

    Nothing is said of directories, and of a path where nothing lies.
    """
    shown = os.fsencode(path).decode(errors="backslashreplace")
    if shown != str(path):
        return f"the file name '{shown}' is not UTF-8; rename it"
    if os.path.isfile(path) or os.path.isdir(path):
        return None
    if os.path.exists(path):  # to open a pipe would wait for whoever writes into it
        return f"'{shown}' is a pipe, a socket or a device, not a file"
    if os.path.islink(path):
        return f"'{shown}' is a link to a file that does not exist or cannot be reached"
    return None


def is_other(path: Path) -> bool:
    """Whether `path` is a visible file, or a link to nothing, without an image's suffix."""
    if path.name.startswith(".") or path.suffix.lower() in SUFFIXES:
        return False
    return os.path.isfile(path) or (os.path.islink(path) and not os.path.exists(path))


def _refuse(error: OSError) -> None:
    """Raises for a directory that cannot be listed; one that is not there is an empty one."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise DatasetError(f"the directory '{error.filename}' cannot be read: {error.strerror}.")


def duplicate_stems(images: Iterable[Path]) -> list[str]:
    """Returns a sentence for each image that differs from one before it in its suffix alone."""
    first_of, problems = {}, []
    for image in images:
        first = first_of.setdefault(image.with_suffix(""), image)
        if first != image:
            problems.append(
                f"'{first}' and '{image}' differ in their suffix alone, so a mask or a result "
                "could belong to either; remove one, or give the two images different names."
            )
    return problems


def pair_masks(
    images: Iterable[Path],
    image_root: Path,
    masks: Iterable[Path],
    mask_root: Path,
    problems: list[str],
) -> dict[Path, Path]:
    """Returns the mask of every image that has one, paired by stem and never by order.

    `x.png` is paired with `x_mask.*`, or with `x.*` in the masks' own directory; subdirectories
    must agree. A mask without an image, and a pairing that is not unique, go to `problems`.

    Args:
      images: the image files.
      image_root: the directory that their stems are relative to.
      masks: the mask files.
      mask_root: the same for the masks.
      problems: a sentence is appended for each.
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
            problems.append(
                f"the mask '{mask}' has no image; an image '{image_root / stem}.*' was expected."
            )
        elif len(candidates) > 1:
            problems.append(
                f"the mask '{mask}' could belong to '{candidates[0]}' and to '{candidates[1]}'; "
                "give the two images different names."
            )
        elif candidates[0] in mask_of:
            problems.append(
                f"the image '{candidates[0]}' has two masks, '{mask_of[candidates[0]]}' and "
                f"'{mask}'; keep one."
            )
        else:
            mask_of[candidates[0]] = mask
    return mask_of
