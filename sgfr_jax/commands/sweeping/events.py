"""TensorBoard event files of a sweep, an optional extra."""

from collections.abc import Callable
from typing import Any

from etils import epath

from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.sweeping import executors
from sgfr_jax.metrics import Metrics

# Events are on disk after so long at most: its own `flush` does not wait for its queue.
_FLUSH_SECONDS = 2


def make_log(directory: epath.Path) -> Callable[[executors.Outcome, float], None]:
    """What writes an outcome, and the points done per second, as the next step of a run.

    Args:
      directory: of the event file, one for every worker.

    Raises:
      ConfigError: if the extra is missing.
    """
    try:
        import tensorboardX
    except ImportError as error:
        raise ConfigError(
            "--tensorboard needs tensorboardX: pip install 'sgfr_jax[tensorboard]'"
        ) from error
    writer = tensorboardX.SummaryWriter(str(directory), flush_secs=_FLUSH_SECONDS)
    step = 0

    def log(outcome: executors.Outcome, rate: float) -> None:
        nonlocal step
        step += 1
        writer.add_text("point", outcome.task.title, step)
        writer.add_scalar("points_per_second", rate, step)
        for name, value in _metrics(outcome.results).items():
            writer.add_scalar(f"{outcome.task.category}/{name}", value, step)

    return log


def _metrics(results: dict[str, Any] | None) -> dict[str, float]:
    """The metrics that are defined; none of a task that failed."""
    named = ((name, (results or {}).get(name)) for name in Metrics._fields)
    return {name: value for name, value in named if value is not None}
