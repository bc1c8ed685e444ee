"""A sweep from its points to its records: what is there, what is missing, what became of it."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

from etils import epath

from sgfr_jax.commands.files.records import Record
from sgfr_jax.commands.host import environment, machine, progress
from sgfr_jax.commands.sweeping import collection, grids, tasks


def run_missing(
    points: Sequence[grids.Point],
    resources: machine.Resources,
    workdir: epath.Path,
    *,
    execute: Callable[..., Iterator],
    worker: tuple[int, int] = (0, 1),
) -> list[str]:
    """Computes the records that are missing of a worker's share.

    Args:
      points: from `grids.points`.
      resources: what to use.
      workdir: where records lie and go.
      execute: `(groups, resources, workdir) -> outcomes`, such as `executors.local`.
      worker: this one's number and how many there are.

    Returns:
      What failed, a line each.

    Raises:
      ConfigError, DatasetError, WeightsError: before anything is computed, on mistakes that can be
        seen by then.
      OSError: if a record cannot be written.
    """
    collection.open_workdir(workdir)
    groups = tasks.groups(tasks.plan(points, accept_license=resources.accept_license))
    mine = tasks.slice_of(groups, *worker)
    names = [task.name for group in mine for task in group]
    kept, damaged = collection.load_some(workdir, names)
    for path, why in damaged.items():
        print(f"record {path} is damaged ({why}): made again", file=sys.stderr)
    _note_other_code(kept.values(), workdir)
    missing = [[t for t in group if t.name not in kept] for group in mine]
    missing = [group for group in missing if group]
    total = sum(map(len, missing))
    index, count = worker
    title = f"worker {index}/{count}"
    print(f"{title}: {total} of {len(names)} points to do", file=sys.stderr)
    if not total:
        return []
    failed = []
    with progress.bar(title, total, "points") as report:
        for outcome in execute(missing, resources, workdir):
            if outcome.results is None:
                failed.append(f"{outcome.task.title}: {outcome.error}")
            report(1)
    return failed


def _note_other_code(kept: Iterable[Record], workdir: epath.Path) -> None:
    """Says how many records another version made; their names would be the same."""
    own = environment.describe()["commit"]
    other = sum(record.environment["commit"] != own for record in kept)
    if other:
        print(
            f"note: {other} records were made by another version than {own}; to make them again,"
            f" remove {collection.directory(workdir)}",
            file=sys.stderr,
        )
