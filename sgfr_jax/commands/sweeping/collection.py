"""The records of sweeps: files named by what they hold, on any file system that `epath` reaches.

A record appears under its name whole, by renaming, and carries a checksum: a worker may be killed
at any moment, and what a full disk or a bad one did to a file is found when it is read.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from etils import epath

from sgfr_jax import checked_json, unfinished
from sgfr_jax.checked_json import Damaged
from sgfr_jax.commands.files.records import Record
from sgfr_jax.commands.flags.checking import ConfigError

_SUFFIX = ".json"
# Files read at a time: those of a bucket are slow one by one.
_READERS = 16


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
    text = checked_json.dumps(dataclasses.asdict(record))
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
    record = checked_json.loads(path.read_bytes(), Record)
    if path.name != f"{record.digest}{_SUFFIX}":
        raise Damaged(f"it is the record {record.digest}, renamed")
    return record


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

    What killed workers left is removed.
    """
    listed = _listed(workdir)
    for path in listed:
        if unfinished.is_abandoned(path.name, time.time() - _made(path)):
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


def _path(workdir: epath.Path, name: str) -> epath.Path:
    return directory(workdir) / f"{name}{_SUFFIX}"


def _temporary(workdir: epath.Path, name: str) -> epath.Path:
    return directory(workdir) / unfinished.name_for(name)
