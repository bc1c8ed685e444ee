"""A grid of 24 points: `experiments.sweep` against 24 times `experiments.run`.

Two samplers, three sizes of bank and four solvers, one bank of `--layers=fast` each; every run is a
process of its own. Before anything is timed one run embeds the images for those that may use the
cache; without a cache nothing is kept, compiled programs neither. With --sample=N only N of the
separate runs are made of either kind, spread over the grid, and their mean stands for all 24.

    python -m benchmarks.sweep --dataset=mtd --data_dir=../shared/data/mtd --sample=8
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks import processes, report, workers
from sgfr_jax.commands.flags import config
from sgfr_jax.commands.sweeping import grids

_GRID = "solver_by_bank"
_STRIDE = 5  # prime to the number of solvers and of banks: a sample has all of them


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this benchmark."""
    parser.add_argument("--dataset", default="demo", help="of experiments.run")
    parser.add_argument("--data_dir", help="where it lies")
    parser.add_argument("--sample", type=int, help="how many of the separate runs; by default all")


def measure(options: argparse.Namespace, peers: workers.Peers) -> list[report.Row]:
    """Times the sweep, its rerun, and the separate runs."""
    del peers
    points = [point.config for point in grids.points(_GRID, config.Config())]
    chosen = [points[i * _STRIDE % len(points)] for i in range(options.sample or len(points))]
    data = [f"--dataset={options.dataset}"]
    data += [f"--data_dir={options.data_dir}"] if options.data_dir else []
    with tempfile.TemporaryDirectory() as folder:

        def command(name: str, *flags: str) -> float:
            place = f"--workdir={Path(folder, 'out')}"
            return processes.run([sys.executable, "-m", name, *data, place, *flags]).seconds

        cached, uncached = f"--cache_dir={Path(folder, 'cache')}", "--cache_dir="
        command("experiments.run", cached, "--layers=fast")
        grid = f"--grid={_GRID}"
        swept = command("experiments.sweep", cached, grid)
        again = command("experiments.sweep", cached, grid)
        with_cache, without = [], []
        for settings in chosen:
            flags = ["--layers=fast"]
            flags += [f"--{n}={settings.get(n)}" for n in ("sampler", "bank_ratio", "solver")]
            with_cache.append(command("experiments.run", cached, *flags))
            without.append(command("experiments.run", uncached, *flags))
    stage = f"{len(points)} points of {options.dataset}"
    rows = [
        report.Row(stage, report.OURS, [swept], 1.0, note="experiments.sweep, embeddings cached"),
        report.Row(stage, "the sweep again", [again], again / swept, note="nothing to do"),
    ]
    for who, seconds in (("runs, cached", with_cache), ("runs, no cache", without)):
        mean = statistics.mean(seconds)
        total = mean * len(points)
        note = f"{len(points)} times the mean of {len(seconds)} runs, {mean:.1f} s"
        rows.append(report.Row(stage, who, [total], total / swept, note=note))
    return rows


if __name__ == "__main__":
    report.run(measure, __doc__, add_flags=add_flags, repeats=None)
