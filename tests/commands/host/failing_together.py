"""One process of several that fail: no network, no images, only what processes do together.

python -m tests.commands.host.failing_together HOST:PORT NUM_PROCESSES PROCESS_ID MOMENT

`exchange` sends numbers to the others until another process ends it, `compute` has no need of the
others; `die`, `hang`, `mistake` and `crash` fail once all processes have met.
"""

import os
import signal
import sys
import time

from sgfr_jax.commands.host import processes


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def hang():
    os.kill(os.getpid(), signal.SIGSTOP)


def mistake():
    sys.exit("error: this image is bad")


def crash():
    raise RuntimeError("something odd")


def exchange():
    while True:
        processes.joined([processes.index()])
        time.sleep(0.1)


def compute():
    while True:
        time.sleep(0.1)


if __name__ == "__main__":
    address, num, number, moment = sys.argv[1:]
    processes.HEARTBEAT_SECONDS = 10
    with processes.ending_together():
        processes.join(processes.Cluster(address, int(num), int(number)))
        processes.joined([number])
        globals()[moment]()
