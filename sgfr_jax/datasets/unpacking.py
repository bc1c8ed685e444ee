"""Unpacking an archive of which nothing is known: all of it into a new directory, or nothing.

Members are written one by one, each to a path made of its checked name, and nothing but regular
files and directories: no link is ever made that a later member could lead through. The filters of
`tarfile` follow links and have been led astray (CVE-2025-4517).
"""

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from sgfr_jax import unfinished
from sgfr_jax.datasets.types import DatasetError

_ARCHIVE_ERRORS = (
    EOFError,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,  # a compression that zipfile does not know
)
# No data set is so deep; `mkdir` goes up by recursion, to a depth that the archive would choose.
_MOST_PARTS = 100
_SHOWN = 200  # characters of a member's name


class _Member(NamedTuple):
    name: str  # as the archive has it
    is_directory: bool
    fault: str | None  # what keeps it from being unpacked
    read: Callable[[], IO[bytes]]


def unpack(path: Path, target: Path) -> None:
    """Unpacks a tar or zip archive to the new directory `target`, all of it or nothing.

    Raises:
      DatasetError: if it is damaged, or a member is neither file nor directory, would come to lie
        outside, or is in the place of another.
    """
    staging = target.with_name(unfinished.name_for(target.name))
    for left in (staging, *unfinished.abandoned(target.parent, target.name)):
        shutil.rmtree(left, ignore_errors=True)  # of a process that was killed at this
    staging.mkdir()
    try:
        for member in _members(path):
            _write(member, staging, path)
        staging.rename(target)
    except _ARCHIVE_ERRORS as error:
        why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")
        raise DatasetError(
            f"'{path}' cannot be unpacked ({_printable(why)}); it is damaged, cut off, or no"
            " archive."
        ) from error
    except OSError as error:
        raise DatasetError(f"'{path}' cannot be unpacked to '{target}': {error}.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # made here, under a name of its own


def _members(path: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            for info in file.infolist():
                name, read = info.filename, partial(file.open, info)
                yield _Member(name, name.endswith("/"), _zip_fault(info), read)
    else:
        with tarfile.open(path) as file:
            for info in file:
                fault = None if info.isdir() or info.isreg() else _tar_kind(info)
                fault = "is a sparse file" if info.issparse() else fault
                yield _Member(info.name, info.isdir(), fault, partial(file.extractfile, info))


def _write(member: _Member, staging: Path, archive: Path) -> None:
    """Writes one member, which is the first and only one in its place."""
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    fault = member.fault
    if member.name.startswith("/") or ".." in parts or "\\" in member.name or _has_drive(parts):
        fault = "would come to lie outside"
    elif not _is_a_file_name(member.name):
        fault = "has a name that no file can have"
    elif len(parts) > _MOST_PARTS:
        fault = f"lies more than {_MOST_PARTS} directories deep"
    if fault is None:
        place = staging.joinpath(*parts)
        try:
            directory = place if member.is_directory else place.parent
            directory.mkdir(parents=True, exist_ok=True)
            if not member.is_directory:
                with member.read() as source, open(place, "xb") as file:
                    shutil.copyfileobj(source, file)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            fault = "is in the place of another"
    if fault is not None:
        name = _printable(member.name)
        name = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
        raise DatasetError(f"'{archive}' is not safe to unpack: its member '{name}' {fault}.")


def _is_a_file_name(name: str) -> bool:
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:  # half of a character
        return False


def _printable(text: str) -> str:
    """The text with line breaks and other characters that are not printed as Python writes them."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _has_drive(parts: list[str]) -> bool:
    return bool(parts) and ":" in parts[0]


def _zip_fault(info: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive's maker knows no kinds
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link" if kind == stat.S_IFLNK else "is no regular file"
    return "is encrypted" if info.flag_bits & 1 else None


def _tar_kind(info: tarfile.TarInfo) -> str:
    return "is a link" if info.issym() or info.islnk() else "is no regular file"
