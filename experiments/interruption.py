"""What Ctrl-C does: ends the run at once, leaving nothing half done."""

import os
import signal
import sys
from collections.abc import Callable

RESUMED = "the same command goes on after the last finished category"


def exit_at_once(clean_up: Callable[[], None], what_next: str = RESUMED) -> None:
    """Answers an interrupt with a line and exit status 130, without Python's way out.

    Everything that lasts is written under a temporary name and renamed, so there is nothing to
    finish. An exception would have to unwind through compiled programs whose threads still run,
    and the interpreter crashed on its way out about once in five times.

    Args:
      clean_up: called before; removes temporary files.
      what_next: what the line tells the user.
    """

    def answer(number, frame):
        del number, frame
        try:
            clean_up()
            os.write(sys.stderr.fileno(), f"\ninterrupted: {what_next}\n".encode())
        finally:
            os._exit(130)

    signal.signal(signal.SIGINT, answer)
