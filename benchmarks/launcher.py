"""Runs a command and prints its exit status, seconds and peak memory; run by `processes`, by path.

Standing between a benchmark and what it measures: Linux counts what a process held before it became
another program towards the peak, so a child of a large process looks as large as that one.
"""

import json
import os
import subprocess
import sys
import time

# `ru_maxrss` is in kilobytes on Linux and in bytes on macOS.
_UNIT = 1 if sys.platform == "darwin" else 1024


def main(report: str, command: list[str]) -> None:
    """Waits for the command and writes what it took to a file."""
    start = time.perf_counter()
    process = subprocess.Popen(command)
    # Unlike `getrusage(RUSAGE_CHILDREN)`, this tells of one child.
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    with open(report, "w") as file:
        json.dump([process.returncode, seconds, usage.ru_maxrss * _UNIT], file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
