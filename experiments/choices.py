"""Names of the command line and the functions they stand for."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import jax

from sgfr_jax import names, pipeline, samplers, solvers, types


class ConfigError(ValueError):
    """A flag that cannot be honoured; the message says which and what would be right."""


class Sampler(NamedTuple):
    """A sampler in two parts, so that a caller can show how far it has come."""

    start: Callable[[jax.Array, jax.Array, jax.Array, int], types.Selection]
    advance: Callable[[types.Selection, jax.Array, int], types.Selection]


SAMPLERS = {
    "k_center": Sampler(samplers.k_center_start, samplers.k_center_advance),
    "random": Sampler(samplers.uniform, lambda selection, points, upto: selection),
}

# The one sampler that sees patches a block at a time; `stages` drives it.
STREAMING = "k_center_stream"

# Name to the penalty solver; those that have a penalty take `ridge`.
SOLVERS = {
    "affine_ridge": solvers.affine_ridge,
    "ridge": solvers.ridge,
    "nearest": solvers.nearest,
}

BASELINES = ("nearest",)

METRICS = ("auto", "exact", "streaming")


def make_coder(solver: str, *, num_neighbors: int, ridge: float) -> pipeline.MakeCode:
    """The coder `(targets, bank) -> Code` of a solver's name; `nearest` looks at one atom only."""
    if solver == "nearest":
        return partial(solvers.local_code, num_neighbors=1, solve=solvers.nearest)
    solve = partial(SOLVERS[solver], ridge=ridge)
    return partial(solvers.local_code, num_neighbors=num_neighbors, solve=solve)


def check_known(flag: str, what: str, name: str, known: Iterable[str]) -> None:
    """Raises ConfigError, with the known names and the nearest one, if `name` is not known."""
    known = list(known)
    if name not in known:
        raise ConfigError(f"--{flag}: {names.unknown_name(what, name, known)}")
