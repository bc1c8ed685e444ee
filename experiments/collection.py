"""The records of sweeps: files named by what they hold, on any file system that `epath` reaches.

A record appears under its name whole, by renaming, and carries a checksum: a worker may be killed
at any moment, and what a full disk or a bad one did to a file is found when it is read.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from etils import epath

from experiments.choices import ConfigError
from experiments.records import Record

_SUFFIX = ".json"
# A temporary file this old belongs to a worker that was killed.
_ABANDONED_SECONDS = 24 * 3600
# Files read at a time: those of a bucket are slow one by one.
_READERS = 16


class Damaged(ValueError):
    """A record that cannot be read; the message says what is wrong with it."""


def directory(workdir: epath.Path) -> epath.Path:
    """Where the records of a work directory lie."""
    return workdir / "records"


def open_workdir(workdir: epath.Path) -> None:
    """Makes the directory of the records and tries to write there, before any work is done.

    Raises:
      ConfigError: if it cannot be written.
    """
    try:
        directory(workdir).mkdir(parents=True, exist_ok=True)
        trial = _temporary(workdir, "trial")
        trial.write_text("")
        trial.unlink()
    except OSError as error:
        raise ConfigError(
            f"--workdir={workdir} cannot be written ({error.strerror or error}): name another"
            " directory"
        ) from error


def keep(workdir: epath.Path, record: Record) -> None:
    """Writes a record under the name of its digest, whole or not at all.

    Raises:
      OSError: if it cannot be written.
    """
    content = dataclasses.asdict(record)
    text = json.dumps({"sha256": _checksum(content), "record": content}, allow_nan=False)
    temporary = _temporary(workdir, record.digest)
    try:
        temporary.write_text(text)
        temporary.replace(_path(workdir, record.digest))
    except OSError:
        with contextlib.suppress(OSError):  # the first error says more
            temporary.unlink(missing_ok=True)
        raise


def load(path: epath.Path) -> Record:
    """Reads one record.

    Raises:
      Damaged: if it is not what was written.
      FileNotFoundError: if there is none.
    """
    try:
        content = json.loads(path.read_text())
        record = content["record"]
        if content["sha256"] != _checksum(record):
            raise Damaged("its checksum is wrong")
        return Record(**record)
    except UnicodeDecodeError as error:
        raise Damaged("it is not text") from error
    except json.JSONDecodeError as error:
        raise Damaged("it is cut off or not JSON") from error
    except (KeyError, TypeError) as error:
        raise Damaged("it is no record") from error


def load_all(workdir: epath.Path) -> tuple[list[Record], dict[epath.Path, str]]:
    """All records of a work directory, the oldest first, and what damaged files have."""
    paths = [p for p in _listed(workdir) if _is_record(p.name)]
    records, damaged = [], {}
    with ThreadPoolExecutor(_READERS) as pool:
        made = dict(zip(paths, pool.map(_made, paths), strict=True))
        paths.sort(key=lambda path: (made[path], path.name))
        for path, found in zip(paths, pool.map(_load_or_error, paths), strict=True):
            if isinstance(found, Damaged):
                damaged[path] = str(found)
            else:
                records.append(found)
    return records, damaged


def load_some(
    workdir: epath.Path, names: Iterable[str]
) -> tuple[dict[str, Record], dict[epath.Path, str]]:
    """Those of the named records that are there, and what is wrong with damaged ones.

    What workers that were killed a day ago left of these is removed.
    """
    listed, names = _listed(workdir), set(names)
    for path in listed:
        if _unfinished(path.name) in names and _age(path) > _ABANDONED_SECONDS:
            path.unlink(missing_ok=True)
    present = {path.name for path in listed}
    paths = [p for p in (_path(workdir, name) for name in names) if p.name in present]
    with ThreadPoolExecutor(_READERS) as pool:
        found = dict(zip(paths, pool.map(_load_or_error, paths), strict=True))
    damaged = {path: str(r) for path, r in found.items() if isinstance(r, Damaged)}
    return {r.digest: r for r in found.values() if isinstance(r, Record)}, damaged


def _load_or_error(path: epath.Path) -> Record | Damaged:
    try:
        return load(path)
    except Damaged as error:
        return error


def _listed(workdir: epath.Path) -> list[epath.Path]:
    where = directory(workdir)
    return list(where.iterdir()) if where.is_dir() else []


def _is_record(name: str) -> bool:
    return name.endswith(_SUFFIX) and not name.startswith(".")


def _made(path: epath.Path) -> float:
    try:
        return path.stat().mtime
    except FileNotFoundError:  # another worker was faster
        return time.time()


def _age(path: epath.Path) -> float:
    return time.time() - _made(path)


def _path(workdir: epath.Path, name: str) -> epath.Path:
    return directory(workdir) / f"{name}{_SUFFIX}"


def _temporary(workdir: epath.Path, name: str) -> epath.Path:
    # Hosts that share a directory may have processes of one number.
    return directory(workdir) / f".{name}.{socket.gethostname()}.{os.getpid()}"


def _unfinished(name: str) -> str | None:
    """Which record a file of `_temporary` was to become; None for any other file."""
    hidden, *made_by = name.split(".")
    is_temporary = hidden == "" and len(made_by) >= 3 and made_by[-1].isdigit()
    return made_by[0] if is_temporary else None


def _checksum(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
