"""Progress with rate and time left: a bar on a terminal, a line now and then in a log."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

from sgfr_jax.commands.host import processes, terminal

SECONDS_BETWEEN_LINES = 10


@contextlib.contextmanager
def bar(title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Yields a function that is told how many more units are done; only the first process shows it.

    Args:
      title: what is being done.
      total: how many units there are.
      unit: their name.
    """
    if not processes.first():
        yield lambda more: None
        return
    if sys.stderr.isatty():
        with tqdm(
            total=total, desc=terminal.one_line(title), unit=f" {unit}", dynamic_ncols=True,
            file=terminal.control(sys.stderr),
        ) as shown:  # fmt: skip
            yield shown.update
        return

    start = last = time.monotonic()
    done = 0

    def say() -> None:
        meter = tqdm.format_meter(
            done, total, time.monotonic() - start, prefix=title, unit=f" {unit}", ncols=0
        )
        print(meter, file=sys.stderr, flush=True)

    def update(more: int) -> None:
        nonlocal done, last
        done += more
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES and done < total:
            last = time.monotonic()
            say()

    yield update
    say()
