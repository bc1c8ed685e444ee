"""The error that names an argument."""

from typing import Any


class ArgumentError(ValueError):
    """An argument that cannot be honoured: the message says which, and what would be right.

    Arguments stand in it as `name=value`, or by their names in backticks. A command line whose
    flags have these names can so speak of flags.
    """


def check_type(name: str, value: Any, kinds: type | tuple[type, ...], what: str) -> None:
    """Raises ArgumentError unless a value is of some type: it must be `what`."""
    if not isinstance(value, kinds):
        raise ArgumentError(f"{name}={shown(value)} must be {what}")


def shown(value: Any) -> str:
    """A value on one line of a message: an array's type and shape, of others the beginning."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype} {list(value.shape)}"
    return f"{' '.join(repr(value).split()):.60}"
