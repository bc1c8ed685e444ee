"""Chooses the defaults of `experiments.run` without a test image, by `experiments.select`.

    python -m benchmarks.defaults --mtd=../shared/data/mtd --workdir=runs/defaults

One flag after the other is changed and the rest left as it is. Every candidate is scored on the
validation images of MTD, the demo and the imitations, of several splits of each. The default stays
where it is within one standard error of the best, or within half a point (`--least_gain`); else the
first alternative that is takes its place (`select.compare`; every data set and split counts as one
repeat). `docs/results.md` has a table. An interrupted command goes on where it stopped;
`--data=demo` scores one data set alone.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.imitations import products
from sgfr_jax.commands import select
from sgfr_jax.commands.files import inputs, records
from sgfr_jax.commands.flags import config, starting
from sgfr_jax.commands.host import environment, machine

_FOUR = "block2@{0}+block4@{0}+block10@{0}+block14@{0}"
ALTERNATIVES = {
    "layers": (_FOUR.format(1.5), f"{_FOUR.format(1)}+{_FOUR.format(1.5)}", "fast"),
    "solver": ("nearest",),
    "num_neighbors": ("5",),
    "halo": ("0.1", "0.3"),
    "breadth": ("0.0", "0.5"),
    "image_prior": ("0.0",),
}
DATA = ("mtd", "demo", "imitation")
_SHARE = 0.2
_CACHE_BYTES = 20 << 30
_FILE = "criteria.json"


def points(base: config.Config) -> list[tuple[str, config.Config]]:
    """The defaults, and every alternative alone."""
    found = [("default", config.resolve(base))]
    for flag, values in ALTERNATIVES.items():
        found += select.parse_grid(f"{flag}={'|'.join(values)}", base)
    return found


def score(base: config.Config, workdir: Path, cache_dir: Path | None, repeats: int) -> None:
    """Scores every point on one data set, and keeps its criteria `[P, R]` in the work directory."""
    candidates = points(base)
    records.open_workdir(workdir)
    categories = inputs.load_data(candidates[0][1])
    resources = machine.Resources(workdir, cache_dir=cache_dir, cache_bytes=_CACHE_BYTES)
    _, rows = select.select(candidates, categories, resources, share=_SHARE, repeats=repeats)
    criteria = {
        row["point"]: [select.criterion_of(found) for found in row["repeats"]] for row in rows
    }
    records.write(workdir / _FILE, _made(repeats)._replace(criteria=criteria)._asdict())


class _Scored(NamedTuple):
    """What is kept of a data set."""

    repeats: int
    alternatives: dict[str, list[str]]
    code: str
    criteria: dict[str, list[float]]  # of every point, of every repeat


def _made(repeats: int) -> _Scored:
    """What numbers have in common that may stand in one table."""
    alternatives = {flag: list(values) for flag, values in ALTERNATIVES.items()}  # as JSON has it
    return _Scored(repeats, alternatives, environment.source(), {})


def scored(workdir: Path, repeats: int) -> dict[str, dict[str, list[float]]]:
    """The criteria of every data set that has been scored by this code, in as many repeats."""
    found, wanted = {}, _made(repeats)
    for name in DATA:
        path = workdir / name / _FILE
        kept = records.read_whole(path, _Scored)
        if kept is None:
            continue
        if kept._replace(criteria={}) == wanted:
            found[name] = kept.criteria
        else:
            print(f"{path} is of other code or other repeats: left out", file=sys.stderr)
    return found


def table(criteria: Mapping[str, Mapping[str, Sequence[float]]], least_gain: float) -> str:
    """The choice for every flag, as Markdown and in percent.

    Args:
      criteria: of every data set, of every point, of every repeat.
      least_gain: of `select.compare`, in percent.
    """
    sets = list(criteria)
    lines = [
        f"| flag | value | {' | '.join(sets)} | mean | behind | chosen |",
        "|---|---|" + "---|" * (len(sets) + 3),
    ]
    for flag, values in ALTERNATIVES.items():
        titles = ["default", *(f"{flag}={value}" for value in values)]
        of_sets = 100 * np.array([[criteria[name][title] for title in titles] for name in sets])
        compared = select.compare(np.concatenate(of_sets, axis=1), least_gain)
        for number, title in enumerate(titles):
            alone = " | ".join(f"{of.mean():.1f}" for of in of_sets[:, number])
            behind = f"{compared.behind[number]:.2f} ± {compared.error[number]:.2f}"
            chosen = "yes" if number == compared.winner else ""
            value = title.removeprefix(f"{flag}=")
            cells = (value, alone, f"{compared.mean[number]:.2f}", behind, chosen)
            lines.append(f"| `--{flag}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _where(name: str, mtd: str | None, workdir: Path) -> dict[str, str | None]:
    """The flags by which a data set is found; imitations are written into the work directory."""
    if name != "imitation":
        return {"dataset": name, "data_dir": mtd if name == "mtd" else None}
    directory = workdir / "imitations"
    if not directory.exists():
        products.write(directory, 0)
    return {"dataset": "folder", "data_dir": str(directory)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Scores what is asked for, then prints the table of all that was scored."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--mtd", help="MTD's directory; without it the other data sets serve")
    parser.add_argument("--data", help=f"which to score now, of {','.join(DATA)}; all by default")
    parser.add_argument("--repeats", type=int, default=2, help="splits of each data set")
    parser.add_argument(
        "--least_gain", type=float, default=0.5,
        help="how many points of the criterion, in percent, an alternative must be ahead",
    )  # fmt: skip
    parser.add_argument("--workdir", type=Path, default=Path("runs/defaults"))
    parser.add_argument("--cache_dir", type=Path, help="keeps embeddings here")
    options = parser.parse_args(arguments)
    there = [name for name in DATA if options.mtd or name != "mtd"]
    names = options.data.split(",") if options.data else there
    if not set(names) <= set(DATA):
        parser.error(f"--data={options.data}: they are {', '.join(DATA)}, commas between")
    if "mtd" in names and not options.mtd:
        parser.error("--data=mtd needs --mtd=DIR")
    if options.repeats < 1:
        parser.error(f"--repeats={options.repeats}: there must be one at least")
    if not options.least_gain >= 0:
        parser.error(f"--least_gain={options.least_gain}: it must not be negative")
    workdir = options.workdir.expanduser()
    with starting.exit_on_mistakes(f"--workdir={workdir}"):
        for name in names:
            # The faster of the looks of `--geometry=auto`; what is chosen holds for both.
            base = config.Config.of(**_where(name, options.mtd, workdir), geometry="square")
            score(base, workdir / name, options.cache_dir, options.repeats)
        print(table(scored(workdir, options.repeats), options.least_gain))


if __name__ == "__main__":
    main()
