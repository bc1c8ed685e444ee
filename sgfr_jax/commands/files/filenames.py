"""Names of files for results that are named like images: none too long, no two alike.

Images lie anywhere and are called anything; what is made of them has their names with something
appended. Two names count as one if they differ in case or in how accents are encoded alone, as some
file systems do not tell them apart.
"""

import hashlib
import os
import unicodedata
from pathlib import PurePosixPath

# Bytes of a name, of at most 255: temporary names add a few. Of a whole path, of at most 4096.
_NAME, _PATH = 240, 2000


def shortened(name: str, suffix: str = "") -> str:
    """A name with a suffix appended; if that is too long, its beginning and a hash of all of it."""
    if len(os.fsencode(name + suffix)) <= _NAME:
        return name + suffix
    return _cut(name, f"~{_hash(name)}{suffix}")


class Names:
    """Gives names to the files of one directory, each once."""

    def __init__(self):
        """Begins with an empty directory."""
        self._given: dict[tuple[str, str], str] = {}
        self._files: set[str] = set()
        self._directories: set[str] = set()

    def of(self, name: str, suffix: str) -> str:
        """The path of the file for a result; the same for the same arguments.

        Args:
          name: a relative POSIX path without `..`, such as an image's.
          suffix: appended to it, as `a.png` and `a.jpg` are two images.

        Returns:
          `name` with `suffix`. Where that is too long, or some file or directory was given the
          name, its last part with a hash of `name`.
        """
        if (name, suffix) not in self._given:
            self._given[name, suffix] = self._new(PurePosixPath(name), suffix)
        return self._given[name, suffix]

    def _new(self, name: PurePosixPath, suffix: str) -> str:
        if name.is_absolute() or ".." in name.parts or not name.name:
            raise ValueError(f"'{name}' must be a path below a directory")
        parts = [*map(shortened, name.parts[:-1]), shortened(name.name, suffix)]
        found = "/".join(parts)
        if len(os.fsencode(found)) > _PATH or self._is_taken(found):
            found = _cut(name.name, f"~{_hash(str(name))}{suffix}")
        self._files.add(_folded(found))
        self._directories.update(_folded(str(p)) for p in PurePosixPath(found).parents)
        return found

    def _is_taken(self, path: str) -> bool:
        above = (_folded(str(parent)) for parent in PurePosixPath(path).parents)
        return (
            _folded(path) in self._files
            or _folded(path) in self._directories
            or not self._files.isdisjoint(above)
        )


def _cut(name: str, end: str) -> str:
    """The beginning of a name, as much as there is room for, and its end."""
    room = _NAME - len(os.fsencode(end))
    return os.fsencode(name)[:room].decode(errors="ignore") + end


def _hash(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()
