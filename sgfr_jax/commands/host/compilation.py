"""Compiled programs on disk, so that a later run starts at once."""

import contextlib
import os
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path

import jax

from sgfr_jax.commands.files import cache

# Room for thousands of programs, which take tens of kilobytes each on a CPU.
LIMIT_BYTES = 1 << 28
_ZSTANDARD = b"\x28\xb5\x2f\xfd"  # its streams begin so
# What `keep_in` sets.
FLAGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


def keep_in(directory: Path, limit: int = LIMIT_BYTES) -> None:
    """Makes JAX look for compiled programs in a directory, and put there what it compiles.

    Must be called before anything is compiled. Trouble with the directory is a warning of JAX's,
    never an error. Damaged programs, which JAX would warn of at every start and never replace, are
    removed. What the environment says (`JAX_COMPILATION_CACHE_DIR` and JAX's other variables of
    `FLAGS`) goes before: programs are then kept there, and none is removed.

    JAX's own limit (`jax_compilation_cache_max_size`) is not used: it needs another package, takes
    a lock for every look-up, and cannot go on from a directory that was filled without it.

    Args:
      directory: made when there is something to put there.
      limit: bytes of programs to begin with; those that have not been used for longest are removed.
        What this run compiles comes on top, until the next one.
    """
    if FLAGS[0].upper() not in os.environ:
        programs = ".+-[0-9a-f]{64}-cache"
        with contextlib.suppress(OSError):
            cache.keep_within(limit, cache.named(directory, programs))
            _remove_damaged(cache.named(directory, programs))
    # A run compiles a few dozen small programs; by default only slow ones would be kept.
    for flag, value in zip(FLAGS, (str(directory), 0.1, 0), strict=True):
        if flag.upper() not in os.environ:
            jax.config.update(flag, value)


def _remove_damaged(programs: Iterable[Path]) -> None:
    """Removes programs that were cut off, as a kill or a full disk may do, or changed."""
    for path in programs:
        if not _is_whole(path.read_bytes()):
            print(f"compiled program {path} is damaged: made again", file=sys.stderr)
            path.unlink(missing_ok=True)


def _is_whole(program: bytes) -> bool:
    """Whether what JAX has compressed comes back; of zlib's streams the checksum tells."""
    if program.startswith(_ZSTANDARD):
        try:
            import zstandard  # what JAX takes where it is installed
        except ImportError:
            return True  # another installation's, which is not read here
        unpack, errors = zstandard.ZstdDecompressor().decompress, zstandard.ZstdError
    else:
        unpack, errors = zlib.decompress, zlib.error
    try:
        unpack(program)
    except errors:
        return False
    return True
