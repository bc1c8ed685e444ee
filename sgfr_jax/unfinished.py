"""Names for what is being written, by which what killed processes left is told from the rest.

Whatever lasts is written under such a name, beside its place, and renamed. The name says which
process writes: what a process that is gone has left may be removed, and nothing else.
"""

import functools
import hashlib
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

# What processes elsewhere left, of which nothing else is known, is theirs no longer after a day.
ABANDONED_SECONDS = 24 * 3600
_SUFFIX = ".unfinished"


def name_for(name: str) -> str:
    """The name, hidden, of what this process is about to rename to `name`; never too long."""
    return f".{_digest(name)}.{_where()}.{os.getpid()}{_SUFFIX}"


def is_abandoned(name: str, age: float, of: str | None = None) -> bool:
    """Whether a file or directory is what a process has left that is gone.

    Args:
      name: of the file or directory.
      age: seconds since it was last written to.
      of: what it was to be renamed to; None: whatever it was.
    """
    found = re.fullmatch(
        rf"\.(?P<of>[0-9a-f]{{16}})\.(?P<where>.+)\.(?P<pid>\d{{1,10}}){re.escape(_SUFFIX)}", name
    )
    if found is None or (of is not None and found["of"] != _digest(of)):
        return False
    gone = found["where"] == _where() and not psutil.pid_exists(int(found["pid"]))
    return gone or age > ABANDONED_SECONDS


def own(directory: Path) -> Iterator[Path]:
    """What this process is writing in a directory."""
    yield from directory.glob(f".*.{_where()}.{os.getpid()}{_SUFFIX}")


def abandoned(directory: Path, of: str | None = None) -> Iterator[Path]:
    """What lies abandoned in a directory; `of` as of `is_abandoned`."""
    for path in directory.glob(f".*{_SUFFIX}"):
        try:
            age = time.time() - path.stat().st_mtime
        except FileNotFoundError:  # another process was faster
            continue
        if is_abandoned(path.name, age, of):
            yield path


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]


@functools.cache
def _where() -> str:
    """Names the space in which a process number is unique: a host, or a container on it."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # not Linux
        space = 0
    return f"{re.sub('[^A-Za-z0-9-]', '_', socket.gethostname())[:64]}-{space}"
