"""JSON files that tell whether they are what was written: each has a checksum of its content."""

import hashlib
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

CHECKSUM = "sha256"

_T = TypeVar("_T")


class Damaged(ValueError):
    """A file that is not what was written; the message says what is wrong with it."""


def dumps(content: Mapping[str, Any], indent: int | None = None) -> str:
    """The text of a file that holds `content` and its checksum.

    Raises:
      ValueError: if a number is NaN or infinite, which JSON has not.
    """
    return json.dumps(with_checksum(content), indent=indent, allow_nan=False) + "\n"


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content and its checksum, for who writes JSON otherwise; raises as `dumps`."""
    return {CHECKSUM: _checksum(content), **content}


def parse(data: bytes) -> dict[str, Any]:
    """What a file holds, its checksum too, which `verified` checks.

    Raises:
      Damaged: if it is no JSON object.
    """
    try:
        whole = json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise Damaged("it is not text in UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise Damaged("it is cut off or not JSON") from error
    if not isinstance(whole, dict):
        raise Damaged("it is no JSON object")
    return whole


def verified(whole: Mapping[str, Any]) -> dict[str, Any]:
    """The content that `dumps` was given, of what `parse` has found.

    Raises:
      Damaged: if it is not what was written.
    """
    content = dict(whole)
    wanted = content.pop(CHECKSUM, None)
    if wanted is None:
        raise Damaged("it has no checksum: an earlier version wrote it")
    try:
        found = _checksum(content)
    except (ValueError, RecursionError) as error:
        raise Damaged("a number in it is not finite") from error
    if found != wanted:
        raise Damaged("its checksum is wrong")
    return content


def loads(data: bytes, kind: Callable[..., _T]) -> _T:
    """The named tuple or data class that was written by its fields.

    Raises:
      Damaged: if the file is not what was written, or of another class.
    """
    content = verified(parse(data))
    check(kind, content)
    return kind(**content)


def check(kind: Any, content: Any, where: str = "") -> None:
    """Checks that JSON is of a type: a class or `TypedDict` by its fields, or any of `typing`.

    Args:
      kind: the type; tuples are JSON's lists, and integers will do for numbers.
      content: from JSON.
      where: begins the name of what the message is about.

    Raises:
      Damaged: names what another version of this program, or another program, wrote.
    """
    if kind is Any:
        return
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if any(_is_a(one, content) for one in arguments):
            return
    elif origin is dict:
        if isinstance(content, dict):
            for name, value in content.items():
                check(arguments[1], value, f"{where}.{name}" if where else name)
            return
    elif origin in (list, tuple):
        if isinstance(content, list):
            for value in content:
                check(arguments[0], value, where)
            return
    elif hasattr(kind, "__annotations__"):
        if isinstance(content, dict):
            hints = typing.get_type_hints(kind)
            if strange := sorted(set(hints) ^ set(content)):
                raise Damaged(f"another version wrote it: {', '.join(strange[:3])} differ")
            for name, value in content.items():
                check(hints[name], value, f"{where}.{name}" if where else name)
            return
    elif kind is float:
        if isinstance(content, int | float) and not isinstance(content, bool):
            return
    elif isinstance(content, kind) and (kind is bool or not isinstance(content, bool)):
        return
    raise Damaged(f"another version wrote it: '{where}' is not of its type")


def _is_a(kind: Any, content: Any) -> bool:
    try:
        check(kind, content)
    except Damaged:
        return False
    return True


def _checksum(content: Mapping[str, Any]) -> str:
    # As a reader finds it: tuples are lists there, and numbers as keys are text.
    plain = json.loads(json.dumps(content, allow_nan=False))
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()
