"""What runs the groups of a sweep in this process."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from etils import epath

from sgfr_jax.commands.flags import checking, starting
from sgfr_jax.commands.host import machine
from sgfr_jax.commands.sweeping import collection, sharing, tasks

Group = Sequence[tasks.Task]


class Outcome(NamedTuple):
    """What became of a task."""

    task: tasks.Task
    results: dict[str, Any] | None = None  # of its record; None: it failed
    error: str = ""  # and why


def local(
    groups: Sequence[Group], resources: machine.Resources, workdir: epath.Path
) -> Iterator[Outcome]:
    """Yields the outcome of every task as its record has been kept.

    Args:
      groups: from `tasks.groups`.
      resources: what to use.
      workdir: where records go.

    Raises:
      OSError: a record, or what it needs, could not be written.
    """
    return compute(sharing.Worker(resources, partial(collection.keep, workdir)), groups)


def compute(worker: sharing.Worker, groups: Sequence[Group]) -> Iterator[Outcome]:
    """As `local`, with a worker that may know what earlier groups shared.

    Metrics are computed beside the next tasks' scores: they need one core and no device.
    """
    waiting: sharing.Part | None = None
    for group in groups:
        for found in _attempt(worker, group):
            if isinstance(found, Outcome):
                yield found
                continue
            if waiting is not None:
                yield from _outcomes(waiting)
            waiting = found
    if waiting is not None:
        yield from _outcomes(waiting)


def _attempt(worker: sharing.Worker, group: Group) -> Iterator[sharing.Part | Outcome]:
    """A group's parts, and the outcomes of tasks that fail for what the user can mend.

    These do not take the others of their group with them.
    """
    left = list(group)
    try:
        for part in worker.run(group):
            left = [task for task in left if task not in part.tasks]
            yield part
    except Exception as error:
        # A full disk would fail the next task too.
        if isinstance(error, OSError) or not starting.foreseen(error):
            raise
        if len(left) == 1:
            yield Outcome(left[0], error=checking.message(error))
        else:
            for task in left:
                yield from _attempt(worker, [task])


def _outcomes(part: sharing.Part) -> Iterator[Outcome]:
    for task, record in zip(part.tasks, part.records.result(), strict=True):
        yield Outcome(task, record.results)
