"""Which files our commands have written: those are results, and no photographs.

A directory that a command writes into has a record, `written.jsonl`, one JSON object a line. The
first line names the format; each later line names a file by its path below the directory, and the
last line of a path holds. Size and SHA-256 are null while the file is being written.
"""

import csv
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

RECORD = "written.jsonl"
HEADER = {"format": "files written by sgfr_jax", "version": 1}
# What predictions of earlier versions, which kept no record, are told by.
SCORES, COLUMNS = "scores.csv", ("path", "score", "p_value", "nominal_below", "decision")
PICTURES = ("maps", "overlays", "explanations")


class Entry(NamedTuple):
    """A file of a record."""

    by: str  # the command that wrote it
    size: int | None = None  # bytes; None: it was being written when the command ended
    sha256: str | None = None


def read(directory: Path) -> dict[str, Entry] | None:
    """The files that the record of a directory names, by path; None where there is no record.

    A line that is cut off or damaged names nothing.

    Raises:
      OSError: if there is a record, but it cannot be read.
    """
    try:
        lines = (directory / RECORD).read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not lines or _parsed(lines[0]) != HEADER:
        return None
    found: dict[str, Entry] = {}
    for line in lines[1:]:
        match _parsed(line):
            case {"path": str(path), "removed": True}:
                found.pop(path, None)
            case {"path": str(path), "by": str(by), "size": None}:
                found[path] = Entry(by)
            case {"path": str(path), "by": str(by), "size": int(size), "sha256": str(sha256)}:
                found[path] = Entry(by, size, sha256)
    return found


def photographs(paths: Iterable[Path]) -> list[Path]:
    """Those of some files that no command of ours has written, in their order.

    A file is ours if the record of a directory above it names it with its size. Below a prediction
    without a record, which its `scores.csv` tells, what lies in `maps`, `overlays` and
    `explanations` is.
    """
    known: dict[Path, dict[str, Entry] | bool] = {}
    return [path for path in paths if not _is_written(Path(os.path.abspath(path)), known)]


def _is_written(path: Path, known: dict[Path, dict[str, Entry] | bool]) -> bool:
    for directory in path.parents:
        if directory not in known:
            known[directory] = _recorded(directory)
        recorded = known[directory]
        if not recorded:
            continue
        below = path.relative_to(directory)
        if recorded is True:
            if below.parts[0] in PICTURES:
                return True
        elif (entry := recorded.get(below.as_posix())) is not None:
            return entry.size in (None, _size(path))
    return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # gone since it was listed
        return -1


def _recorded(directory: Path) -> dict[str, Entry] | bool:
    """The record of a directory, or whether it is a prediction without one."""
    try:
        found = read(directory)
        if found is not None:
            return found
        with open(directory / SCORES, encoding="utf-8", newline="") as file:
            return next(csv.reader(file), None) == list(COLUMNS)
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
