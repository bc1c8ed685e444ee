"""Files that lie among images and are not read: they are counted and named by their suffixes."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from sgfr_jax.datasets.formats import open_image
from sgfr_jax.datasets.listing import other_files

# Photographs and drawings of formats that are not read, most of them cameras' own.
_UNREAD = frozenset((
    ".3fr", ".arw", ".bpg", ".cr2", ".cr3", ".crw", ".dcm", ".dcr", ".dds", ".dib", ".dng", ".erf",
    ".exr", ".fff", ".fits", ".hdr", ".heics", ".ico", ".iiq", ".jls", ".jxl", ".jxr", ".k25",
    ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pcx", ".pef", ".pfm", ".psd", ".qoi",
    ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".svg", ".tga", ".wdp", ".x3f", ".xcf",
))  # fmt: skip
_MAX_NAMED = 8


def is_image_like(path: Path) -> bool:
    """Whether a file that is not read is an image, by its suffix or its first bytes."""
    if path.suffix.lower() in _UNREAD:
        return True
    try:
        with open_image(path):
            return True
    except Exception:  # Pillow raises all kinds on what is no image
        return False


def notes_below(directories: Iterable[Path]) -> tuple[str, ...]:
    """Returns `notes` of all that lies under some directories."""
    return notes({path for directory in directories for path in other_files(directory)})


def notes(paths: Iterable[Path]) -> tuple[str, ...]:
    """Returns a sentence on files that are images and one on those that are none, if there are any.

    Args:
      paths: files that are not read, as `listing.is_image` tells.
    """
    images, others = [], []
    for path in paths:
        (images if is_image_like(path) else others).append(path)
    found = []
    if images:
        found.append(
            f"skipped {_number(images)}, images perhaps, of suffixes that are not read: "
            f"{_by_suffix(images)}"
        )
    if others:
        found.append(f"left out {_number(others)}, no images: {_by_suffix(others)}")
    return tuple(found)


def _number(paths: list[Path]) -> str:
    return f"{len(paths)} file{'s' if len(paths) > 1 else ''}"


def _by_suffix(paths: list[Path]) -> str:
    counts = Counter(path.suffix.lower() or "without a suffix" for path in paths)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{_printable(suffix)} ({number})" for suffix, number in ranked[:_MAX_NAMED]]
    if len(ranked) > _MAX_NAMED:
        shown.append(f"and {sum(number for _, number in ranked[_MAX_NAMED:])} of other suffixes")
    return ", ".join(shown)


def _printable(suffix: str) -> str:
    return suffix if suffix.isprintable() else ascii(suffix)[1:-1]
