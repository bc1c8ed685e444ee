"""One process of several that fail: no network, no images, only what processes do together.

python -m tests.commands.host.failing_together HOST:PORT NUM_PROCESSES PROCESS_ID MOMENT

`live` exchanges numbers until another process ends it, `abort` does so and then aborts, as native
code may; `die`, `mistake` and `crash` fail once all processes have met.
"""

import ctypes
import os
import signal
import sys
import time
import traceback

from sgfr_jax.detector.choices import ConfigError

from sgfr_jax.commands.host import processes


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def mistake():
    raise ConfigError("this image is bad")


def crash():
    raise RuntimeError("something odd")


def live():
    while True:
        processes.joined([processes.index()])
        time.sleep(0.1)


if __name__ == "__main__":
    address, num, number, moment = sys.argv[1:]
    processes.HEARTBEAT_SECONDS = 10
    if moment == "abort":
        # Called through ctypes it lets other threads of Python go on, as native code's own does.
        traceback.print_exc, moment = ctypes.CDLL(None).abort, "live"
    with processes.ending_together(lambda error: isinstance(error, ConfigError)):
        processes.join(processes.Cluster(address, int(num), int(number)))
        processes.joined([number])
        globals()[moment]()
