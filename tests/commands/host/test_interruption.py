import signal
import subprocess
import sys

import pytest

from sgfr_jax.commands.files import locking

SCRIPT = """
import sys, time
from sgfr_jax.commands.host import interruption
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


HOLDING = """
import sys, time
from pathlib import Path
from sgfr_jax.commands.files import locking
from sgfr_jax.commands.host import interruption
interruption.exit_at_once(lambda: None)
own, lost = map(Path, sys.argv[1:])
with locking.held(own, "it"), locking.held(lost, "it"):
    locking.beside(lost).unlink()
    locking.beside(lost).write_text("of someone else")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_own_lock_files_go_with_the_command(tmp_path):
    places = [tmp_path / "own", tmp_path / "lost"]
    started = subprocess.Popen([sys.executable, "-c", HOLDING, *places], stdout=subprocess.PIPE)
    assert started.stdout.readline() == b"ready\n"
    assert len(list(tmp_path.iterdir())) == 2
    started.terminate()
    started.communicate(timeout=60)
    assert list(tmp_path.iterdir()) == [locking.beside(places[1])]
    assert locking.beside(places[1]).read_text() == "of someone else"
