"""The records of sweeps as one table: means over categories, then mean and deviation over seeds.

Columns are named as scikit-learn names those of a search: `param_solver`, `mean_test_pixel_ap`,
`std_test_pixel_ap`, `mean_fit_time`.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sgfr_jax.commands.files import records
from sgfr_jax.commands.files.records import Record
from sgfr_jax.detector import alternatives
from sgfr_jax.metrics import Metrics

SEEDS = ("seed", "split_seed")
# No part of what a row stands for: seeds are averaged over, and places are not what lies there.
_NO_PARAMETERS = (
    *SEEDS, "categories", "data_dir", "prepared_dir", "baselines", "metrics", "skip_bad_images",
)  # fmt: skip
_OWN = ("data_dir", "manifest", "train_glob", "test_glob", "mask_glob")
# Shown even where all rows agree.
_ALWAYS = ("dataset", "solver")
_PLAIN = "{mean:.1f} ± {std:.1f}"
_TIMES = ("mean_fit_time", "mean_score_time", "mean_ms_per_image")


class Row(NamedTuple):
    """A configuration, over all categories and seeds."""

    parameters: dict[str, Any]  # those that differ between rows, and `_ALWAYS`
    category: str | None  # None: the mean over categories
    num_neighbors: int | None  # K: the atoms that a code draws on, where a solver has a number
    num_seeds: int
    num_categories: int
    mean: dict[str, float | None]  # of every metric; None where no test set defines it
    std: dict[str, float | None]  # None where there are fewer than two seeds
    fit_time: float  # seconds of a category
    score_time: float
    ms_per_image: float  # of coding and mapping, without the network


class Table(NamedTuple):
    """The rows in the order of their parameters, and what was left out."""

    rows: list[Row]
    notes: list[str]


def summarize(found: Iterable[Record], *, by_category: bool = False) -> Table:
    """The table of some records.

    A seed of a configuration counts when all categories of its data set, as far as any record knows
    them, are there: a mean over the easy ones would flatter.

    Args:
      found: the records, the oldest first; those of one name count once.
      by_category: a row for every category instead of their mean.
    """
    unique = list({record.digest: record for record in found}.values())
    varying = _varying([record.config for record in unique])
    categories: dict[tuple, set[str]] = {}
    cells: dict[tuple, dict[tuple, dict[str, Record]]] = {}
    notes = []
    for record in unique:
        categories.setdefault(_data(record.config), set()).add(record.category)
        of_point = cells.setdefault(_point(record.config), {})
        of_seed = of_point.setdefault(_seeds(record.config), {})
        if record.category in of_seed:
            notes.append(
                f"{record.category}, {_described(record.config, varying)}: two records, of other"
                " images or weights; the newest counts"
            )
        of_seed[record.category] = record
    rows = []
    for of_point in cells.values():
        settings = next(iter(next(iter(of_point.values())).values())).config
        wanted = categories[_data(settings)]
        complete = {seeds: found for seeds, found in of_point.items() if set(found) == wanted}
        for seeds, of_seed in of_point.items():
            missing = sorted(wanted - set(of_seed))
            if missing and not by_category:
                at = ", ".join(f"{n}={v}" for n, v in zip(SEEDS, seeds, strict=True))
                notes.append(
                    f"{_described(settings, varying)}, {at}: left out, without {', '.join(missing)}"
                )
        if by_category:
            for name in sorted(wanted):
                runs = [[found[name]] for found in of_point.values() if name in found]
                if runs:
                    rows.append(_row(settings, varying, name, runs))
        elif complete:
            rows.append(
                _row(settings, varying, None, [list(f.values()) for f in complete.values()])
            )
    rows.sort(key=lambda row: _order([*row.parameters.values(), row.category or ""]))
    return Table(rows, notes)


def column_values(row: Row) -> dict[str, Any]:
    """A row's columns by name."""
    own = {f"param_{name}": text(value) for name, value in row.parameters.items()}
    if row.category is not None:
        own["category"] = row.category
    own |= {"n_seeds": row.num_seeds, "n_categories": row.num_categories}
    for name in Metrics._fields:
        own |= {f"mean_test_{name}": row.mean[name], f"std_test_{name}": row.std[name]}
    return own | dict(zip(_TIMES, (row.fit_time, row.score_time, row.ms_per_image), strict=True))


def to_csv(rows: Sequence[Row]) -> str:
    """Every column, unrounded; what is not defined is empty."""
    described = [column_values(row) for row in rows]
    return records.to_csv(described, list(described[0]))


def to_markdown(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """Parameters, and metrics in percent with their deviation over seeds."""
    cells = [[one.replace("|", r"\|") for one in row] for row in _cells(rows, metrics, _PLAIN)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    lines.insert(1, "|---" * len(cells[0]) + "|")
    return "\n".join(lines) + "\n"


def to_latex(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    r"""The same as a `tabular` of the package booktabs."""
    cells = _cells(rows, metrics, r"${mean:.1f} \pm {std:.1f}$")
    num_named = len(cells[0]) - len(metrics)
    escaped = [list(map(_in_latex, cells[0]))]
    escaped += [[*map(_in_latex, row[:num_named]), *row[num_named:]] for row in cells[1:]]
    head, *body = [" & ".join(row) + r" \\" for row in escaped]
    columns = "l" * num_named + "r" * len(metrics)
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule",
         r"\end{tabular}", ""]
    )  # fmt: skip


def _in_latex(text: str) -> str:
    """Text as LaTeX sets it."""
    named = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(named.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def cell(row: Row, name: str, both: str = _PLAIN) -> str:
    """A metric in percent; with its deviation, as `both` says, where there is one."""
    mean, std = row.mean[name], row.std[name]
    if mean is None:
        return "-"
    return f"{100 * mean:.1f}" if std is None else both.format(mean=100 * mean, std=100 * std)


def text(value: Any) -> str:
    """A parameter's value as tables show it; nothing for None."""
    if value is None:
        return ""
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _row(
    settings: dict[str, Any], varying: Sequence[str], category: str | None, runs: list[list[Record]]
) -> Row:
    """The row of some seeds, each with the records of its categories."""
    of_seeds = [records.mean([r.results for r in run]) for run in runs]
    mean, std = {}, {}
    for name in Metrics._fields:
        values = [found[name] for found in of_seeds if found[name] is not None]
        mean[name] = sum(values) / len(values) if values else None
        std[name] = _deviation(values)
    seconds = [(r.results["seconds"], r.results["num_test"]) for run in runs for r in run]
    fit = [s["embed_train"] + s["sample"] + s["calibrate"] for s, _ in seconds]
    score = [s["score_test"] for s, _ in seconds]
    each = [1000 * s["score_test"] / max(1, num_test) for s, num_test in seconds]
    return Row(
        {name: settings.get(name) for name in varying},
        category,
        _neighbors(settings),
        len(runs),
        len(runs[0]),
        mean,
        std,
        *(sum(values) / len(values) for values in (fit, score, each)),
    )


def _deviation(values: Sequence[float]) -> float | None:
    """The standard deviation of a sample; None of fewer than two."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _neighbors(settings: dict[str, Any]) -> int | None:
    if settings["solver"] == "nearest":
        return 1
    solver = alternatives.SOLVERS.get(settings["solver"])
    return settings[solver.atoms] if solver is not None and solver.atoms else None


def _varying(configs: Sequence[dict[str, Any]]) -> list[str]:
    # Those of another version may have other names.
    names = dict.fromkeys(n for c in configs for n in c if _is_parameter(n, c))
    several = [n for n in names if len({text(c.get(n)) for c in configs}) > 1]
    return [name for name in names if name in several or name in _ALWAYS]


def _point(settings: dict[str, Any]) -> tuple:
    return tuple((n, text(v)) for n, v in settings.items() if _is_parameter(n, settings))


def _is_parameter(name: str, settings: dict[str, Any]) -> bool:
    return name not in _NO_PARAMETERS or (name == "data_dir" and settings["dataset"] == "folder")


def _data(settings: dict[str, Any]) -> tuple:
    """Which images there are: of anyone's own folder, where they lie."""
    where = _OWN if settings["dataset"] == "folder" else ()
    return settings["dataset"], settings["split"], *(text(settings.get(name)) for name in where)


def _seeds(settings: dict[str, Any]) -> tuple:
    return tuple(settings[name] for name in SEEDS)


def _described(settings: dict[str, Any], varying: Sequence[str]) -> str:
    return " ".join(f"{name}={text(settings.get(name))}" for name in varying)


def _order(values: Iterable[Any]) -> list[tuple]:
    """Numbers by size before words by letter."""
    numbers = (isinstance(v, int | float) for v in values)
    return [
        (0, v, "") if number else (1, 0, text(v)) for v, number in zip(values, numbers, strict=True)
    ]


def _cells(rows: Sequence[Row], metrics: Sequence[str], both: str) -> list[list[str]]:
    """The header and the rows, as text."""
    named = list(rows[0].parameters) + (["category"] if rows[0].category is not None else [])
    cells = [[*named, "seeds", *metrics]]
    for row in rows:
        values = [text(value) for value in row.parameters.values()]
        values += [row.category] if row.category is not None else []
        cells.append([*values, str(row.num_seeds), *(cell(row, name, both) for name in metrics)])
    return cells
