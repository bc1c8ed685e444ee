"""`experiments.run` in a process of its own, on fake devices, which may fail at sampling.

python -m tests.experiments.on_devices {live,abort,die,mistake,crash} FLAGS...

`abort` lives until another process fails, and aborts then, as native code may.
"""

import os
import signal
import sys
import traceback

from absl import app

from experiments import processes, run, sampling, synthetic
from sgfr_jax.datasets import DatasetError

# Of the demo, small: 8 x 8 patches of 40 images in one bank, more than k-center's pools hold.
FLAGS = (
    "--dataset=demo", "--category=brick", "--image_size=128", "--shots=40", "--bank_size=30",
    "--num_neighbors=5", "--num_figures=1", "--cache_dir=", "--save_model",
)  # fmt: skip


def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)


def mistake(*args):
    raise DatasetError("this image is bad")


def crash(*args):
    raise RuntimeError("something odd")


if __name__ == "__main__":
    moment, *flags = sys.argv[1:]
    processes.HEARTBEAT_SECONDS = 10
    # Few and large defects, so that weighing takes seconds.
    synthetic.SIZES = (0.4,)
    synthetic.draw.__kwdefaults__["copies"] = 1
    if moment == "abort":
        traceback.print_exc = os.abort
    elif moment != "live":
        sampling._sample_spread = globals()[moment]
    app.run(run.main, argv=["experiments.run", *FLAGS, *flags])
