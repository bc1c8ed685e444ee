"""A directory that a command writes into: its own for as long as it does, with a record of what.

Nothing is overwritten or removed that the record (`sgfr_jax.datasets.outputs`) does not name, or
that has been changed since. A file is named before it is made, so that one that is cut off is known
to be ours.
"""

import contextlib
import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from sgfr_jax.commands.files.filenames import Names
from sgfr_jax.commands.files.locking import locked
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.datasets import outputs
from sgfr_jax.datasets.outputs import Entry

LOCK = ".sgfr_jax.lock"
_PIECE_BYTES = 1 << 20


@contextlib.contextmanager
def opened(directory: Path, flag: str, by: str) -> Iterator["Output"]:
    """Makes an output directory and holds it until the end, when what was written is recorded.

    Args:
      directory: made if need be.
      flag: that names it, for messages.
      by: the command that writes.

    Raises:
      ConfigError: if it cannot be written, is in use, or has another's file in the record's place.
    """
    described = f"{flag}={directory}"
    with contextlib.ExitStack() as stack:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(directory / LOCK, described))
            output = Output(directory, described, by)
        except OSError as error:
            raise ConfigError(
                f"{described} cannot be written ({error.strerror}): name another directory"
            ) from error
        stack.callback(output.close)
        yield output


def check_file(path: Path, described: str, is_own: Callable[[Path], bool]) -> None:
    """Checks that a file that the user names is not there, or was written by the same command.

    Raises:
      ConfigError: if it is someone else's.
    """
    if os.path.lexists(path) and not is_own(path):
        raise ConfigError(
            f"{described} is in the way, for nothing says that this command wrote it as it is: move"
            " it, or name another file"
        )


def refuse_inside(places: Iterable[Path], paths: Iterable[Path], described: str, flag: str) -> None:
    """Checks that no input lies where output goes, be it by a link.

    Args:
      places: directories that results go to.
      paths: of the input.
      described: what named the input, for the message.
      flag: names the output directory.

    Raises:
      ConfigError: names the first that does.
    """
    real = {Path(os.path.realpath(place)): place for place in places}
    parents: dict[Path, Path] = {}
    for path in paths:
        if path.parent not in parents:
            parents[path.parent] = Path(os.path.realpath(path.parent))
        lies = Path(os.path.realpath(path)) if path.is_symlink() else parents[path.parent]
        for inside, place in real.items():
            if lies.is_relative_to(inside):
                raise ConfigError(
                    f"{described}: '{path}' lies in '{place}', where results go: name another"
                    f" {flag}"
                )


class Output:
    """The files of an open output directory; see `opened`."""

    def __init__(self, directory: Path, described: str, by: str):
        """Reads the record and begins it anew without what is gone."""
        self.directory, self._described, self._by = directory, described, by
        path = directory / outputs.RECORD
        entries = outputs.read(directory)
        self._entries = entries or {}
        if entries is None and os.path.lexists(path):
            raise self._in_the_way(outputs.RECORD)
        self._names: dict[str, Names] = {}
        self._verified: set[str] = set()
        self._open: dict[str, Entry | None] = {}  # and what they were before
        self._file = None
        self._mutex = threading.RLock()  # an interrupt may come while this thread holds it

    def name(self, place: str, name: str, suffix: str = "") -> str:
        """The path of a file below the directory, as of `filenames.Names`.

        Args:
          place: the directory below this one that it lies in; may be `.`.
          name: as of `Names.of`.
          suffix: appended to it.
        """
        with self._mutex:
            below = self._names.setdefault(place, Names()).of(name, suffix)
        return (PurePosixPath(place) / below).as_posix()

    def check(self, names: Iterable[str]) -> None:
        """Checks that files may be written, before any work is done.

        Args:
          names: their paths below the directory.

        Raises:
          ConfigError: if something is in the way that this command did not write.
        """
        checked = set()
        for name in names:
            parent = PurePosixPath(name).parent
            if parent not in checked:
                self._check_directory(parent)
                checked.add(parent)
            if os.path.lexists(self.directory / name) and not self._is_own(name):
                raise self._in_the_way(name)

    def claim(self, name: str) -> Path:
        """The path of a file that is about to be written; the directories above it are made.

        Raises:
          ConfigError: as of `check`.
        """
        path = self.directory / name
        with self._mutex:
            if name not in self._open:
                self.check([name])
                path.parent.mkdir(parents=True, exist_ok=True)
                before = self._entries.get(name)
                self._note(name, Entry(self._by))
                self._open[name] = before
        return path

    def seal(self, *names: str) -> None:
        """Records what was written of claimed files; of one that was not, what was there before."""
        with self._mutex:
            for name in names:
                before = self._open.pop(name)
                try:
                    size, sha256 = _digest(self.directory / name)
                except FileNotFoundError:
                    self._note(name, before)
                else:
                    self._note(name, Entry(self._by, size, sha256))

    def earlier(self, *places: str) -> list[str]:
        """The files of this command that an earlier call of it has left.

        Args:
          *places: directories below this one, or files; all if there are none.
        """
        return [
            name
            for name, entry in self._entries.items()
            if entry.by == self._by and name not in self._open
            and (not places or any(PurePosixPath(name).is_relative_to(p) for p in places))
            and os.path.lexists(self.directory / name)
        ]  # fmt: skip

    def announce(self, *places: str) -> None:
        """Says how many files there are of an earlier call, in those places as of `earlier`."""
        if earlier := self.earlier(*places):
            print(
                f"note: {self._described} has {len(earlier)} files of an earlier call, which this"
                " one replaces or removes: another directory would keep them",
                file=sys.stderr,
            )

    def remove(self, names: Iterable[str]) -> None:
        """Removes files that an earlier call has left, and directories that then are empty.

        What has been changed since is left and counts as someone else's from now on.
        """
        with self._mutex:
            for name in names:
                path = self.directory / name
                if self._is_below(path.parent) and self._is_own(name):
                    path.unlink()
                    self._remove_empty(path.parent)
                self._note(name, None)

    def close(self) -> None:
        """Records what was claimed and not sealed."""
        with self._mutex:
            self.seal(*self._open)
            if self._file is not None:
                self._file.close()
                self._file = None

    def _check_directory(self, below: PurePosixPath) -> None:
        for part in (*reversed(below.parents), below):
            place = self.directory / part
            if os.path.lexists(place) and not place.is_dir():
                raise self._in_the_way(part.as_posix())
        if not self._is_below(self.directory / below):
            raise ConfigError(
                f"{self._described}: a link in '{self.directory / below}' leads out of it; name"
                " another directory"
            )

    def _is_own(self, name: str) -> bool:
        """Whether what lies there is what the record says that this command wrote."""
        entry, path = self._entries.get(name), self.directory / name
        if entry is None or entry.by != self._by or path.is_symlink() or not path.is_file():
            return False
        if name in self._open or name in self._verified or entry.size is None:
            return True
        if path.stat().st_size == entry.size and _digest(path) == entry[1:]:
            self._verified.add(name)
        return name in self._verified

    def _is_below(self, directory: Path) -> bool:
        root = os.path.realpath(self.directory)
        return Path(os.path.realpath(directory)).is_relative_to(root)

    def _remove_empty(self, directory: Path) -> None:
        with contextlib.suppress(OSError):  # not empty
            while directory != self.directory:
                directory.rmdir()
                directory = directory.parent

    def _note(self, name: str, entry: Entry | None) -> None:
        """Adds a line to the record, which is on disk when this returns."""
        self._verified.discard(name)
        if self._file is None:
            self._begin()
        if entry is None:
            self._entries.pop(name, None)
            line = {"path": name, "removed": True}
        else:
            self._entries[name] = entry
            line = {"path": name} | entry._asdict()
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def _begin(self) -> None:
        """Writes the record anew, short and whole, and goes on at its end."""
        lines = [outputs.HEADER]
        lines += [{"path": name} | entry._asdict() for name, entry in self._entries.items()]
        path = self.directory / outputs.RECORD
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        os.replace(temporary, path)
        self._file = open(path, "a")  # noqa: SIM115 (closed in `close`)

    def _in_the_way(self, name: str) -> ConfigError:
        entry, path = self._entries.get(name), self.directory / name
        if entry is not None and entry.by == self._by and path.is_file() and not path.is_symlink():
            return ConfigError(
                f"{self._described}: '{name}' is in the way, for it was changed since this command"
                " wrote it: move it away, or delete it, and run again"
            )
        return ConfigError(
            f"{self._described}: '{name}' is in the way, for no record there says that this command"
            " wrote it as it is: move it, or name another directory"
        )


def _digest(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    size, digest = 0, hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE_BYTES):
            size += len(piece)
            digest.update(piece)
    return size, digest.hexdigest()
