"""Embeddings on disk, so that nothing is embedded twice.

An entry is a file named by a hash of everything that its content depends on: the bytes of the
images, the weights, the layers, the preprocessing. It appears under that name whole, by renaming,
so several processes may share a directory and a killed one leaves no half entry. It ends with a
checksum of all before it: a damaged one is removed and made again. The directory is kept under a
limit by removing the entries that have not been used for longest.
"""

import contextlib
import functools
import hashlib
import inspect
import io
import json
import math
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from sgfr_jax import unfinished

_SUFFIX = ".embeddings"
_HASH = "[0-9a-f]{64}"
_CHECKSUM_BYTES = 4
_PIECE_BYTES = 1 << 22


def default_directory() -> str:
    """`$XDG_CACHE_HOME/sgfr_jax`, or `~/.cache/sgfr_jax`; empty where there is no home."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return "" if caches.startswith("~") else os.path.join(caches, "sgfr_jax")


def key(**parts: Any) -> str:
    """The name of an entry: a hash of everything that it depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@functools.cache
def source_digest(*parts: ModuleType | Callable) -> str:
    """A hash of the source of packages, modules and functions: another for any edit of theirs.

    For the key, so that what other code made is not taken for what this code would make. Packages
    count with all modules below them.
    """
    digest = hashlib.sha256()
    for part in parts:
        if hasattr(part, "__path__"):
            for root in map(Path, part.__path__):
                for path in sorted(root.rglob("*.py")):
                    digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
        else:
            source = inspect.getsource(part).encode()
            digest.update(f"{part.__name__} {len(source)}\0".encode() + source)
    return digest.hexdigest()


def read(directory: Path, name: str, rows: int) -> Iterator[np.ndarray] | None:
    """An entry, `rows` rows at a time, float32; None where there is none.

    The whole entry has been verified when this returns; a damaged one is removed. It stays
    readable while it is being read, even if another process evicts it.
    """
    path = directory / f"{name}{_SUFFIX}"
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "rb"))
            shape = _verified_shape(file)
            os.utime(path)  # used now: last to be evicted
        except OSError:
            return None  # absent, or out of reach: writing will say why
        except ValueError as error:
            print(f"cache entry {path} is damaged ({error}): made again", file=sys.stderr)
            path.unlink(missing_ok=True)
            return None
        return _blocks(stack.pop_all(), file, shape, rows)


def _verified_shape(file: BinaryIO) -> tuple[int, ...]:
    """Leaves the file where the values begin; raises ValueError if anything is wrong with it."""
    checksum, remaining = 0, os.fstat(file.fileno()).st_size - _CHECKSUM_BYTES
    # Pieces, not a memory map: the pages of a map would count as this process's memory.
    while remaining > 0:
        piece = file.read(min(_PIECE_BYTES, remaining))
        if not piece:
            raise ValueError("it has shrunk")
        checksum = zlib.crc32(piece, checksum)
        remaining -= len(piece)
    if remaining or checksum != int.from_bytes(file.read(_CHECKSUM_BYTES), "little"):
        raise ValueError("its checksum is wrong")
    # Only now: a damaged header may say anything.
    file.seek(0)
    np.lib.format.read_magic(file)
    shape, _, _ = np.lib.format.read_array_header_2_0(file)
    return shape


def _blocks(stack, file: BinaryIO, shape: tuple[int, ...], rows: int) -> Iterator[np.ndarray]:
    with stack:
        for start in range(0, shape[0], rows):
            block = (min(rows, shape[0] - start), *shape[1:])
            yield np.fromfile(file, "<f4", math.prod(block)).reshape(block)


def holds(directory: Path, name: str) -> bool:
    """Whether there is an entry of that name, damaged or not."""
    return (directory / f"{name}{_SUFFIX}").exists()


def write_through(
    directory: Path, name: str, shape: tuple[int, ...], blocks: Iterator[np.ndarray], limit: int
) -> Iterator[np.ndarray]:
    """Passes blocks on while it stores them; the entry appears when all have gone by.

    Trouble with the disk ends the storing, not the passing on.

    Args:
      directory: of the cache; made if need be.
      name: from `key`.
      shape: of the whole entry; blocks are stacked along its first axis.
      blocks: float32, `[n, *shape[1:]]` each.
      limit: how many bytes the directory may hold; a larger entry is not stored.
    """
    size = 4 * math.prod(shape)
    if size > limit:
        yield from blocks
        return
    temporary = directory / unfinished.name_for(f"{name}{_SUFFIX}")
    file, checksum, done = None, 0, 0
    try:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            file = open(temporary, "wb")  # noqa: SIM115 (closed below, whatever ends the iteration)
            header = io.BytesIO()
            described = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
            np.lib.format.write_array_header_2_0(header, described)
            file.write(header.getvalue())
            checksum = zlib.crc32(header.getvalue())
        except OSError as error:
            file = _give_up(file, temporary, error)
        for block in blocks:
            if file is not None:
                try:
                    stored = np.ascontiguousarray(block, "<f4")
                    file.write(stored)
                    checksum = zlib.crc32(stored, checksum)
                    done += len(stored)
                except OSError as error:
                    file = _give_up(file, temporary, error)
            yield block
        if file is not None and done == shape[0]:
            try:
                file.write(checksum.to_bytes(_CHECKSUM_BYTES, "little"))
                file.close()
                _evict(directory, limit - size)
                os.replace(temporary, directory / f"{name}{_SUFFIX}")
            except OSError as error:
                file = _give_up(file, temporary, error)
    finally:
        _discard(file, temporary)


def remove_unfinished(directory: Path) -> None:
    """Removes what this process was about to store, when it ends before its time."""
    for path in unfinished.own(directory):
        path.unlink(missing_ok=True)


def remove_abandoned(directory: Path) -> None:
    """Removes what processes that were killed were about to store; nothing of others."""
    for path in unfinished.abandoned(directory):
        with contextlib.suppress(OSError):  # a directory that cannot be written is no trouble yet
            path.unlink(missing_ok=True)


def _give_up(file, temporary: Path, error: OSError) -> None:
    """Says so and cleans up; returns the None that stands for no file."""
    print(f"--cache_dir={temporary.parent}: {error}: going on without storing", file=sys.stderr)
    _discard(file, temporary)


def _discard(file, temporary: Path) -> None:
    if file is not None:
        with contextlib.suppress(OSError):  # closing flushes, perhaps to a full disk
            file.close()
        temporary.unlink(missing_ok=True)


def keep_within(limit: int, paths: Iterable[Path]) -> None:
    """Removes the longest unused of some files until no more than `limit` bytes are left."""
    files = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            status = path.stat()
            files.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            break
        path.unlink(missing_ok=True)
        total -= size


def _evict(directory: Path, limit: int) -> None:
    """Removes the longest unused entries, and what killed processes left; nothing of others."""
    remove_abandoned(directory)
    keep_within(limit, named(directory, _HASH + re.escape(_SUFFIX)))


def named(directory: Path, name: str) -> list[Path]:
    """The files of a directory whose whole name is of a kind, a regular expression.

    A name with a hash in it, such as of `key`, is one that nobody else gives.
    """
    return [path for path in directory.glob("*") if re.fullmatch(name, path.name)]
