"""Whole processes: how long they take and how much memory they hold at their peak."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).parent.parent
_LAUNCHER = [sys.executable, "-S", str(Path(__file__).with_name("launcher.py"))]


class Finished(NamedTuple):
    """A process that ended well."""

    seconds: float
    peak_bytes: int  # resident


def run(command: Sequence[str], *, accept: int = 0, **environment: str) -> Finished:
    """Runs a command in the checkout and waits for it.

    Args:
      command: the program and its arguments.
      accept: the largest exit status that is no failure.
      **environment: variables to set.

    Raises:
      RuntimeError: it failed; the message has the end of what it wrote.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        finished = subprocess.run(
            [*_LAUNCHER, str(report), *command],
            cwd=_ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output = finished.stdout.decode(errors="replace")
        if finished.returncode:
            raise RuntimeError(f"{' '.join(command)} could not be started:\n{output}")
        status, seconds, peak_bytes = json.loads(report.read_text())
    if not 0 <= status <= accept:
        raise RuntimeError(f"{' '.join(command)} exited with {status}:\n{output[-2000:]}")
    return Finished(seconds, peak_bytes)
