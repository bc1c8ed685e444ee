"""What the stages of a detector ask of the machine, as one argument that is plain by default.

By default everything happens on JAX's default device, in one process, without progress, and nothing
is kept. The commands give what their flags ask for: many devices, many processes, bars, a cache.
"""

import contextlib
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from sgfr_jax import types
from sgfr_jax.errors import ArgumentError, check_type

Report = Callable[[int], None]  # told how many more units are done


def compile_plainly(
    function: Callable, static: Sequence[str] = (), *, jit: Callable = jax.jit
) -> Callable:
    """`function(state, batch, **static)` compiled for one device."""
    return jit(function, static_argnames=static)


@contextlib.contextmanager
def silent(title: str, total: int, unit: str) -> Iterator[Report]:
    """Progress that nobody sees."""
    del title, total, unit
    yield lambda more: None


class Kept(Protocol):
    """Where embeddings are kept from one call to the next."""

    def read(self, described: Mapping[str, Any], rows: int) -> Iterator[np.ndarray] | None:
        """What was kept under a description in JSON's types, `rows` rows at a time; or None."""

    def write(
        self, described: Mapping[str, Any], shape: tuple[int, ...], blocks: Iterator[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Passes on blocks of an array of some shape, and keeps it when all have gone by."""


class Services(NamedTuple):
    """What the stages of a detector use of the machine; none of it changes a number."""

    batch_size: int = 16  # squares embedded at a time
    workers: int = 0  # processes that read images; 0: threads of this one
    # `(function (state, batch, **static), names of static arguments) -> compiled function`, whose
    # rows `[B, ...]` depend on the state and on the same rows of the batch. It hashes.
    compile: Callable[..., Callable] = compile_plainly
    jit: Callable[..., Callable] = jax.jit  # compiles all other functions
    put: Callable[[Any], Any] = jax.device_put  # a batch to where compiled functions want it
    replicate: Callable[[Any], Any] = lambda tree: tree  # a state to there
    # Chooses atoms of patches that lie on many devices: `(key, own patches [n, D], weights [N],
    # (images, patches of each), num_atoms, report) -> Bank`; None: one device holds the patches.
    sample: Callable[..., types.Bank] | None = None
    progress: Callable[[str, int, str], AbstractContextManager[Report]] = silent
    kept: Kept | None = None
    # Of several processes that run the same program in step, each with its share of the images:
    share: Callable[[int], range] = range  # which of `n` things this process sees to
    share_images: Callable[[int], range] = range  # the same of training images, by their devices
    joined: Callable[[Sequence], list] = list  # the items of all processes in order
    agreed: Callable[[Any], Any] = lambda value: value  # what the first process has


PLAIN = Services()


def check(services: Any) -> None:
    """Raises ArgumentError for what is no `Services`, or has sizes that are none."""
    check_type("services", services, Services, "a `Services`, such as Services(batch_size=16)")
    for name, least in (("batch_size", 1), ("workers", 0)):
        value = getattr(services, name)
        if not isinstance(value, numbers.Integral) or value < least:
            raise ArgumentError(f"{name}={value!r} must be a whole number, from {least}")


def concatenated(services: Services, rows: np.ndarray) -> np.ndarray:
    """The rows `[n, ...]` of all processes, in the order of the processes."""
    found = services.joined([rows])
    return found[0] if len(found) == 1 else np.concatenate(found)


def pad(batch: np.ndarray, size: int) -> np.ndarray:
    """A batch `[n, ...]` with zeros up to `[size, ...]`, so that one shape compiles once."""
    missing = size - len(batch)
    return np.pad(batch, ((0, missing), *[(0, 0)] * (batch.ndim - 1))) if missing else batch
