"""Time and peak memory to the help text, to the import and to the first result.

- `help`: `python -m experiments.run --help`, against `anomalib --help`.
- `import`: `import sgfr_jax` and `import sgfr_jax.backbones`, against anomalib's models.
- `first result`: a process that loads EfficientNet-Lite0 and a made bank, and scores one image;
  with an empty persistent compilation cache (cold) and with a full one (warm).

Every process starts anew; the files are in the system's cache.

    taskset -c 0 python -m benchmarks.startup --peers=.venv-peers/bin/python
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks import processes, report, timing, workers

_STAGES = ("help", "import", "first_result")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this benchmark."""
    parser.add_argument("--stages", nargs="+", default=_STAGES, choices=_STAGES)


def measure(options: argparse.Namespace, peers: workers.Peers) -> list[report.Row]:
    """Measures the stages asked for."""
    stages = {"help": _help, "import": _import, "first_result": _first_result}
    return [row for name in options.stages for row in stages[name](options)]


def _help(options):
    commands = {report.OURS: [sys.executable, "-m", "experiments.run", "--help"]}
    if options.peers:
        commands["anomalib"] = [str(Path(options.peers).with_name("anomalib")), "--help"]
    return _rows("--help", commands, options.repeats)


def _import(options):
    commands = {
        report.OURS: [sys.executable, "-c", "import sgfr_jax"],
        "with Flax": [sys.executable, "-c", "import sgfr_jax; from flax import nnx"],
    }
    if options.peers:
        commands["anomalib"] = [options.peers, "-c", "import anomalib.models"]
    return _rows("import", commands, options.repeats)


def _first_result(options):
    command = [sys.executable, "-m", "benchmarks.first_result"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder, "full")
        processes.run([*command, str(cache)])
        commands = {report.OURS: [*command, str(cache)], "cold cache": command}
        rows = _rows("first result", commands, options.repeats)
    return [row._replace(note=_join("warm cache", row.note)) if row.who == report.OURS else row
            for row in rows]  # fmt: skip


def _rows(stage, commands, repeats):
    """Rows with the peak of the memory in the note and among the values."""
    contenders = {who: _process(command) for who, command in commands.items()}
    timed = timing.alternate(contenders, repeats=repeats)
    return report.rows(
        stage,
        timed,
        notes={who: f"{timed[who].value / 1e6:.0f} MB" for who in timed},
        values={who: {"peak_bytes": timed[who].value} for who in timed},
    )


def _process(command):
    def sample(number):
        # absl's help text ends with status 1.
        run = partial(processes.run, command, accept=1, HF_HUB_OFFLINE="1")
        finished = [run() for _ in range(number)]
        seconds = sum(one.seconds for one in finished) / number
        return timing.Sample(seconds, max(one.peak_bytes for one in finished))

    return sample


def _join(*notes):
    return ", ".join(note for note in notes if note)


if __name__ == "__main__":
    report.run(measure, __doc__, add_flags=add_flags)
