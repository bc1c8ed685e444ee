"""The processes of a run, one for each host: what each does, what they share, and how they end.

All run the same program in step. Each reads, embeds and scores its own share of the images; what
all must know goes through `joined`; the first alone writes. A process that fails, or is killed,
ends the others within two minutes, with a message that names it.

Where there is one process, all of this is done at once and costs nothing.
"""

import contextlib
import ctypes
import os
import pickle
import re
import secrets
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.host import lifelines, terminal

T = TypeVar("T")

# A process that has not been heard of for so long is taken for dead.
HEARTBEAT_SECONDS = 30
# How long the processes wait for each other at the start, and at the end.
MEETING_SECONDS = 100
_POLL_SECONDS = 1
# How long a process that has come to the end waits for its own watchers.
_PARTING_SECONDS = 5
# How long process 0, which keeps it, leaves the others to read what has been said.
_READING_SECONDS = 2
# What `joined` sends at a time: every device of every process receives as much of each process.
_PIECE_BYTES = 1 << 24
# Where a process that fails leaves its last words.
_FAILED = "sgfr_jax/failed"
# Where process 0 says at which port it can be called, and with which token.
_LIFELINE = "sgfr_jax/lifeline"

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
    _delay_aborts()
    # Else JAX takes SIGTERM for a notice and goes on.
    jax.config.update("jax_enable_preemption_service", False)
    # JAX's own timeout aborts.
    patience = threading.Timer(MEETING_SECONDS, _end, [
        f"error: the processes of the run have not met within {MEETING_SECONDS} seconds: is each"
        f" of them running, and can it reach process 0 ({cluster.address or 'see --distributed'})?"
    ])  # fmt: skip
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
    if count() > 1:
        for watcher in _watchers:
            watcher.start()
    print(f"process {index()} of {count()}", file=sys.stderr)


def leave() -> None:
    """Waits until all processes have come to the end: from here on none misses another."""
    if count() == 1:
        return
    joined([])
    _ended.set()
    for watcher in _watchers:
        # One may ask for what the others, who have come to the end, do not answer any more.
        watcher.join(_PARTING_SECONDS)


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
def ending_together(foreseen: Callable[[Exception], bool]) -> Iterator[None]:
    """Where a process of several fails, tells the others why, and ends at once.

    Args:
      foreseen: whether an error's message says everything.
    """
    try:
        yield
    except Exception as error:
        if count() == 1:
            raise
        if foreseen(error):
            _fail(f"error: {error}")
        traceback.print_exc()
        # Another's end may be the cause, and is found out by then.
        time.sleep(HEARTBEAT_SECONDS + 10)
        _fail(f"{type(error).__name__}: {error}")


def _fail(message: str) -> None:
    _ended.set()
    why = f"process {index()}: {message}"
    print(why, file=sys.stderr, flush=True)
    # Process 0 may end on these words before it has answered, and no answer would then come.
    saying = threading.Thread(target=_say, args=(why,), daemon=True)
    saying.start()
    saying.join(_READING_SECONDS)
    if first():
        time.sleep(_READING_SECONDS)
    os._exit(1)


def _say(why: str) -> None:
    with contextlib.suppress(Exception):  # another has failed too
        _state().client.key_value_set(_FAILED, why)


def _state():
    # What JAX itself, and libraries on top of it, keep under this name.
    from jax._src import distributed

    return distributed.global_state


def _watch_failures() -> None:
    """Ends this process as soon as another one has failed."""
    while not _ended.is_set():
        with contextlib.suppress(Exception):  # nobody has failed in this second
            _end(_state().client.blocking_key_value_get(_FAILED, 1000 * _POLL_SECONDS))


def _watch_hosts() -> None:
    """Ends this process as soon as another one has not been heard of for long."""
    everyone = list(range(count()))
    while not _ended.is_set():
        with contextlib.suppress(Exception):  # process 0 cannot be asked: `_watch_lines` knows why
            for number in set(everyone) - set(_state().client.get_live_nodes(everyone)):
                _end(f"process {number}: not heard of for {HEARTBEAT_SECONDS} seconds")
        _ended.wait(_POLL_SECONDS)


def _watch_lines() -> None:
    """Ends this process soon after the first one has ended, or as the first after any other."""
    client = _state().client
    host, _, where_jax_meets = _state().coordinator_address.rpartition(":")
    if first():
        token = secrets.token_bytes(lifelines.TOKEN_BYTES)
        try:
            listening = lifelines.listener()
        except OSError:  # then the others find a port that answers nothing
            client.key_value_set(_LIFELINE, f"0 {token.hex()}")
            return
        client.key_value_set(_LIFELINE, f"{listening.getsockname()[1]} {token.hex()}")
        lifelines.watch(listening, token, _miss, _ended)
        return
    try:
        port, token = client.blocking_key_value_get(_LIFELINE, 1000 * MEETING_SECONDS).split()
        address, words = (
            (host.strip("[]"), int(port)),
            lifelines.hello(bytes.fromhex(token), index()),
        )
        if not lifelines.answers(address, HEARTBEAT_SECONDS):  # other hosts may be kept from it
            address, words = (address[0], int(where_jax_meets)), b""
        lifelines.stay(address, words, HEARTBEAT_SECONDS, _ended)
    except (OSError, RuntimeError):  # of sockets, and of JAX
        _end("process 0: has ended, or cannot be reached")


def _miss(number: int) -> None:
    """Ends this process, the first, and thereby all, as one has ended without a word."""
    why = f"process {number}: has ended"
    _say(why)  # unless it has left a word itself
    time.sleep(_READING_SECONDS)
    _end(why)


def _end(why: str) -> None:
    if not _ended.is_set():
        said = f"\n{terminal.plain(why)}\n".encode(errors="backslashreplace")
        os.write(sys.stderr.fileno(), said)
        os._exit(1)


_met, _ended = threading.Event(), threading.Event()
_watchers = [
    threading.Thread(target=watch, daemon=True)
    for watch in (_watch_failures, _watch_hosts, _watch_lines)
]


def _delay_aborts() -> None:
    """Makes an abort wait for six seconds, in which another thread can say what has happened.

    JAX aborts when process 0 is gone, and calls it the leader task; what exchanges arrays between
    processes may abort when any is. The number of the signal is 6, and `sleep` a handler that
    other signals' safety rules allow.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))
