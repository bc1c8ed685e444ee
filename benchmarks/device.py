"""What the device that JAX computes on reaches, how to time on it, and what its kernels are."""

import collections
import glob
import gzip
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import timing

# Of one measurement: long enough that starting and waiting for the first call do not count.
_SECONDS = 0.2
_MOST_CALLS = 100
# Parts of a compiled program that would go to the host and come back.
_HOST_CALLS = ("callback", "infeed", "outfeed", "send-done", "recv-done")


class Rates(NamedTuple):
    """What the device reaches on the simplest work, per second."""

    float32: float  # operations in a matrix product, `Precision.HIGHEST`
    tf32: float  # the same, `Precision.HIGH`: TF32 on a GPU, three bfloat16 products on a TPU
    bfloat16: float  # of bfloat16 factors, summed in float32
    bandwidth: float  # bytes read and written by a pass over a large array


class Work(NamedTuple):
    """What a stage must do: operations by the precision they are done in, and traffic."""

    float32: float = 0.0
    bfloat16: float = 0.0
    bytes: float = 0.0


class Floor(NamedTuple):
    """The least time that the rates allow for some work."""

    arithmetic: float  # seconds
    traffic: float

    @property
    def seconds(self) -> float:
        """The longer of the two."""
        return max(self)

    @property
    def bound(self) -> str:
        """Which of the two it is."""
        return "arithmetic" if self.arithmetic >= self.traffic else "memory"


def rates(*, size: int, megabytes: int, repeats: int = 5) -> Rates:
    """Measures them on JAX's default device.

    Args:
      size: the side of the matrices.
      megabytes: of the array that is read, and of the one that is written.
      repeats: of which the fastest counts.
    """
    square = jax.random.normal(jax.random.key(0), (size, size))
    halves = square.astype(jnp.bfloat16)
    long = jnp.ones(megabytes << 18, jnp.float32)

    def product(precision):
        return lambda a: jnp.matmul(a, a, precision=precision, preferred_element_type=jnp.float32)

    def fastest(function, argument):
        sample = contender(function, argument)
        return min(sample(calls(sample)).seconds for _ in range(repeats))

    operations = 2.0 * size**3
    return Rates(
        float32=operations / fastest(product(jax.lax.Precision.HIGHEST), square),
        tf32=operations / fastest(product(jax.lax.Precision.HIGH), square),
        bfloat16=operations / fastest(product(None), halves),
        bandwidth=2 * long.nbytes / fastest(lambda x: x + 1, long),
    )


def floor(work: Work, rates: Rates) -> Floor:
    """The least time for that work."""
    arithmetic = work.float32 / rates.float32 + work.bfloat16 / rates.bfloat16
    return Floor(arithmetic, work.bytes / rates.bandwidth)


def contender(function: Callable, *arguments: Any) -> timing.Contender:
    """Times a compiled function of arguments that are on the device.

    Calls follow each other without waiting, as a loop over batches makes them, and the last is
    waited for. Anything that moved between host and device meanwhile would raise an error.

    Raises:
      RuntimeError: if the compiled program calls the host.
    """
    placed = jax.device_put(arguments)
    compiled = jax.jit(function).lower(*placed).compile()
    if found := host_calls(compiled.as_text()):
        raise RuntimeError(f"{function} goes back to the host within: {', '.join(found)}")

    def sample(number: int) -> timing.Sample:
        with jax.transfer_guard("disallow"):
            start = time.perf_counter()
            for _ in range(number):
                value = compiled(*placed)
            jax.block_until_ready(value)
            seconds = time.perf_counter() - start
        return timing.Sample(seconds / number, value)

    return sample


def host_calls(program: str) -> list[str]:
    """What in the text of a compiled program leaves the device in its midst."""
    return [word for word in _HOST_CALLS if word in program]


def calls(sample: timing.Contender) -> int:
    """How many calls make a measurement that is long enough."""
    sample(1)
    return max(1, min(_MOST_CALLS, int(_SECONDS / max(sample(1).seconds, 1e-9))))


def kernels(sample: timing.Contender) -> dict[str, float]:
    """The share of each kernel in the time of one call, largest first; empty if none are traced."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            sample(1)
        events = []
        for path in glob.glob(f"{folder}/**/*.trace.json.gz", recursive=True):
            with gzip.open(path) as file:
                events += json.load(file)["traceEvents"]
    return shares(events)


def shares(events: list[Mapping[str, Any]]) -> dict[str, float]:
    """The share of each kernel in all time of kernels, from the events of a trace."""
    spent = collections.Counter()
    for event in events:
        # Loops contain their bodies, which count by themselves.
        operation = event.get("args", {}).get("hlo_op", "")
        if event.get("ph") == "X" and operation and not operation.startswith("while"):
            spent[event["name"]] += event.get("dur", 0.0)
    total = sum(spent.values())
    return {name: seconds / total for name, seconds in spent.most_common() if total}
