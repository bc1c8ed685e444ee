"""One process at a time: lock files beside, or in, what is written."""

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from sgfr_jax import locks
from sgfr_jax.commands.files.filenames import shortened
from sgfr_jax.commands.flags.checking import ConfigError

# What a lock file holds: nothing, or what a process that was killed has left.
_HOLDER = re.compile(r"(process [0-9]+ on \S*\n)?")
# A link in the place of a lock file would lead to a file of someone else's.
_LOCKING = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
# The lock files that this process holds, as the answer to a signal lets nothing unwind.
_held: dict[Path, tuple[int, TextIO]] = {}


@contextlib.contextmanager
def held(path: Path, described: str) -> Iterator[None]:
    """Holds the place of a file or directory that is replaced as a whole; its parent is made.

    Raises:
      ConfigError: as of `locked`, or if no lock file can be made beside it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(beside(path), described))
        except OSError as error:
            raise ConfigError(
                f"{described} cannot be written ({error.strerror}): name another"
            ) from error
        yield


@contextlib.contextmanager
def locked(path: Path, described: str) -> Iterator[None]:
    """Holds a lock file; the system lets go of it when this process ends, however it does.

    Where the file system has no locks nothing is held.

    Args:
      path: of the lock file; removed at the end.
      described: what is locked, for the message, such as `--output_dir=predictions`.

    Raises:
      ConfigError: if another process holds it, which is named, or a file of someone else's lies
        in its place.
      OSError: if the file cannot be made.
    """
    while True:
        file = os.fdopen(os.open(path, _LOCKING, 0o666), "r+", errors="replace")
        if not locks.take(file):
            with file:
                holder = file.read().strip() or "another process"
            raise ConfigError(
                f"{described} is in use by {holder}: wait for its end, or name another"
            )
        if _is_at(file.fileno(), path):
            if not _HOLDER.fullmatch(file.read()):
                file.close()
                raise ConfigError(f"{described}: '{path}' is in the way: move it")
            file.seek(0)
            break
        file.close()  # its holder has just removed it: what was locked is not what lies there
    try:
        _held[path] = os.getpid(), file
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
    finally:
        with file, contextlib.suppress(OSError):
            path.unlink()
        _held.pop(path, None)


def let_go() -> None:
    """Removes the lock files that this process holds; for its last moment."""
    for path, (process, file) in list(_held.items()):
        with contextlib.suppress(OSError, ValueError):  # the file may be closed by now
            # A child that was forked has the parent's.
            if process == os.getpid() and _is_at(file.fileno(), path):
                path.unlink()


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def beside(path: Path) -> Path:
    """The lock file for a file or directory that is replaced as a whole; its parent is made."""
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{shortened(path.name)}.lock")
