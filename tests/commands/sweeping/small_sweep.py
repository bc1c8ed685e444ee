"""A sweep in a process of its own, which the tests kill at a moment of their choice.

python -m tests.commands.sweeping.small_sweep FOLDER WORKDIR CACHE [MOMENT]
"""

import os
import resource
import signal
import sys
from pathlib import Path

from etils import epath

from sgfr_jax.commands.files import cache
from sgfr_jax.commands.host import machine
from sgfr_jax.commands.sweeping import (
    campaign,
    collection,
    executors,
    grids,
)
from sgfr_jax.detector import programs, sampling
from tests.small import SMALL


def two_samplers(add):
    for sampler in ("k_center", "random"):
        for solver in ("affine_ridge", "nearest"):
            add(sampler=sampler, solver=solver)


def points(folder, grid=two_samplers):
    """The points of a grid on the small photographs."""
    grids.GRIDS["test"] = grid
    try:
        return grids.points("test", SMALL.replace(data_dir=str(folder)))
    finally:
        del grids.GRIDS["test"]


def go(found, workdir, cache_dir=None, execute=executors.local, **more):
    """Computes what is missing; the failures."""
    resources = machine.Resources(
        Path(workdir), batch_size=4, cache_dir=cache_dir, cache_bytes=10**9 if cache_dir else 0
    )
    return campaign.run_missing(found, resources, epath.Path(workdir), execute=execute, **more)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_embedding():
    write_through = cache.write_through

    def dying(*args):
        for number, block in enumerate(write_through(*args)):
            if number:
                die()
            yield block

    cache.write_through = dying


def die_sampling():
    make_bank, calls = sampling.make_bank, []

    def dying(*args, **more):
        calls.append(args)
        bank = make_bank(*args, **more)
        return die() if len(calls) == 2 else bank

    sampling.make_bank = dying


def die_scoring():
    make, calls = programs.make, []

    def dying(*args):
        made = make(*args)

        def score(*batch):
            calls.append(batch)
            return die() if len(calls) == 15 else made.score(*batch)

        return made._replace(score=score)

    programs.make = dying


def die_writing():
    temporary, calls = collection._temporary, []

    class Dying:
        def __init__(self, path):
            self.path = path

        def write_text(self, text):
            self.path.write_text(text[: len(text) // 2])
            die()

    def dying(workdir, name):
        calls.append(name)
        path = temporary(workdir, name)
        return Dying(path) if len(calls) == 4 else path

    collection._temporary = dying


def small_files():
    """Embeddings find the disk full, records do not."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


if __name__ == "__main__":
    folder, workdir, cache_dir, *moment = sys.argv[1:]
    for name in moment:
        globals()[name]()
    sys.exit("\n".join(go(points(folder), workdir, Path(cache_dir))) or 0)
