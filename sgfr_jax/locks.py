"""Locks on files, which the system lets go of when a process ends, however it does."""

import errno
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_BUSY = (errno.EAGAIN, errno.EACCES)


def take(file: IO) -> bool:
    """Takes the lock of an open file until it is closed; returns False if another has it.

    Where the system or the file system has no locks nothing is taken, and True returned.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _BUSY
    return True
