"""`experiments.run` in a process of its own, on fake devices, which may be killed at sampling.

python -m tests.commands.host.on_devices {live,die} FLAGS...
"""

import os
import signal
import sys

from absl import app

from sgfr_jax.commands import run
from sgfr_jax.commands.host import devices, processes
from sgfr_jax.detector import synthetic

# Of the demo, small: 8 x 8 patches of 40 images in one bank, more than k-center's pools hold.
FLAGS = (
    "--dataset=demo", "--category=brick", "--image_size=128", "--shots=40", "--bank_size=30",
    "--num_neighbors=5", "--num_figures=1", "--cache_dir=", "--save_model",
)  # fmt: skip


def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    moment, *flags = sys.argv[1:]
    processes.HEARTBEAT_SECONDS = 10
    # Few and large defects, so that weighing takes seconds.
    synthetic.SIZES = (0.4,)
    synthetic.draw.__kwdefaults__["copies"] = 1
    if moment == "die":
        devices.choose = die
    app.run(run.main, argv=["experiments.run", *FLAGS, *flags])
