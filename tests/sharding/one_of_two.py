"""Run by `test_two_processes`: one of two processes with four devices each, which may die."""

import json
import os
import signal
import sys
from functools import partial

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from sgfr_jax import pipeline, sharding, solvers

CODE = partial(solvers.local_code, num_neighbors=5, solve=partial(solvers.affine_ridge, ridge=1e-3))


def points():
    return np.random.default_rng(0).normal(size=(1600, 8)).astype(np.float32)


def main(port, number, victim):
    jax.distributed.initialize(
        f"127.0.0.1:{port}", 2, number, heartbeat_timeout_seconds=6, shutdown_timeout_seconds=6
    )
    mesh = sharding.make_mesh(jax.devices())
    rows = NamedSharding(mesh, P(sharding.DATA))
    own = slice(number * 800, number * 800 + 800)
    patches = jax.make_array_from_process_local_data(rows, points()[own])
    weights = jax.make_array_from_process_local_data(rows, np.ones(800, np.float32))
    fit = partial(sharding.k_center_over_patches, num=60, mesh=mesh)
    if number == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    bank, radius = jax.jit(fit)(jax.random.key(3), patches, weights)
    score = sharding.data_parallel(partial(pipeline.score, code=CODE), mesh)
    scores = jax.jit(score)(bank, patches)
    of_own = sorted(scores.addressable_shards, key=lambda shard: shard.index[0].start)
    found = np.concatenate([shard.data for shard in of_own])
    indices = np.asarray(bank.indices.addressable_data(0))
    radius = float(radius.addressable_data(0))
    print(json.dumps([indices.tolist(), radius, found.tolist()]))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
