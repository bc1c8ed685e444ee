"""Functions with their hyperparameters, which are equal where those are."""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Bound:
    """A function with some of its keywords bound, from `bind`; hashed and compared by value."""

    function: Callable[..., Any]
    hyperparameters: tuple[tuple[str, Hashable], ...]  # by name

    def __call__(self, *args: Any, **more: Any) -> Any:
        """The function's result; a keyword given again counts instead of the bound one."""
        return self.function(*args, **{**dict(self.hyperparameters), **more})


def bind(function: Callable[..., Any], /, **hyperparameters: Hashable) -> Bound:
    """The function with keywords bound, as a static argument that compiles once for equal values.

    A `functools.partial` equals itself alone, so that `jax.jit` compiles anew for every one that
    is made: `jax.jit(score, static_argnames="code")` of two equal coders, twice. Two that are
    bound by this, nested ones too, are equal where their functions and values are.

    Args:
      function: such as a coder, a penalty or a sampler.
      hyperparameters: numbers, strings, functions and what else has a hash. An array has none: bind
        it by `functools.partial` inside the function that is compiled.

    Raises:
      ValueError: if a value has no hash.
    """
    for name, value in hyperparameters.items():
        try:
            hash(value)
        except TypeError as error:
            raise ValueError(
                f"{name}={value!r} has no hash, so that no value equals it; bind a plain number, or"
                " use functools.partial inside the function that is compiled"
            ) from error
    return Bound(function, tuple(sorted(hyperparameters.items())))
