import signal
import subprocess
import sys

import pytest

SCRIPT = """
import sys, time
from experiments import interruption
interruption.exit_at_once(lambda: print("cleaned up", flush=True), "all is well")
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    "number, status, said",
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_ends_a_command_with_a_line(number, status, said):
    started = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert started.stdout.readline() == "ready\n"
    started.send_signal(number)
    output, errors = started.communicate(timeout=60)
    assert started.returncode == status
    assert (output, errors) == ("cleaned up\n", f"\n{said}: all is well\n")
