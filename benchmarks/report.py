"""Rows of figures, printed as a table and written as JSON; the command line that all scripts share.

A script is a `measure(options, peers) -> rows` and flags of its own; `run` does the rest.
"""

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine, timing, workers

OURS = "sgfr_jax"
_COLUMNS = ("stage", "who", "median", "least - most", "x ours", "floor", "x floor", "")


class Row(NamedTuple):
    """One contender in one stage."""

    stage: str
    who: str
    seconds: list[float]  # of every repeat, per unit
    ratio: float | None = None  # of the seconds to ours; None: there is nothing to compare with
    work: machine.Work | None = None  # per unit
    note: str = ""  # what differs, what was extrapolated
    values: dict[str, Any] | None = None  # results, to see that contenders agree


Measure = Callable[[argparse.Namespace, workers.Peers], list[Row]]


def rows(
    stage: str,
    timed: Mapping[str, timing.Timed],
    *,
    per: int = 1,
    work: machine.Work | None = None,
    notes: Mapping[str, str] | None = None,
    values: Mapping[str, dict[str, Any]] | None = None,
) -> list[Row]:
    """A row for each contender of a stage; the first contender is ours, and the reference.

    Args:
      stage: its name.
      timed: from `timing.alternate`.
      per: how many units a call works on.
      work: of a unit.
      notes: by contender.
      values: by contender.
    """
    reference = next(iter(timed.values())).seconds
    return [
        Row(
            stage,
            who,
            [seconds / per for seconds in found.seconds],
            timing.ratio(found.seconds, reference),
            work,
            (notes or {}).get(who, ""),
            (values or {}).get(who),
        )
        for who, found in timed.items()
    ]


def run(
    measure: Measure,
    description: str,
    *,
    add_flags: Callable[[argparse.ArgumentParser], None],
    repeats: int | None = 5,
    argv: Sequence[str] | None = None,
) -> list[Row]:
    """Parses the flags, measures, prints the table and writes the JSON.

    Args:
      measure: what the script measures.
      description: its docstring.
      add_flags: adds its own flags to a parser.
      repeats: the default of --repeats; None: whole runs, each made once, without such a flag.
      argv: the command line; None is this process's.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", metavar="PYTHON", help="the peers' interpreter, such as "
                        ".venv-peers/bin/python; without it ours is measured alone")  # fmt: skip
    if repeats is not None:
        parser.add_argument("--repeats", type=int, default=repeats, help="(default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", type=new_file,
                        help="where every figure is written")  # fmt: skip
    parser.add_argument("--skip_floors", action="store_true", help="do not measure the floors")
    add_flags(parser)
    argv = sys.argv[1:] if argv is None else list(argv)
    options = parser.parse_args(argv)

    made_on = machine.describe()
    floors = None if options.skip_floors else machine.floors()
    print(heading(made_on, floors))
    with workers.start(options.peers) as peers:
        if not options.peers:
            print("peers: skipped, no --peers")
        found = measure(options, peers)
        versions = peers.versions()
    print(table(found, floors))
    if options.json:
        # A script that is run is called `__main__`; its file keeps its name.
        script = Path(measure.__code__.co_filename).stem
        command = shlex.join(["python", "-m", f"benchmarks.{script}", *argv])
        record = {
            "command": command,
            "machine": made_on,
            "peers": versions,
            "floors": floors and floors._asdict(),
            "rows": [_as_json(row, floors) for row in found],
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return found


def new_file(text: str) -> Path:
    """The type of a flag that names a file to write: refused before anything is measured.

    Raises:
      argparse.ArgumentTypeError: it is a directory, or its own does not exist.
    """
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a directory: name a file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {path.parent} to write it to")
    return path


def heading(made_on: Mapping[str, Any], floors: machine.Floors | None) -> str:
    """The line above a table: the machine and its floors."""
    cores = len(made_on["cores"])
    line = f"{made_on['processor']}, {cores} core{'s' * (cores > 1)}, jax {made_on['jax']}"
    if floors is None:
        return line
    rates = f"{floors.flops / 1e9:.0f} GFLOP/s float32, {floors.bandwidth / 1e9:.1f} GB/s"
    return f"{line}, load {made_on['load']:.1f}; floors: {rates}"


def table(found: Sequence[Row], floors: machine.Floors | None) -> str:
    """The rows as a Markdown table."""
    return markdown([_COLUMNS] + [_cells(row, floors) for row in found])


def markdown(cells: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the first line is its heading."""
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def duration(seconds: float) -> str:
    """Seconds in a unit that leaves one to three digits before the point."""
    for unit, scale in (("s", 1), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale or unit == "us":
            value = seconds / scale
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"
    raise AssertionError


def _cells(row, floors):
    median = statistics.median(row.seconds)
    spread = f"{duration(min(row.seconds))} - {duration(max(row.seconds))}"
    floor = over = ""
    if floors is not None and row.work is not None:
        least = machine.floor_seconds(row.work, floors)
        floor, over = duration(least), f"{median / least:.1f}"
    ratio = "" if row.ratio is None or row.who == OURS else f"{row.ratio:.2f}"
    return row.stage, row.who, duration(median), spread, ratio, floor, over, row.note


def _as_json(row, floors):
    record = row._asdict() | {"median": statistics.median(row.seconds)}
    if row.work is not None:
        record["work"] = row.work._asdict()
        if floors is not None:
            record["floor"] = machine.floor_seconds(row.work, floors)
    return record
