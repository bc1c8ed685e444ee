"""A pickle reader that cannot run anything: only containers, numbers and strings are made.

A pickle is a program for a small stack machine, and Python's own machine lets it import and call
whatever it likes. This one is ours. It knows the instructions that plain data needs; a global name
is looked up in the caller's short table or refused, so a file has no way to an import, an
attribute or a call of its choosing. State for objects (`BUILD`) is dropped: the one kind torch
writes is a note on module versions beside an ordered dictionary.
"""

import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO


class FormatError(ValueError):
    """A file that is damaged or asks for what is not admitted; the message lacks its name."""


@dataclass(frozen=True, slots=True)
class Function:
    """What a table offers to be called with the arguments that the pickle gives."""

    call: Callable[..., Any]


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict}
_FIXED_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# Instructions that push the argument they carry.
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_LARGEST_KEY = 2**60  # beyond, any number of integers can be made to share a hash
# How a damaged program shows itself: an empty stack, an unknown memo, wrong types, bad numbers.
DAMAGE = (
    *(LookupError, TypeError, ValueError, AttributeError, OverflowError),
    *(RecursionError, MemoryError, struct.error),
)


def load(
    stream: BinaryIO,
    names: Mapping[str, Any],
    persistent: Callable[[Any], Any],
) -> Any:
    """Reads one pickle from a stream and leaves the stream behind it.

    Args:
      stream: bytes in memory, since lengths in the pickle are only checked against what is there.
      names: what `"module name"` stands for: a constant, or a `Function`.
      persistent: makes an object of a persistent id.

    Returns:
      The object.

    Raises:
      FormatError: the pickle is damaged, or names something that is not in the table.
    """
    stack, memo = [], {}
    try:
        for instruction, argument, _ in pickletools.genops(stream):
            if instruction.name == "STOP":
                return stack.pop()
            _step(instruction.name, argument, stack, memo, names, persistent)
    except FormatError:
        raise
    except DAMAGE as error:
        raise FormatError(
            f"is damaged or truncated ({type(error).__name__}: {_short(error)})"
        ) from error
    raise FormatError("is damaged or truncated: a pickle does not end")


def _step(name, argument, stack, memo, names, persistent):
    """Runs one instruction: changes the stack and the memo in place."""
    if name in _LITERALS:
        stack.append(argument)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in _EMPTY:
        stack.append(_EMPTY[name]())
    elif name in _FIXED_TUPLES:
        count = _FIXED_TUPLES[name]
        items = [stack.pop() for _ in range(count)]
        stack.append(tuple(reversed(items)))
    elif name == "MARK":
        stack.append(_MARK)
    elif name == "TUPLE":
        stack.append(tuple(_pop_to_mark(stack)))
    elif name == "LIST":
        stack.append(_pop_to_mark(stack))
    elif name == "DICT":
        stack.append(_set_items({}, _pop_to_mark(stack)))
    elif name == "APPEND":
        item = stack.pop()
        _top(stack, list).append(item)
    elif name == "APPENDS":
        items = _pop_to_mark(stack)
        _top(stack, list).extend(items)
    elif name == "SETITEM":
        value, key = stack.pop(), stack.pop()
        _set_items(_top(stack, dict), [key, value])
    elif name == "SETITEMS":
        items = _pop_to_mark(stack)
        _set_items(_top(stack, dict), items)
    elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
        if not 0 <= argument <= _LARGEST_KEY:
            raise FormatError("is damaged: it remembers something under an impossible number")
        memo[argument] = stack[-1]
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name == "POP":
        stack.pop()
    elif name == "POP_MARK":
        _pop_to_mark(stack)
    elif name == "DUP":
        stack.append(stack[-1])
    elif name == "GLOBAL":
        stack.append(_look_up(argument, names))
    elif name == "STACK_GLOBAL":
        attribute, module = stack.pop(), stack.pop()
        if not isinstance(attribute, str) or not isinstance(module, str):
            raise FormatError("is damaged: it looks something up by what is not a name")
        stack.append(_look_up(f"{module} {attribute}", names))
    elif name in ("REDUCE", "NEWOBJ"):
        arguments, function = stack.pop(), stack.pop()
        if not isinstance(function, Function) or not isinstance(arguments, tuple):
            raise FormatError("is damaged: it calls something that is not a function")
        stack.append(function.call(*arguments))
    elif name == "BUILD":
        stack.pop()
    elif name == "BINPERSID":
        stack.append(persistent(stack.pop()))
    elif name not in ("PROTO", "FRAME"):
        raise FormatError(f"uses the pickle instruction {name}, which plain weights do not need")


def _pop_to_mark(stack):
    items = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]


def _top(stack, kind):
    if not isinstance(stack[-1], kind):
        raise FormatError(f"is damaged: it adds to something that is not a {kind.__name__}")
    return stack[-1]


def _set_items(target, items):
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Tuples that hold each other many times over would take for ever to hash, and numbers that
        # are chosen to share a hash for ever to tell apart.
        ordinary = isinstance(key, int) and abs(key) <= _LARGEST_KEY
        if not ordinary and not isinstance(key, str | bytes | None):
            raise FormatError(
                "holds a dictionary with a key that is neither text nor a whole number to 2**60"
            )
        target[key] = value
    return target


def _look_up(name, names):
    if name in names:
        return names[name]
    raise FormatError(
        f"refers to {_short(name).replace(' ', '.')}, and only tensors and plain containers are"
        " read: in an environment that you trust, load it with torch and save"
        " model.state_dict() by itself"
    )


def _short(value):
    text = str(value)
    return text if len(text) <= 120 else text[:120] + "..."
