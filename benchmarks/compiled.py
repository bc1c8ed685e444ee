"""What a compiled program says of itself: its arithmetic, and what its collectives move."""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

_KINDS = {"all-gather": "gathered", "all-reduce": "reduced"}
_OTHERS = "all-to-all", "collective-permute", "reduce-scatter"
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8}
_CALL = re.compile(rf"= (\(?[a-z0-9]+\[.*?) ({'|'.join((*_KINDS, *_OTHERS))})(?:-start)?\(")
_SHAPE = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")


class Counted(NamedTuple):
    """Of one device; the body of a loop counts once, however often it runs."""

    flops: float
    gathered: int  # bytes that all-gathers leave
    reduced: int  # bytes that all-reduces leave


def count(function: Callable, *args: Any) -> Counted:
    """Compiles a function for arguments, or for their shapes, and counts.

    Raises:
      ValueError: the program has collectives of other kinds.
    """
    compiled = jax.jit(function).lower(*args).compile()
    found = dict.fromkeys(_KINDS.values(), 0)
    for shapes, kind in _CALL.findall(compiled.as_text()):
        if kind not in _KINDS:
            raise ValueError(f"the program has a collective that is not counted: {kind}")
        found[_KINDS[kind]] += sum(
            _BYTES[name] * math.prod(int(n) for n in sides.split(",") if n)
            for name, sides in _SHAPE.findall(shapes)
        )
    return Counted(compiled.cost_analysis()["flops"], **found)
