"""Chooses the defaults of `experiments.run` without a test image, by `experiments.select`.

    python -m benchmarks.defaults --mtd=../shared/data/mtd --repeats=2 --workdir=runs/defaults

One flag after the other is changed and the rest left as it is. Every candidate is scored on the
validation images of MTD, the demo and the imitations; the default stays unless the best is more
than one standard error ahead in the mean over these and the repeats (`select.compare`).
`docs/results.md` has the table. An interrupted command goes on where it stopped, and `--data=mtd`
does one data set's part alone; the table takes all that is there.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments import config, frozen, records, run, select, validation

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
    categories = run.load_data(candidates[0][1])
    asked = frozen.question(candidates, categories, _SHARE, repeats, validation.SIZES)
    resources = run.Resources(workdir, cache_dir=cache_dir)
    _, rows = select.select(candidates, categories, resources, asked, share=_SHARE, repeats=repeats)
    criteria = {
        row["point"]: [select.criterion_of(found) for found in row["repeats"]] for row in rows
    }
    records.write_json(workdir / _FILE, criteria)


def table(criteria: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """The choice for every flag, as Markdown and in percent.

    Args:
      criteria: of every data set, of every point, of every repeat.
    """
    sets = list(criteria)
    lines = [
        f"| flag | value | {' | '.join(sets)} | mean | behind | chosen |",
        "|---|---|" + "---|" * (len(sets) + 3),
    ]
    for flag, values in ALTERNATIVES.items():
        titles = ["default", *(f"{flag}={value}" for value in values)]
        of_sets = 100 * np.array([[criteria[name][title] for title in titles] for name in sets])
        compared = select.compare(np.concatenate(of_sets, axis=1))
        for number, title in enumerate(titles):
            alone = " | ".join(f"{of.mean():.1f}" for of in of_sets[:, number])
            behind = f"{compared.behind[number]:.2f} ± {compared.error[number]:.2f}"
            chosen = "yes" if number == compared.winner else ""
            value = title.removeprefix(f"{flag}=")
            cells = (value, alone, f"{compared.mean[number]:.2f}", behind, chosen)
            lines.append(f"| `--{flag}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Scores what is asked for, then prints the table of all that was scored."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mtd", help="the directory of MTD; without it the other sets are used")
    parser.add_argument("--data", default=",".join(DATA), help="which data sets to score on now")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--workdir", type=Path, default=Path("runs/defaults"))
    parser.add_argument("--cache_dir", type=Path)
    options = parser.parse_args(arguments)
    for name in options.data.split(","):
        if name == "mtd" and not options.mtd:
            print("no --mtd: the table is of the other data sets", file=sys.stderr)
            continue
        base = config.Config(dataset=name, data_dir=options.mtd if name == "mtd" else None)
        # The faster of the looks of `--geometry=auto`; what is chosen holds for both.
        base = dataclasses.replace(base, geometry="square")
        score(base, options.workdir / name, options.cache_dir, options.repeats)
    there = {name: options.workdir / name / _FILE for name in DATA}
    print(table({k: json.loads(p.read_text()) for k, p in there.items() if p.exists()}))


if __name__ == "__main__":
    main()
