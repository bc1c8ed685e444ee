"""Batches of images, read by threads of this process or by worker processes.

Decoding and resizing let go of the interpreter's lock for most of their time: 73 % for images of
200 x 400 pixels, 87 % for JPEGs of 1024 x 1024. So threads, which start at once, keep a few cores
busy. Many need processes. These are Grain's, each of which takes a second to start and 115 MB of
its own, and Grain is not imported before they are asked for. Either way the batches are the same,
bit for bit.
"""

import contextlib
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sgfr_jax.datasets.images import Loaded
from sgfr_jax.datasets.types import DatasetError, Example

Read = Callable[[Example], Loaded]

_SHARED_MEMORY = Path("/dev/shm")
# Of one worker, in shared memory at a time: being filled, waiting, taken, and being released.
_BATCHES_IN_FLIGHT = 4
# What Grain says of a worker that has died.
_DIED = "terminated unexpectedly"


class Batch(NamedTuple):
    """Some images of a data set, and zeros up to the size of a batch."""

    images: np.ndarray  # uint8 [B, H, W, 3]
    masks: np.ndarray  # bool [B, H, W]; False where not known
    masked: np.ndarray  # bool [B]: whether it is known where a defect is
    valid: np.ndarray  # bool [B]; False: padded, or could not be read
    indices: np.ndarray  # int64 [B], into the examples; -1: padded
    errors: tuple[DatasetError | None, ...]  # B: why an example could not be read


def batches(
    examples: Sequence[Example],
    read: Read,
    *,
    size: tuple[int, int],
    batch_size: int,
    workers: int = 0,
    shard: tuple[int, int] = (0, 1),
    seed: int | None = None,
) -> Iterator[Batch]:
    """Returns the batches of a share of the examples, reading ahead.

    What is wrong with an example is in its row of `errors` instead of being raised. Memory holds
    two batches, or four for each worker, and one image at its own size for each thread or worker,
    however many images there are. Closing the iterator ends what reads ahead; workers end with
    this process, however it ends.

    Of `n` shares, share `i` has the batches `i`, `i + n`, `i + 2n`... of all; the last are padded,
    wholly where need be, so that every share has as many batches. The `n` batches read at a time,
    one after the other, are thus in the order of the examples.

    Args:
      examples: what to read. Where one holds an array there is little to read and much to send to
        a worker: then threads read, whatever `workers` says.
      read: gives the pixels of an example, as `images.read_example` with its size bound by
        `functools.partial` does; raises `DatasetError`. For workers it must pickle.
      size: height and width of what `read` gives.
      batch_size: rows of a batch (B).
      workers: the number of processes, which start anew (`spawn`), so that a script needs the usual
        `if __name__ == "__main__"`; 0: threads of this process, one for each core.
      shard: this process's share and how many there are, `(i, n)`.
      seed: shuffles the examples, before they are shared; None keeps their order.

    Raises:
      ValueError: at once, if an argument is out of range; later, if `read` gives another size.
      OSError: shared memory is too small for the workers; later, if one of them was killed.
    """
    index, count = shard
    if batch_size < 1 or workers < 0 or not 0 <= index < count:
        raise ValueError(
            f"batch_size={batch_size} must be at least 1, workers={workers} at least 0, and"
            f" shard={shard} a share and the number of shares."
        )
    rows = _rows(len(examples), batch_size, shard, seed)
    row = partial(_read_row, examples, read)
    stack = partial(_stack, size=tuple(size))
    if not workers or any(_in_memory(example) for example in examples):
        return _in_threads(rows, row, stack)
    workers = min(workers, len(rows))
    _check_shared_memory(workers * _BATCHES_IN_FLIGHT * batch_size * size[0] * size[1] * 4)
    return _in_processes(rows, row, stack, workers)


def end_workers() -> None:
    """Kills all workers of this process, for who is about to leave by `os._exit`.

    They would end by themselves, but one that has not quite started would leave a traceback.
    """
    import psutil

    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it has ended
            if "spawn_main" in " ".join(child.cmdline()):
                child.suspend()
                _wait_until_stopped(child)
                held = _held(child)
                child.kill()
                _remove(held)


def _wait_until_stopped(process) -> None:
    for _ in range(100):
        if process.status() == "stopped":
            return
        time.sleep(0.001)


def _held(process) -> list[str]:
    """What a process has open in shared memory.

    The tracker removes what it has been told of; a worker may die just before it tells.
    """
    return [f.path for f in process.open_files() if Path(f.path).parent == _SHARED_MEMORY]


def _remove(paths: Sequence[str]) -> None:
    for path in paths:
        Path(path).unlink(missing_ok=True)


def _rows(num: int, batch_size: int, shard: tuple[int, int], seed: int | None) -> np.ndarray:
    """The indices of every batch of a share, `[T, B]`, -1 where padded."""
    order = np.arange(num) if seed is None else np.random.default_rng(seed).permutation(num)
    index, count = shard
    missing = -num % (batch_size * count)
    padded = np.concatenate([order, np.full(missing, -1)])
    return padded.reshape(-1, count, batch_size)[:, index]


def _in_memory(example: Example) -> bool:
    return isinstance(example.image, np.ndarray) or isinstance(example.mask, np.ndarray)


def _read_row(examples: Sequence[Example], read: Read, index: int):
    if index < 0:
        return int(index), None
    try:
        return int(index), read(examples[index])
    except DatasetError as error:
        return int(index), error


def _stack(rows: Sequence[tuple], *, size: tuple[int, int]) -> Batch:
    num = len(rows)
    made = Batch(
        images=np.zeros((num, *size, 3), np.uint8),
        masks=np.zeros((num, *size), bool),
        masked=np.zeros(num, bool),
        valid=np.zeros(num, bool),
        indices=np.array([index for index, _ in rows], np.int64),
        errors=tuple(found if isinstance(found, DatasetError) else None for _, found in rows),
    )
    for i, (_, found) in enumerate(rows):
        if not isinstance(found, Loaded):
            continue
        if found.image.shape != (*size, 3):
            raise ValueError(f"read gave an image of shape {found.image.shape}, not {(*size, 3)}.")
        made.valid[i] = True
        made.images[i] = found.image
        if found.mask is not None:
            made.masked[i] = True
            made.masks[i] = found.mask
    return made


def _in_threads(rows: np.ndarray, row: Callable, stack: Callable) -> Iterator[Batch]:
    pool = ThreadPoolExecutor(_num_cores(), thread_name_prefix="batches")
    pending = deque()
    try:
        for indices in rows:
            pending.append([pool.submit(row, index) for index in indices])
            if len(pending) == 2:
                yield stack([future.result() for future in pending.popleft()])
        for futures in pending:
            yield stack([future.result() for future in futures])
    finally:
        pool.shutdown(cancel_futures=True)


def _in_processes(rows: np.ndarray, row: Callable, stack: Callable, workers: int) -> Iterator:
    import grain  # half a second, and only workers need it
    from absl import flags

    if not flags.FLAGS.is_parsed():  # in a script without absl, where Grain's flags are as defined
        flags.FLAGS.mark_as_parsed()
    _start_quiet_tracker()
    batched = (
        grain.MapDataset.source(rows.reshape(-1)).map(row).batch(rows.shape[1], batch_fn=stack)
    )
    # A worker reads one image at a time: more at once would hold more in memory.
    dataset = batched.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
    iterator = iter(dataset.mp_prefetch(options, _end_with_parent))
    # Grain is called from one thread that Ctrl-C does not reach, as its workers inherit that: it
    # is for this process to answer, and a worker's traceback would come in between.
    caller = ThreadPoolExecutor(1, "batches", initializer=_block_interrupts)
    try:
        for _ in rows:
            yield _own(caller.submit(next, iterator).result())
    except RuntimeError as error:
        if _DIED not in str(error):
            raise
        raise ChildProcessError(
            f"a worker process that reads images has died ({error}); if memory ran out, fewer"
            " workers, or none, need less"
        ) from error
    finally:
        # Workers take up to a second to notice; nobody need wait for them. At the interpreter's
        # end Grain closes by itself what can no longer be submitted.
        with contextlib.suppress(RuntimeError):
            caller.submit(iterator.close)
        caller.shutdown(wait=False)


def _own(batch: Batch) -> Batch:
    """The same out of shared memory, of which there may be little, with a file open for each."""
    arrays = (np.array(x, subok=False) for x in batch[:-1])
    return Batch(*arrays, batch.errors)


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_shared_memory(needed: int) -> None:
    """Refuses what would end in a bus error; containers often have no more than 64 MB."""
    if _SHARED_MEMORY.exists() and (free := shutil.disk_usage(_SHARED_MEMORY).free) < needed:
        raise OSError(
            f"{_SHARED_MEMORY} has {free / 1e6:.0f} MB free and the workers that read images may"
            f" need {needed / 1e6:.0f}: enlarge it (docker run --shm-size), or take fewer workers,"
            " or none"
        )


def _start_quiet_tracker() -> None:
    """Starts the process that removes what a killed one leaves in shared memory.

    It would warn of all that it removes, after a Ctrl-C too.
    """
    before = os.environ.get("PYTHONWARNINGS")
    quiet = "ignore:resource_tracker:UserWarning"
    os.environ["PYTHONWARNINGS"] = quiet if before is None else f"{before},{quiet}"
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def _block_interrupts() -> None:
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _end_with_parent(index: int, count: int) -> None:
    """Called in a worker: ends it when the process that reads from it is gone, even if killed."""
    del index, count
    import psutil

    def wait():
        multiprocessing.parent_process().join()
        with contextlib.suppress(psutil.Error):
            _remove(_held(psutil.Process()))
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
