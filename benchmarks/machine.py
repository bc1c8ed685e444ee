"""What a measurement was made on, and how fast it could be at best: the floors."""

import os
import platform
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Work(NamedTuple):
    """What a stage must do however it is written."""

    flops: float  # multiplications and additions
    bytes: float  # that must come from or go to memory


class Floors(NamedTuple):
    """What the machine reaches on the simplest work, in this process, on its cores."""

    flops: float  # per second, in a float32 matrix product
    bandwidth: float  # bytes per second, in a long copy


def describe() -> dict[str, Any]:
    """The processor, the cores that this process may use, and the versions."""
    return {
        "processor": _processor(),
        "cores": _cores(),
        "device": jax.devices()[0].device_kind,
        "system": platform.platform(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "load": os.getloadavg()[0],
    }


def floors(*, size: int = 2048, megabytes: int = 1024, repeats: int = 5) -> Floors:
    """Measures both rates.

    The matrix product is XLA's or NumPy's, whichever is faster; the copy is of more than the caches
    hold, where they are of the usual size, and counts what it reads and what it writes.

    Args:
      size: the side of the matrices.
      megabytes: read by the copy.
      repeats: of which the fastest counts.
    """
    host = np.random.default_rng(0).random((size, size), np.float32)
    device = jnp.asarray(host)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=jax.lax.Precision.HIGHEST))
    source = np.ones(megabytes << 18, np.float32)
    target = np.empty_like(source)
    seconds = min(
        _fastest(lambda: product(device).block_until_ready(), repeats),
        _fastest(lambda: host @ host, repeats),
    )
    copying = _fastest(lambda: np.copyto(target, source), repeats)
    return Floors(2 * size**3 / seconds, 2 * source.nbytes / copying)


def floor_seconds(work: Work, floors: Floors) -> float:
    """The least time for that work: of its arithmetic or of its traffic, whichever is longer."""
    return max(work.flops / floors.flops, work.bytes / floors.bandwidth)


def _fastest(function, repeats):
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
