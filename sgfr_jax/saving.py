"""A fitted state on disk: one directory, arrays by Orbax and whatever describes them as JSON.

Any pytree of arrays may be a state: a `types.Bank` of your own, or the model of a run. The
directory appears whole or not at all. `model.json` has checksums of itself and of every file of
the arrays: what is loaded is what was saved, and no reader sees a file that is damaged.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sgfr_jax import checked_json, unfinished
from sgfr_jax.checked_json import Damaged

# Raised with every change that another version would misread.
FORMAT = 3
_NAME = "sgfr_jax model"
_JSON, _ARRAYS = "model.json", "arrays"


class SavingError(ValueError):
    """A directory that holds no usable model; the message says why and what would be right."""


class _Whole(NamedTuple):
    """What model.json holds."""

    format: str
    format_version: int
    files: dict[str, str]  # SHA-256 of each file below the directory of the arrays, by its path
    arrays_sha256: str
    empty: dict[str, tuple[Any, ...]]  # shape and type of arrays without elements, by their names
    description: dict[str, Any]


class Saved(NamedTuple):
    """What a directory holds."""

    arrays: dict[str, np.ndarray]  # by their paths in the tree, as `jax.tree_util.keystr` has them
    description: dict[str, Any]


def save(path: str | os.PathLike, tree: Any, description: Mapping[str, Any]) -> None:
    """Writes a directory with a tree and its description; one that a model lies in is replaced.

    It is written beside its place and renamed: nobody sees half a model. Where one is replaced
    there is a moment between two renames without any; killed in it, the old one lies beside under a
    hidden name until the next `save` or `check_place`, which put it back. What killed processes
    left of a new one these remove. Files in the directory that are none of the old model's move to
    the new one; what has no place there, and all of a model of which no file is known, stays beside
    as `.old.NAME.*`.

    Args:
      path: of the directory; those above it are made.
      tree: a pytree of arrays.
      description: what JSON takes.

    Raises:
      SavingError: if there is something else at `path`, no directory can be there, or arrays cannot
        be written.
      OSError: if it cannot be written.
    """
    check_place(path)
    path = _place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.asarray(leaf) for name, leaf in _named(jax.device_get(tree))}
    # What has no elements has no place in Orbax; its shape and type say all.
    empty = {n: [a.shape, str(a.dtype)] for n, a in arrays.items() if not a.size}
    whole = _Whole(_NAME, FORMAT, {}, _digest(arrays), empty, dict(description))
    checked_json.dumps(whole._asdict())  # what JSON does not take is no matter of the disk
    temporary, old = (path.with_name(unfinished.name_for(n)) for n in _beside(path))
    try:
        _save_arrays(temporary / _ARRAYS, {n: a for n, a in arrays.items() if n not in empty})
        whole = whole._replace(files=_file_digests(temporary / _ARRAYS))
        text = checked_json.dumps(whole._asdict(), indent=1)
        (temporary / _JSON).write_text(text, encoding="utf-8")
        if path.exists():
            os.replace(path, old)  # a directory that is not empty cannot be replaced in one step
        os.replace(temporary, path)
        if old.exists():
            _leave_to(path, old)
    except BaseException:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # made here, under a name of its own


def _leave_to(path: Path, old: Path) -> None:
    """Removes a model that was replaced, by the files that it names; others move to its successor.

    Args:
      path: of the successor.
      old: where the replaced one lies now.
    """
    try:
        own = {f"{_ARRAYS}/{name}": digest for name, digest in _read_json(old).files.items()}
    except SavingError:  # damaged or of another version: its files are not known
        own = None
    for file in sorted(old.rglob("*")) if own is not None else ():
        name, place = file.relative_to(old).as_posix(), path / file.relative_to(old)
        if file.is_dir() and not file.is_symlink():
            continue
        if name == _JSON or (name in own and own[name] == _sha256(file)):
            file.unlink()
        elif not os.path.lexists(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, place)
    for directory, _, _ in os.walk(old, topdown=False):
        with contextlib.suppress(OSError):  # not empty
            os.rmdir(directory)
    if old.exists():
        os.replace(old, path.with_name(f".old.{path.name}.{uuid.uuid4().hex[:8]}"))


def check_place(path: str | os.PathLike) -> None:
    """Raises SavingError where `save` would: at all but a model, an empty directory and nothing.

    Worth asking before the work that is to be saved. A damaged model, or one of another version, is
    a model.
    """
    path = _place(path)
    if path.is_symlink():  # to replace what it leads to would move files of another directory
        raise SavingError(f"'{path}' is a link: name the directory that it leads to, or another")
    _settle(path)
    if not path.exists() or _is_model(path):
        return
    if not path.is_dir() or any(path.iterdir()):
        raise SavingError(f"'{path}' is in the way: there is something that is no model")


def _place(path: str | os.PathLike) -> Path:
    """The absolute path, with the home directory in place of `~`.

    Raises:
      SavingError: if no file system has such a path, as below a file.
    """
    found = Path(os.path.expanduser(path)).absolute()
    try:
        os.lstat(found)
    except (NotADirectoryError, ValueError) as error:  # the latter of a NUL byte
        why = error.strerror if isinstance(error, OSError) else error
        raise SavingError(f"{str(found)!r} cannot be a directory ({why}): name another") from error
    except OSError:  # as where nothing is yet; what else is wrong its use will say
        pass
    return found


def _is_model(path: Path) -> bool:
    """Whether a directory has a description that names this format, be the rest as it may."""
    try:
        return _NAME.encode() in (path / _JSON).read_bytes()
    except OSError:
        return False


def load(path: str | os.PathLike) -> Saved:
    """Reads what `save` wrote, checked to be the same.

    Raises:
      SavingError: if there is none, or it is damaged, foreign, or of another version.
    """
    path = _place(path)
    whole = _verified(path)
    try:
        with _silent():
            import orbax.checkpoint as ocp

            arguments = {"restore_type": np.ndarray}
            with _checkpointer() as checkpointer:
                names = checkpointer.metadata(path / _ARRAYS).item_metadata.tree
                how = {name: ocp.RestoreArgs(**arguments) for name in names}
                arrays = dict(checkpointer.restore(path / _ARRAYS, restore_args=how))
        for name, (shape, dtype) in whole.empty.items():
            if 0 not in shape:
                raise ValueError(f"{name} is said to be empty, and to have a shape of {shape}")
            arrays[name] = np.empty(shape, dtype)
    except Exception as error:  # Orbax and TensorStore raise all kinds on damaged files
        raise _damaged(path, f"its arrays cannot be read ({_first_line(error)})") from error
    if _digest(arrays) != whole.arrays_sha256:
        raise _damaged(path, "its arrays are not those that were saved")
    return Saved(arrays, whole.description)


def describe(path: str | os.PathLike) -> dict[str, Any]:
    """The description alone, without making arrays; errors as of `load`."""
    return _verified(_place(path)).description


def restore(like: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The tree that was saved.

    Args:
      like: a tree of the same structure; its leaves do not matter.
      arrays: of `load`.

    Raises:
      SavingError: if another structure was saved.
    """
    wanted = {name for name, _ in _named(like)}
    if wanted != set(arrays):
        strange = sorted(wanted ^ set(arrays))
        raise SavingError(f"another kind of model was saved: {', '.join(strange[:3])} differ")
    return jax.tree_util.tree_map_with_path(
        lambda path, _: arrays[jax.tree_util.keystr(path)], like
    )


def _verified(path: Path) -> _Whole:
    """What model.json holds, once it and every file of the arrays are what was written."""
    whole = _read_json(path)
    try:
        found = _file_digests(path / _ARRAYS)
    except OSError as error:
        raise _damaged(path, f"a file of its arrays cannot be read ({error})") from error
    for name, digest in whole.files.items():
        if name not in found:
            raise _damaged(path, f"its file {_ARRAYS}/{name} is missing")
        if found[name] != digest:
            raise _damaged(path, f"its file {_ARRAYS}/{name} is not what was written")
    return whole


def _read_json(path: Path) -> _Whole:
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise SavingError(f"'{path}' {what}: a directory that a model was saved in is needed")
    try:
        whole = checked_json.parse((path / _JSON).read_bytes())
    except FileNotFoundError as error:
        raise SavingError(f"'{path}' holds no model: there is no {_JSON} in it") from error
    except (OSError, Damaged) as error:
        raise _damaged(path, f"{_JSON} cannot be read ({_first_line(error)})") from error
    if whole.get("format") != _NAME:
        raise SavingError(f"'{path}' holds no model: its {_JSON} is of something else")
    version = whole.get("format_version")
    if version != FORMAT and isinstance(version, int):
        raise SavingError(
            f"'{path}' was saved by a newer version (format {version}; {FORMAT} is the newest known"
            " here): pip install --upgrade sgfr_jax"
            if version > FORMAT
            else f"'{path}' was saved by an earlier version (format {version}; this one reads"
            f" {FORMAT}): fit it again"
        )
    try:
        content = checked_json.verified(whole)
        checked_json.check(_Whole, content)
    except Damaged as error:
        raise _damaged(path, f"{_JSON}: {error}") from error
    return _Whole(**content)


def _beside(path: Path) -> tuple[str, str]:
    """What the hidden names of a new model, and of the one that it replaces, are made of."""
    return f"new model {path.name}", f"old model {path.name}"


def _settle(path: Path) -> None:
    """Puts back the model that a killed process was about to replace, and removes what it left."""
    new, old = _beside(path)
    for left in _left(path, old):
        if path.exists():
            _leave_to(path, left)
        else:
            os.replace(left, path)
    for left in _left(path, new):
        shutil.rmtree(left, ignore_errors=True)


def _left(path: Path, of: str) -> list[Path]:
    """What lies beside, of killed processes; also of an earlier one that had this one's number."""
    own = path.with_name(unfinished.name_for(of))
    return [*unfinished.abandoned(path.parent, of), *([own] if own.exists() else [])]


def _save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    try:
        with _silent(), _checkpointer() as checkpointer:
            checkpointer.save(path, arrays)
    except OSError:
        raise
    except Exception as error:  # TensorStore raises ValueError where a disk is full
        # The system's own words come last, after all that they kept from being done.
        cause = str(error).splitlines()[0].rpartition(": ")[2] if str(error) else repr(error)
        raise SavingError(
            f"no model can be written in '{path.parent.parent}' ({cause}): make room there, or name"
            " another directory"
        ) from error


def _file_digests(directory: Path) -> dict[str, str]:
    """The SHA-256 of every file below a directory, by its path there."""
    digests = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            digests[path.relative_to(directory).as_posix()] = _sha256(path)
    return digests


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checkpointer():
    """What writes and reads arrays; of several processes (`jax.distributed`) this one alone."""
    import orbax.checkpoint as ocp  # a quarter of a second

    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"{_NAME} {me}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _named(tree: Any) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _damaged(path: Path, why: str) -> SavingError:
    return SavingError(f"the model '{path}' is damaged: {why}; save it again")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without Orbax's log of every step, or of an error that is raised anyway."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
