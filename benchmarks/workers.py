"""The peers, in an interpreter of their own that does one thing at a time, when asked.

Requests and answers are lines of JSON on the worker's input and output; arrays travel in `.npy`
files. The worker times itself, so the travelling costs nothing. See `peers/worker.py`.
"""

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import timing

_ROOT = Path(__file__).parent.parent
# No hub is asked for anything; neither warnings nor progress bars mix with the tables.
_QUIET = {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "TQDM_DISABLE": "1"}


class Peers:
    """A running worker, or none, of which nothing can be had."""

    def __init__(self, process: subprocess.Popen | None, folder: Path):
        """Made by `start`."""
        self._process = process
        self._folder = folder
        self._files = 0

    @property
    def present(self) -> bool:
        """Whether there is a worker."""
        return self._process is not None

    def contender(self, name: str, target: str, **arguments: Any) -> dict[str, timing.Contender]:
        """A peer's way of doing something, as `{name: contender}`; empty if it cannot be had.

        What is missing is printed.

        Args:
          name: of the contender.
          target: `module:function` in `benchmarks.peers`: a function of the arguments that does
            what happens once, and returns a function that does what is timed.
          **arguments: what JSON can hold, and arrays.
        """
        if not self.present:
            return {}
        given = {key: self._pack(value) for key, value in arguments.items()}
        answer = self._ask({"make": target, "arguments": given})
        if "missing" in answer:
            print(f"{name}: skipped, {answer['missing']}")
            return {}
        handle = answer["handle"]

        def sample(number: int) -> timing.Sample:
            answer = self._ask({"run": handle, "number": number})
            return timing.Sample(answer["seconds"], self._unpack(answer["value"]))

        return {name: sample}

    def forget(self) -> None:
        """Frees what the contenders made so far hold; they cannot be called any more."""
        if self.present:
            self._ask({"forget": True})

    def versions(self) -> dict[str, str] | None:
        """The versions of the peers that are installed; None without a worker."""
        return self._ask({"versions": True}) if self.present else None

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the peers' worker ended; its message is above")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"the peers' worker failed:\n{answer['error']}")
        return answer

    def _pack(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        path = self._folder / f"{self._files}.npy"
        self._files += 1
        np.save(path, value)
        return {"array": str(path)}

    def _unpack(self, value: Any) -> Any:
        if isinstance(value, dict) and value.keys() == {"array"}:
            return np.load(value["array"])
        return value


@contextlib.contextmanager
def start(python: str | None) -> Iterator[Peers]:
    """Starts a worker in an interpreter, on the same cores as this process; ends it on leaving.

    Args:
      python: its path; None for no worker.
    """
    with tempfile.TemporaryDirectory() as folder:
        if python is None:
            yield Peers(None, Path(folder))
            return
        command = [python, "-m", "benchmarks.peers.worker", folder]
        environment = os.environ | _QUIET
        process = subprocess.Popen(
            command, cwd=_ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            yield Peers(process, Path(folder))
        finally:
            process.stdin.close()
            process.wait()
