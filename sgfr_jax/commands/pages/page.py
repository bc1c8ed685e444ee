"""Results as one HTML page that needs nothing but a browser: no network, no other file.

`of_run` and `of_sweep` say what the page shows, as plain data; `render` puts it into the templates.
Figures are written here, as text, so that they are those of every other output.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from sgfr_jax import curves, metrics
from sgfr_jax.checked_json import Damaged
from sgfr_jax.commands.files import records
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.pages import (
    figures,
    plots,
    review,
    summary,
)

METRICS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1_max": "image F1",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1_max": "pixel F1",
    "aupro": "AUPRO",
    "aupro_05": "AUPRO 5%",
}
# Characters of all pictures of a page; where there are more, every group shows fewer.
PICTURE_BYTES = 30_000_000
_IMAGE_POINTS = 400  # of a curve of images
# One module; the last begins to run when all are there.
_SCRIPTS = (
    "elements.js", "numbers.js", "tables.js", "charts.js", "curves.js", "gallery.js", "viewer.js",
    "controls.js", "sections.js", "page.js",
)  # fmt: skip


def of_run(workdir: Path) -> dict[str, Any]:
    """What the page shows of the work directory of one `experiments.run`.

    Raises:
      ConfigError: if the run has not come to its end, or its files are damaged.
    """
    file = "results.json"
    try:
        results = records.read(workdir / file, records.Results)
        if results is not None:
            file = "scores.csv"
            scored = records.scores(workdir, results)
    except Damaged as error:
        raise ConfigError(
            f"{workdir / file} is damaged ({error}): move it away, or delete it, and run"
            " experiments.run again"
        ) from error
    except FileNotFoundError:
        results = None
    if results is None:
        raise ConfigError(
            f"--workdir={workdir} has no {file}: run experiments.run to its end first"
        )
    config = results.config
    of_own = {"categories": results.categories, "mean": results.mean}
    methods = {config["solver"]: of_own} | results.baselines
    categories = [
        _category(workdir, name, methods, [row for row in scored if row["category"] == name])
        for name in results.categories
    ]
    table = _metrics_table(methods)
    notes = [f"{name}: {note}" for name, some in results.notes.items() for note in some]
    notes += _limit_pictures(categories)
    without = [category["name"] for category in categories if not category["reviewed"]]
    if without:
        notes.append(
            f"There are no pictures and pixel curves of {', '.join(without)}: the run was told to"
            " keep none (--num_review=0), another one in its work directory replaced them, or they"
            " are damaged."
        )
    return {
        "title": config["dataset"],
        "subtitle": f"{config['solver']} on {config['backbone']}, {_counted(categories)}",
        "tables": [table],
        "charts": [],
        "categories": categories,
        "colours": figures.colourise(np.linspace(0.0, 1.0, 256), 0.0, 1.0).tolist(),
        "notes": notes,
        "settings": [_settings("Configuration", config),
                     _settings("Environment", results.environment)],
    }  # fmt: skip


def of_sweep(
    means: summary.Table, by_category: summary.Table, shown: Sequence[str]
) -> dict[str, Any]:
    """What the page shows of the records of sweeps.

    Args:
      means: over categories; what is drawn, unless it has no rows.
      by_category: the same records, a row for every category.
      shown: which metrics are drawn.
    """
    tables = [("Means over categories", means.rows), ("By category", by_category.rows)]
    rows = means.rows or by_category.rows
    return {
        "title": ", ".join(dict.fromkeys(str(row.parameters["dataset"]) for row in rows)),
        "subtitle": f"a sweep of {len(rows)} configurations",
        "tables": [_sweep_table(caption, some) for caption, some in tables if some],
        "charts": [chart for metric in shown for chart in _charts(rows, metric)],
        "categories": [],
        "colours": [],
        "notes": means.notes,
        "settings": [],
    }


def render(shown: Mapping[str, Any]) -> str:
    """The page, as HTML.

    Nothing in `shown` can become markup: it is JSON without `<`, and the page's script makes text
    of it. The page's policy admits its own script and style, by their hashes, and no connection.
    """
    script = "\n".join(_template(name) for name in _SCRIPTS)
    style = _template("page.css")
    policy = (
        f"default-src 'none'; img-src data:; script-src {_hash(script)}; style-src {_hash(style)}"
    )
    parts = {
        "policy": html.escape(policy),
        "title": html.escape(f"{shown['title']}: {shown['subtitle']}"),
        "style": style,
        "script": script,
        "data": json.dumps(shown, allow_nan=False).replace("<", "\\u003c"),
    }
    # In one pass: what is put in is not searched.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _template("page.html"))


def _category(
    workdir: Path, name: str, methods: Mapping[str, Any], rows: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    """One category: its scores, its curves by method, its pictures."""
    own, *baselines = methods
    columns = {own: "score"} | {baseline: f"score_{baseline}" for baseline in baselines}
    labels = np.array([row["label"] == "1" for row in rows], bool)
    scores = {
        method: np.array([float(row[column]) for row in rows]) for method, column in columns.items()
    }
    kept = review.load(workdir, name, methods[own]["categories"][name])
    pictures = kept.pictures if kept else []
    return {
        "name": name,
        "reviewed": kept is not None,
        "files": [row["file"] for row in rows],
        "kinds": [row["kind"] for row in rows],
        "labels": labels.astype(int).tolist(),
        "scores": scores[own].tolist(),
        "areas": {
            method: {metric: _percent(found["categories"][name][metric]) for metric in METRICS}
            for method, found in methods.items()
        },
        "image_curves": {method: _image_curve(s, labels) for method, s in scores.items()},
        "pixel_curves": kept.curves if kept else {},
        "pictures": pictures,
        "scale": _scale(pictures),
    }


def _image_curve(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any] | None:
    """The points of a curve of images; None without nominal or without defective ones."""
    if labels.all() or not labels.any():
        return None
    return review.listed(curves.thin(metrics.rank(scores, labels), num=_IMAGE_POINTS))


def _scale(pictures: Sequence[Mapping[str, Any]]) -> list[float]:
    """The values of maps that are drawn darkest and brightest, for all pictures the same."""
    if not pictures:
        return [0.0, 1.0]
    lows, highs = ([picture[end] for picture in pictures] for end in ("low", "high"))
    return [float(np.median(lows)), float(np.quantile(highs, 0.98))]


def _limit_pictures(categories: Sequence[dict[str, Any]]) -> list[str]:
    """Drops the last pictures of every group until all fit; a note if there were any."""
    ranked = []
    for number, category in enumerate(categories):
        seen: dict[tuple[str, str], int] = {}
        for place, picture in enumerate(category["pictures"]):
            group = picture["group"], picture["kind"] if picture["group"] == review.DRAWN else ""
            seen[group] = seen.get(group, 0) + 1
            ranked.append((seen[group], number, place, len(picture["image"] + picture["map"])))
    ranked.sort()
    total = np.cumsum([size for *_, size in ranked])
    keep = {(number, place) for _, number, place, _ in ranked[: np.sum(total <= PICTURE_BYTES)]}
    if len(keep) == len(ranked):
        return []
    for number, category in enumerate(categories):
        category["pictures"] = [
            picture for i, picture in enumerate(category["pictures"]) if (number, i) in keep
        ]
    return [f"{len(keep)} of {len(ranked)} kept pictures are shown, so that the page stays small."]


def _metrics_table(methods: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        [
            name, method, *(_metric_cell(results[metric]) for metric in METRICS),
            *(_whole(results[count]) for count in ("num_train", "num_test", "num_atoms")),
            _decimal(sum(results["seconds"].values())),
        ]
        for name in next(iter(methods.values()))["categories"]
        for method, found in methods.items()
        for results in [found["categories"][name]]
    ]  # fmt: skip
    means = [
        ["mean", method, *(_metric_cell(found["mean"][metric]) for metric in METRICS), *[""] * 4]
        for method, found in methods.items()
    ]
    several = len(next(iter(methods.values()))["categories"]) > 1
    sizes = ("trained on", "tested on", "atoms", "seconds")
    return {
        "caption": "Metrics in percent",
        "columns": [
            _column("category"), _column("method"),
            *(_column(label, number=True) for label in METRICS.values()),
            *(_column(label, number=True) for label in sizes),
        ],
        "rows": rows,
        "foot": means if several else [],
    }  # fmt: skip


def _sweep_table(caption: str, rows: Sequence[summary.Row]) -> dict[str, Any]:
    names = list(rows[0].parameters)
    of_category = ["category"] if rows[0].category is not None else []
    times = ("fit (s)", "score (s)", "ms/image")
    return {
        "caption": f"{caption}: metrics in percent, ± their standard deviation over seeds",
        "columns": [
            *(_column(name) for name in [*names, *of_category]),
            _column("seeds", number=True),
            *(_column(label, number=True) for label in METRICS.values()),
            *(_column(label, number=True) for label in times),
        ],
        "rows": [
            [
                *(_parameter(row.parameters[name]) for name in names),
                *([row.category] if of_category else []),
                _whole(row.num_seeds),
                *([summary.cell(row, metric), row.mean[metric]] for metric in METRICS),
                *map(_decimal, (row.fit_time, row.score_time, row.ms_per_image)),
            ]
            for row in rows
        ],
        "foot": [],
    }  # fmt: skip


def _charts(rows: Sequence[summary.Row], metric: str) -> Iterator[dict[str, Any]]:
    """A chart for every axis that the rows differ along, and every panel of its plot.

    A solver has one colour in all of them.
    """
    solvers = sorted({row.parameters["solver"] for row in rows})
    for axis in plots.AXES.values():
        made = plots.curves(rows, axis, metric)
        for panel in dict.fromkeys(curve.panel for curve in made):
            yield {
                "title": f"{METRICS[metric]} by {axis.label}",
                "panel": panel,
                "x": axis.label,
                "y": f"{METRICS[metric]} (%)",
                "log": axis.scale == "log",
                "series": [
                    {"name": curve.solver, "tone": solvers.index(curve.solver)}
                    | {"points": curve.points}
                    for curve in made
                    if curve.panel == panel
                ],
            }


def _settings(caption: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "caption": caption,
        "columns": [_column("name"), _column("value")],
        "rows": [[name, summary.text(value) or "-"] for name, value in values.items()],
        "foot": [],
    }


def _counted(categories: Sequence[Mapping[str, Any]]) -> str:
    images = sum(len(category["files"]) for category in categories)
    of = f" of {len(categories)} categories" if len(categories) > 1 else ""
    return f"{images} test images{of}"


# A cell is a text, or a text and the number that it is sorted by.


def _column(name: str, *, number: bool = False) -> dict[str, Any]:
    return {"name": name, "number": number}


def _metric_cell(value: float | None) -> list[Any]:
    return [_percent(value), value]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _whole(value: int) -> list[Any]:
    return [str(value), value]


def _decimal(value: float) -> list[Any]:
    return [f"{value:.1f}", value]


def _parameter(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return [summary.text(value), value] if number else summary.text(value)


def _template(name: str) -> str:
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
