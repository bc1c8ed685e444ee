"""Run by `benchmarks.scaling` in a process of its own, which has so many fake CPU devices.

Reads a `Problem` as JSON from its argument and prints what every sharded function took, what its
compiled program counts, and what the cost model says.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import compiled, cost_model
from sgfr_jax import pipeline, sharding, solvers, types

_SOLVE = partial(solvers.affine_ridge, ridge=1e-3)


class Problem(NamedTuple):
    """How large everything is, on all devices together."""

    targets: int
    atoms: int
    points: int
    chosen: int
    features: int = 344
    neighbors: int = 10
    repeats: int = 3


class Stage(NamedTuple):
    """A sharded function with its arguments, and what the model says of its compiled program."""

    name: str
    function: Callable
    arguments: tuple[Any, ...]
    cost: cost_model.Cost


def stages(problem: Problem) -> Iterator[Stage]:
    """Every sharded function, over all devices there are."""
    devices = jax.devices()
    num, features, neighbors = len(devices), problem.features, problem.neighbors
    mesh = sharding.make_mesh(devices)
    targets = _patches(0, problem.targets, features)
    bank = types.Bank(
        _patches(1, problem.atoms, features),
        jnp.ones(problem.atoms),
        jnp.arange(problem.atoms, dtype=jnp.int32),
    )
    coder = partial(solvers.local_code, num_neighbors=neighbors, solve=_SOLVE)
    yield Stage(
        "score, patches split",
        sharding.data_parallel(partial(pipeline.score, code=coder, chunk_size=None), mesh),
        (bank, targets),
        cost_model.code(problem.targets / num, features, problem.atoms, neighbors),
    )
    yield Stage(
        "score, atoms split",
        partial(
            sharding.score_over_atoms,
            mesh=sharding.make_mesh(devices, num_atoms_shards=num),
            num_neighbors=neighbors,
            solve=_SOLVE,
        ),
        (bank, targets),
        cost_model.code_over_atoms(problem.targets, features, problem.atoms, neighbors, parts=num),
    )
    points = _patches(2, problem.points, features)
    yield Stage(
        "k-center, patches split",
        partial(sharding.k_center_over_patches, num=problem.chosen, mesh=mesh),
        (jax.random.key(0), points, jnp.ones(len(points))),
        cost_model.k_center_program(problem.points, features, devices=num),
    )


def main() -> None:
    """Measures every stage and prints the figures."""
    problem = Problem(**json.loads(sys.argv[1]))
    found = {}
    for stage in stages(problem):
        run = jax.jit(stage.function)
        jax.block_until_ready(run(*stage.arguments))
        seconds, of_cores = [], []
        for _ in range(problem.repeats):
            began, used = time.perf_counter(), time.process_time()
            jax.block_until_ready(run(*stage.arguments))
            seconds.append(time.perf_counter() - began)
            of_cores.append(time.process_time() - used)
        found[stage.name] = {
            "seconds": seconds,
            "core_seconds": of_cores,
            "counted": compiled.count(stage.function, *stage.arguments)._asdict(),
            "model": stage.cost._asdict(),
        }
    print(json.dumps(found))


def _patches(seed: int, count: int, features: int) -> jax.Array:
    """Points of unit norm near a hundred others, so that some are close as patches are."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(100, features))
    points = centres[rng.integers(100, size=count)] + 0.3 * rng.normal(size=(count, features))
    return jnp.float32(points / np.linalg.norm(points, axis=-1, keepdims=True))


if __name__ == "__main__":
    main()
