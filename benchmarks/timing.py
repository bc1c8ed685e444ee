"""Timing several ways of doing one thing in turn, so that what disturbs one disturbs all.

Standard library only: the peers' worker imports it into an environment without JAX.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Extrapolated(NamedTuple):
    """What a function returns that did a part of the work and knows what the whole would take."""

    seconds: float
    value: Any


class Sample(NamedTuple):
    """One measurement."""

    seconds: float  # per call
    value: Any  # what the last call returned


class Timed(NamedTuple):
    """All measurements of one contender."""

    seconds: list[float]
    value: Any  # what the last call returned


# Calls something a number of times.
Contender = Callable[[int], Sample]


def contender(function: Callable[[], Any]) -> Contender:
    """Times a function, which must not return before its work is done.

    The seconds of a function that returns `Extrapolated` are its own.
    """

    def sample(number: int) -> Sample:
        start = time.perf_counter()
        for _ in range(number):
            value = function()
        seconds = (time.perf_counter() - start) / number
        return Sample(*value) if isinstance(value, Extrapolated) else Sample(seconds, value)

    return sample


def alternate(
    contenders: Mapping[str, Contender], *, repeats: int, number: int = 1, warm: bool = True
) -> dict[str, Timed]:
    """Measures all contenders in turn, `repeats` times over.

    Args:
      contenders: by name.
      repeats: how many measurements of each.
      number: how many calls make one measurement; more than one where a call takes microseconds.
      warm: whether to call each once, unmeasured, for what happens only once (compilation).

    Returns:
      The measurements, by name.
    """
    if warm:
        for sample in contenders.values():
            sample(1)
    samples = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, sample in contenders.items():
            samples[name].append(sample(number))
    return {
        name: Timed([sample.seconds for sample in taken], taken[-1].value)
        for name, taken in samples.items()
    }


def ratio(seconds: list[float], reference: list[float]) -> float:
    """How many times as long as the reference: the median over the repeats, each by itself."""
    return statistics.median(a / b for a, b in zip(seconds, reference, strict=True))
