"""A fitted state on disk: one directory, arrays by Orbax and whatever describes them as JSON.

Any pytree of arrays may be a state: a `types.Bank` of your own, or the model of a run. The
directory appears whole or not at all, and what is loaded has the digest of what was saved.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

# Raised with every change that an older version would misread.
FORMAT = 1
_NAME = "sgfr_jax model"
_JSON, _ARRAYS = "model.json", "arrays"


class SavingError(ValueError):
    """A directory that holds no usable model; the message says why and what would be right."""


class Saved(NamedTuple):
    """What a directory holds."""

    arrays: dict[str, np.ndarray]  # by their paths in the tree, as `jax.tree_util.keystr` has them
    description: dict[str, Any]


def save(path: str | os.PathLike, tree: Any, description: Mapping[str, Any]) -> None:
    """Writes a directory with a tree and its description; one that a model lies in is replaced.

    It is written beside its place and renamed: nobody sees half a model. Where one is replaced
    there is a moment between two renames without any; killed in it, the old one lies beside, as
    `.old.NAME.*`. Files in the directory that are none of the old model's move to the new one; what
    has no place there, and all of a model that does not name its files, stays in `.old.NAME.*`.

    Args:
      path: of the directory; those above it are made.
      tree: a pytree of arrays.
      description: what JSON takes.

    Raises:
      SavingError: if there is something else at `path`.
      OSError: if it cannot be written.
    """
    check_place(path)
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.asarray(leaf) for name, leaf in _named(jax.device_get(tree))}
    # What has no elements has no place in Orbax; its shape and type say all.
    empty = {n: [a.shape, str(a.dtype)] for n, a in arrays.items() if not a.size}
    whole = {
        "format": _NAME,
        "format_version": FORMAT,
        "arrays_sha256": _digest(arrays),
        "empty": empty,
        "description": dict(description),
    }
    stamp = f"{path.name}.{uuid.uuid4().hex[:8]}"
    temporary, old = path.parent / f".new.{stamp}", path.parent / f".old.{stamp}"
    try:
        with _silent(), _checkpointer() as checkpointer:
            stored = {name: array for name, array in arrays.items() if name not in empty}
            checkpointer.save(temporary / _ARRAYS, stored)
        whole["files"] = _sizes(temporary)
        text = json.dumps(whole, indent=1, allow_nan=False) + "\n"
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


def _sizes(directory: Path) -> dict[str, int]:
    """The files below a directory, and the bytes that each has."""
    files = sorted(p for p in directory.rglob("*") if p.is_symlink() or not p.is_dir())
    return {path.relative_to(directory).as_posix(): path.lstat().st_size for path in files}


def _leave_to(path: Path, old: Path) -> None:
    """Removes a model that was replaced, by the files that it names; others move to its successor.

    Args:
      path: of the successor.
      old: where the replaced one lies now.
    """
    try:
        whole = _read_json(old)
    except SavingError:  # damaged: what it consists of is not known
        return
    own = whole.get("files")
    if not isinstance(own, dict):  # saved by an earlier version
        return
    for name, size in _sizes(old).items():
        file, place = old / name, path / name
        if name == _JSON or own.get(name) == size:
            file.unlink()
        elif not os.path.lexists(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, place)
    for directory, _, _ in os.walk(old, topdown=False):
        with contextlib.suppress(OSError):  # not empty
            os.rmdir(directory)


def check_place(path: str | os.PathLike) -> None:
    """Raises SavingError where `save` would: at anything but a model, an empty directory, nothing.

    Worth asking before the work that is to be saved. A damaged model, or one of another version, is
    a model.
    """
    path = Path(path)
    if not os.path.lexists(path) or _is_model(path):
        return
    if not path.is_dir() or any(path.iterdir()):
        raise SavingError(f"'{path}' is in the way: there is something that is no model")


def _is_model(path: Path) -> bool:
    """Whether a directory has a description that names this format, be the rest as it may."""
    try:
        return _NAME.encode() in (path / _JSON).read_bytes()
    except OSError:
        return False


def load(path: str | os.PathLike) -> Saved:
    """Reads what `save` wrote, checked to be the same.

    Raises:
      SavingError: if there is none, or it is damaged, foreign, or of a newer version.
    """
    path = Path(path).absolute()
    whole = _read_json(path)
    try:
        with _silent():
            import orbax.checkpoint as ocp

            arguments = {"restore_type": np.ndarray}
            with _checkpointer() as checkpointer:
                names = checkpointer.metadata(path / _ARRAYS).item_metadata.tree
                how = {name: ocp.RestoreArgs(**arguments) for name in names}
                arrays = dict(checkpointer.restore(path / _ARRAYS, restore_args=how))
        for name, (shape, dtype) in whole["empty"].items():
            arrays[name] = np.empty(shape, dtype)
    except Exception as error:  # Orbax and TensorStore raise all kinds on damaged files
        raise _damaged(path, f"its arrays cannot be read ({_first_line(error)})") from error
    if _digest(arrays) != whole["arrays_sha256"]:
        raise _damaged(path, "its arrays are not those that were saved")
    return Saved(arrays, whole["description"])


def describe(path: str | os.PathLike) -> dict[str, Any]:
    """The description alone, without reading arrays; errors as of `load`."""
    return _read_json(Path(path).absolute())["description"]


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


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise SavingError(f"'{path}' {what}: a directory that a model was saved in is needed")
    try:
        whole = json.loads((path / _JSON).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SavingError(f"'{path}' holds no model: there is no {_JSON} in it") from error
    except (OSError, ValueError) as error:
        raise _damaged(path, f"{_JSON} cannot be read ({_first_line(error)})") from error
    if not isinstance(whole, dict) or whole.get("format") != _NAME:
        raise SavingError(f"'{path}' holds no model: its {_JSON} is of something else")
    version = whole.get("format_version")
    if not isinstance(version, int) or version > FORMAT:
        raise SavingError(
            f"'{path}' was saved by a newer version (format {version}; {FORMAT} is the newest known"
            " here): pip install --upgrade sgfr_jax"
        )
    if not {"arrays_sha256", "empty", "description"} <= set(whole):
        raise _damaged(path, f"{_JSON} is incomplete")
    return whole


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
