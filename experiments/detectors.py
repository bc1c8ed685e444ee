"""What a category is run with: something that fits, embeds and scores."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from experiments import loading


class Seconds(NamedTuple):
    """Wall time of the stages of fitting."""

    embed: float
    sample: float
    calibrate: float = 0.0


class Fitted(NamedTuple):
    """A detector that has seen a category's training images."""

    states: dict[str, Any]  # of every scorer, by its name
    num_atoms: int  # in all banks together
    notes: list[str]  # on how it was fitted
    seconds: Seconds


class Detector(NamedTuple):
    """The stages of a run, compiled where that helps."""

    fit: Callable[[loading.Checked], Fitted]
    # A pytree of arrays `[n, ...]` at a time, `n` at most the batch size.
    batches: Callable[[loading.Split], Iterator[Any]]
    # Name of a solver, the run's own first, to `(state, batch) -> (maps [B, S, S], scores [B])`.
    scorers: dict[str, Callable]
    batch_size: int
