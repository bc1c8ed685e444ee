"""The processes of a run, one for each host: what each does, what they share, and how they end.

All run the same program in step. Each reads, embeds and scores its own share of the images; what
all must know goes through `joined`; the first alone writes. A process that ends early ends the
others within a minute: JAX notices it by its heartbeats, and aborts the others with its number.

Where there is one process, all of this is done at once and costs nothing.
"""

import contextlib
import faulthandler
import os
import pickle
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, NoReturn, TypeVar

import jax
import numpy as np

from sgfr_jax.commands.flags.checking import ConfigError

T = TypeVar("T")

# A process that JAX has not heard of for so long is dead. Heartbeats come from a thread of native
# code, which long compilations and Python's lock do not stop.
HEARTBEAT_SECONDS = 20
# How long the processes wait for each other at the start, and at the end.
MEETING_SECONDS = 100
# What `joined` sends at a time: every device of every process receives as much of each process.
_PIECE_BYTES = 1 << 24
# Set once the processes have met.
_met = threading.Event()

AUTO, ALWAYS, NEVER = "auto", "always", "never"


class Cluster(NamedTuple):
    """Where the processes meet; what is None JAX finds out from the cluster's environment."""

    address: str | None = None  # host and port of process 0
    num_processes: int | None = None
    process_id: int | None = None


def find(
    given: Cluster, choice: str, environment: Mapping[str, str] = os.environ
) -> Cluster | None:
    """The cluster that this process belongs to; None: it is alone.

    Args:
      given: by flags: all of it or nothing.
      choice: `auto`, `always` or `never`: whether there is one, if nothing is given.
      environment: in which Slurm, Open MPI and TPU pods say how many processes they have started.

    Raises:
      ConfigError: if what is given is not enough.
    """
    if any(part is not None for part in given):
        if None in given:
            raise ConfigError(
                "--coordinator_address, --num_processes and --process_id go together:"
                " host and port of process 0, how many there are, and which one this is"
            )
        host, _, port = given.address.rpartition(":")
        is_address = host and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 1 << 16
        if not is_address or not 0 <= given.process_id < given.num_processes:
            raise ConfigError(
                f"--coordinator_address={given.address} must be HOST:PORT, and --process_id="
                f"{given.process_id} from 0 to below --num_processes={given.num_processes}"
            )
        return given
    if choice == ALWAYS or (choice == AUTO and _num_started(environment) > 1):
        return given
    return None


def _num_started(environment: Mapping[str, str]) -> int:
    """The processes that a cluster says it has started together; 1 where there is none.

    Environments alone are asked: somebody who works alone should wait for no network.
    """
    if "SLURM_STEP_NODELIST" in environment:  # a step: `srun`, and not the script around it
        return int(environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS", 1)))
    if "OMPI_MCA_orte_hnp_uri" in environment:
        return int(environment.get("OMPI_COMM_WORLD_SIZE", 1))
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES", "")
    return len(hosts.split(","))


def join(cluster: Cluster | None) -> None:
    """Waits until all processes of the cluster are there; before anything else is asked of JAX.

    Ends this process with a message if they have not come within `MEETING_SECONDS`.

    Raises:
      ConfigError: if JAX cannot find out who they are.
    """
    if cluster is None:
        return
    # Else JAX takes SIGTERM for a notice and goes on.
    jax.config.update("jax_enable_preemption_service", False)
    # JAX's own timeout aborts, and does not say what was waited for.
    patience = threading.Timer(MEETING_SECONDS, _give_up, [cluster])
    patience.daemon = True
    patience.start()
    try:
        jax.distributed.initialize(
            *cluster,
            initialization_timeout=MEETING_SECONDS + 60,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=MEETING_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"the processes of the run have not met: {error}") from error
    finally:
        patience.cancel()
    _met.set()
    print(f"process {index()} of {count()}", file=sys.stderr)
    if count() > 1:
        # JAX aborts when another process ends; the stacks of this one's threads say nothing then.
        faulthandler.disable()
        print(
            "JAX calls a process a task, and process 0 the leader or the coordination service",
            file=sys.stderr,
        )


def _give_up(cluster: Cluster) -> NoReturn:
    """Ends this process, which the others have not met."""
    print(
        f"error: the processes of the run have not met within {MEETING_SECONDS} seconds: is each"
        f" of them running, and can it reach process 0 ({cluster.address or 'see --distributed'})?",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def leave() -> None:
    """Waits until all processes have come to the end."""
    joined([])


def count() -> int:
    """How many processes there are."""
    return jax.process_count() if _met.is_set() else 1


def index() -> int:
    """Which of them this is."""
    return jax.process_index() if _met.is_set() else 0


def first() -> bool:
    """Whether this is the process that writes and talks."""
    return index() == 0


def first_then_others(make: Callable[[], T]) -> T:
    """What `make` returns, called by the first process alone before the others call it too.

    For what leaves files that all of them look for, such as a download.
    """
    if not first():
        joined([])
        return make()
    made = make()
    joined([])
    return made


def share(num: int) -> range:
    """Which of `num` things this process sees to: a run of them, about as many as every other."""
    each = -(-num // count())
    return range(min(index() * each, num), min((index() + 1) * each, num))


def deal(num: int, batch_size: int) -> list[int]:
    """Which of `num` things this process sees to when all go through them in step.

    Of `n` processes, process `i` has the batches `i`, `i + n`, `i + 2n`... so that those of one
    round, one after the other, are in order.
    """
    step = batch_size * count()
    starts = range(index() * batch_size, num, step)
    return [i for start in starts for i in range(start, min(start + batch_size, num))]


def joined(items: Sequence[T]) -> list[T]:
    """The items of all processes, in the order of the processes; every process must call it."""
    if count() == 1:
        return list(items)
    from jax.experimental import multihost_utils

    mine = np.frombuffer(pickle.dumps(list(items)), np.uint8)
    sizes = [
        high << 20 | low
        for high, low in multihost_utils.process_allgather(
            np.array([len(mine) >> 20, len(mine) % (1 << 20)], np.int32)
        ).tolist()
    ]
    # Few sizes compile few programs.
    piece = min(1 << (max(sizes) - 1).bit_length(), _PIECE_BYTES)
    received = [bytearray() for _ in sizes]
    for begin in range(0, max(sizes), piece):
        some = np.zeros(piece, np.uint8)
        own = mine[begin : begin + piece]
        some[: len(own)] = own
        for whole, of_one in zip(received, multihost_utils.process_allgather(some), strict=True):
            whole += of_one.data
    # What follows a pickle's end is not looked at.
    return [item for whole in received for item in pickle.loads(whole)]


def concatenated(array: np.ndarray) -> np.ndarray:
    """The rows of all processes, in the order of the processes."""
    return array if count() == 1 else np.concatenate(joined([array]))


def agreed(value: T) -> T:
    """The value that the first process has."""
    return value if count() == 1 else joined([value] if first() else [])[0]


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Where a process of several fails, ends it without waiting for the others.

    A mistake, which is an exit with a message, is one line. Another error may be due to the end of
    another process: its traceback is printed, and JAX has time to name that process.
    """
    try:
        yield
    except SystemExit as end:
        if count() > 1 and isinstance(end.code, str):
            _end(end.code)
        raise
    except Exception as error:
        if count() == 1:
            raise
        traceback.print_exc()
        # JAX has named a process that is dead, and ended this one, by then.
        seconds = HEARTBEAT_SECONDS + 5
        _say(f"if another process has ended, JAX names it within {seconds} seconds")
        time.sleep(seconds)
        _end(f"{type(error).__name__}: {error}")


def _end(why: str) -> NoReturn:
    _say(why)
    os._exit(1)


def _say(message: str) -> None:
    print(f"process {index()}: {message}", file=sys.stderr, flush=True)
