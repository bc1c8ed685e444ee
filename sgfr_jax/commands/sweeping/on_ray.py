"""Groups of a sweep on the workers of Ray (https://docs.ray.io), an optional extra."""

import collections
import socket
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from etils import epath

import sgfr_jax
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.host import compilation, machine
from sgfr_jax.commands.sweeping import collection, executors, sharing

# How often a group is given to a new worker after its worker died.
_RETRIES = 2
_ROOT = Path(sgfr_jax.__file__).parents[1]
_PATIENCE_SECONDS = 10
# A group and its outcomes are a few kilobytes: nothing large goes through Ray.
_STORE_BYTES = 1 << 27


def execute(
    groups: Sequence[executors.Group],
    resources: machine.Resources,
    workdir: epath.Path,
    *,
    address: str | None,
    num_cpus: float,
    num_gpus: float,
) -> Iterator[executors.Outcome]:
    """Yields the outcome of every task, computed by as many workers as there is room for.

    A worker that dies is replaced, and what it had not finished is done again.

    Args:
      groups: from `tasks.groups`.
      resources: what every worker may use.
      workdir: where all of them reach it.
      address: of a cluster; None starts Ray on this machine, for as long as this takes.
      num_cpus: of every worker.
      num_gpus: of every worker.

    Raises:
      ConfigError: if Ray is missing, cannot be reached, or has no room for a worker.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--executor=ray needs Ray: pip install 'sgfr_jax[ray]'") from error
    _connect(ray, address)
    try:
        room = _room(ray.cluster_resources(), num_cpus, num_gpus)
        remote = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus)(_Remote)
        waiting = collections.deque((group, 0) for group in groups)
        running = {}

        def start(actor) -> None:
            if waiting:
                group, tried = waiting.popleft()
                running[actor.run.remote(group)] = actor, group, tried

        for _ in range(min(room, len(groups))):
            start(remote.remote(resources, str(workdir)))
        while running:
            (ended,), _ = ray.wait(list(running), num_returns=1)
            actor, group, tried = running.pop(ended)
            try:
                yield from ray.get(ended)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayActorError:
                kept, _ = collection.load_some(workdir, [task.name for task in group])
                yield from (executors.Outcome(t, kept[t.name].results) for t in group
                            if t.name in kept)  # fmt: skip
                left = [task for task in group if task.name not in kept]
                if left and tried < _RETRIES:
                    waiting.appendleft((left, tried + 1))
                else:
                    why = f"{tried + 1} workers died of it"
                    yield from (executors.Outcome(task, error=why) for task in left)
                actor = remote.remote(resources, str(workdir))
            start(actor)
    finally:
        ray.shutdown()


class _Remote:
    """A worker in a process of Ray's."""

    def __init__(self, resources: machine.Resources, workdir: str):
        if resources.cache_dir is not None:
            compilation.keep_in(resources.cache_dir / "compiled")
        self._worker = sharing.Worker(resources, partial(collection.keep, epath.Path(workdir)))

    def run(self, group: executors.Group) -> list[executors.Outcome]:
        return list(executors.compute(self._worker, [group]))


def _connect(ray, address: str | None) -> None:
    if address is not None:
        _check_address(address)
    # Workers import this code, which need not be installed.
    environment = {"env_vars": {"PYTHONPATH": str(_ROOT)}}
    try:
        if address is None:
            ray.init(
                address="local", include_dashboard=False, object_store_memory=_STORE_BYTES,
                runtime_env=environment, logging_level="warning",
            )  # fmt: skip
        else:
            ray.init(address=address, runtime_env=environment, logging_level="warning")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"--address={address}: Ray cannot be reached ({error})") from error


def _check_address(address: str) -> None:
    """Raises ConfigError where nobody answers; Ray itself would wait for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdecimal():
        return  # such as `auto`, which Ray looks up
    try:
        socket.create_connection((host, int(port)), _PATIENCE_SECONDS).close()
    except OSError as error:
        raise ConfigError(f"--address={address}: Ray cannot be reached ({error})") from error


def _room(available: dict[str, float], num_cpus: float, num_gpus: float) -> int:
    """How many workers fit in what a cluster has."""
    room = []
    for flag, name, each in (("cpus", "CPU", num_cpus), ("gpus", "GPU", num_gpus)):
        if each:
            room.append(int(available.get(name, 0) // each))
            if not room[-1]:
                raise ConfigError(
                    f"--{flag}_per_worker={each:g}, but Ray has {available.get(name, 0):g} {name}s"
                )
    return min(room)
