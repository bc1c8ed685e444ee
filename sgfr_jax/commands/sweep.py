r"""Runs a grid of configurations, each once, whatever dies on the way.

    python -m experiments.sweep --grid=solver_by_bank --dataset=mtd --data_dir=../shared/data/mtd
    python -m experiments.sweep --grid=seeds --workdir=gs://bucket/seeds --slice=3/16
    python -m experiments.sweep --grid=few_shot --executor=ray --address=auto

The grids are functions of `sgfr_jax.commands.sweeping.grids`. Every point and category has a record
in WORKDIR/records, named by a hash of its configuration and its data; the same command again
computes what is missing, and `python -m experiments.report` makes tables and plots of it.

All other flags belong to `experiments.run` and hold for every point of the grid.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from absl import flags
from etils import epath

from sgfr_jax.commands.flags import checking, launching, options, starting
from sgfr_jax.commands.sweeping import campaign, grids, tasks

flags.adopt_module_key_flags(options)
# The patches per side, which `experiments.run` calls --grid, are a point's matter.
GRID = flags.DEFINE_string(
    "grid", None, f"Which grid of configurations: {', '.join(grids.GRIDS)}.", allow_override=True
)
EXECUTOR = flags.DEFINE_enum(
    "executor", "local", ["local", "ray"],
    "What runs the points: this process, or the workers of Ray (pip install 'sgfr_jax[ray]').",
)  # fmt: skip
SLICE = flags.DEFINE_string(
    "slice", "0/1",
    "This worker's number, from 0, and how many identical workers a scheduler starts: 3/16.",
)  # fmt: skip
ADDRESS = flags.DEFINE_string(
    "address", None, "With --executor=ray: of a cluster; by default Ray is started here."
)
CPUS = flags.DEFINE_float(
    "cpus_per_worker", 1, "With --executor=ray: cores of every worker.", lower_bound=0.01
)
GPUS = flags.DEFINE_float(
    "gpus_per_worker", 0, "With --executor=ray: GPUs of every worker.", lower_bound=0
)
options.require_finite(CPUS, GPUS)

# Flags of `experiments.run` that a sweep has no use for: it keeps records alone, and a worker uses
# one device.
_OF_A_RUN = (
    "baseline", "check_data", "coordinator_address", "diagnose", "distributed", "mesh",
    "num_figures", "num_processes", "num_review", "process_id", "save_maps", "save_model",
)  # fmt: skip


def _executor() -> Callable[..., Iterator]:
    if EXECUTOR.value == "ray":
        from sgfr_jax.commands.sweeping import on_ray

        return partial(
            on_ray.execute, address=ADDRESS.value, num_cpus=CPUS.value, num_gpus=GPUS.value
        )
    for flag in (ADDRESS, CPUS, GPUS):
        if flags.FLAGS[flag.name].present:
            raise checking.ConfigError(f"--{flag.name} is for --executor=ray")
    from sgfr_jax.commands.sweeping import executors

    return executors.local


def _given() -> set[str]:
    """The flags that the command line names."""
    given = options.given() - {GRID.name}
    for name in sorted(given.intersection(_OF_A_RUN)):
        raise checking.ConfigError(f"--{name} is for experiments.run, not for a sweep")
    return given


def main(argv: Sequence[str]) -> None:
    """Sweeps, and turns every foreseen mistake into one line and an exit status."""
    starting.start(argv, "the same command goes on after the last finished point")
    default = f"runs/{GRID.value}_{options.DATASET.value}"
    with starting.exit_on_mistakes(f"--workdir={options.WORKDIR.value or default}"):
        if GRID.value is None:
            raise checking.ConfigError(f"--grid is missing; known: {', '.join(grids.GRIDS)}")
        base = options.named_by_flags().replace(grid=None)
        points = grids.points(GRID.value, base, _given())
        worker = tasks.parse_slice(SLICE.value)
        where = options.workdir_from_flags(default)
        workdir = epath.Path(where).expanduser()
        resources = starting.resources_from_flags(checking.path("workdir", where))
        failed = campaign.run_missing(
            points, resources, workdir, execute=_executor(), worker=worker
        )
    if failed:
        lines = "\n".join(f"failed: {line}" for line in failed)
        sys.exit(f"{lines}\nerror: {len(failed)} points failed; the same command tries them again")
    shown = launching.as_typed(f"python -m experiments.report --workdir={where}")
    print(f"Written to {workdir}. Tables and plots: {shown}")


def console() -> None:
    """The command `sgfr-sweep`."""
    launching.launch(main, __name__)
