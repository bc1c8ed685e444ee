"""Paths that a file names, kept within a directory."""

import os
from pathlib import Path

from sgfr_jax.datasets.listing import real


def named(root: Path, text: str) -> Path:
    """Returns `root / text`; where there is no such file, with `/` for every `\\` of the text.

    So a table that was written on Windows is read elsewhere, and a name with `\\` in it stays one.
    """
    path = root / text
    return path if "\\" not in text or os.path.lexists(path) else root / text.replace("\\", "/")


def within(root: Path, text: str, problems: list[str], *, said_by: str) -> Path | None:
    """Returns the file that `text` names, relative to `root`, or None if it cannot be used.

    Args:
      root: what must contain it, after following `..` and links.
      text: an absolute path, or one relative to `root`; with `/` or, as Windows writes it, `\\`.
      problems: a sentence is appended if there is no such file, or it lies outside.
      said_by: begins that sentence; says where the name comes from.
    """
    if "\0" in text:
        problems.append(f"{said_by} names {text!r}, which cannot be a path.")
        return None
    path = named(root, text)
    try:
        resolved, is_file = real(path), path.is_file()
    except OSError as error:  # such as too long a name
        problems.append(f"{said_by} names '{text}', which cannot be read: {error.strerror}.")
        return None
    if not resolved.is_relative_to(real(root)):
        problems.append(f"{said_by} names '{text}', which lies outside of '{root}'.")
        return None
    if not is_file:
        problems.append(f"{said_by} names '{text}', but there is no file '{path}'.")
        return None
    # Without `..`, so that two spellings of one file are one name; links below keep their own.
    below = Path(os.path.relpath(path, root))
    if below.parts[0] == os.pardir:  # the root by another of its names
        below = resolved.relative_to(real(root))
    return root / below
