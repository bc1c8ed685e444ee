"""What Ctrl-C and SIGTERM do: end the run at once, leaving nothing half done."""

import os
import signal
import sys
from collections.abc import Callable

from sgfr_jax.commands.files import locking

RESUMED = "the same command goes on after the last finished category"
# What says so, by the signal: schedulers, containers and `timeout` send the second.
_SAID = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def exit_at_once(clean_up: Callable[[], None], what_next: str = RESUMED) -> None:
    """Answers Ctrl-C and SIGTERM with a line and the shell's exit status, 130 or 143.

    Everything that lasts is written under a temporary name and renamed, so there is nothing to
    finish. An exception would have to unwind through compiled programs whose threads still run,
    and the interpreter crashed on its way out about once in five times.

    Args:
      clean_up: called before; removes temporary files.
      what_next: what the line tells the user.
    """

    def answer(number, frame):
        del frame
        for other in _SAID:  # one answer is enough
            signal.signal(other, signal.SIG_IGN)
        try:
            clean_up()
            locking.let_go()
            os.write(sys.stderr.fileno(), f"\n{_SAID[number]}: {what_next}\n".encode())
        finally:
            os._exit(128 + number)

    for number in _SAID:
        signal.signal(number, answer)
