"""Plots of a summary, with matplotlib, an optional extra: one curve for every solver."""

import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.pages.summary import Row

_COLUMNS = 3  # panels beside each other
_PANEL = (4.2, 3.4)  # inches


class Axis(NamedTuple):
    """What a metric is drawn against."""

    label: str
    value: Callable[[Row], float | None]
    moving: tuple[str, ...]  # the parameters that differ along a curve
    scale: str = "log"


AXES = {
    "bank_ratio": Axis(
        "bank ratio", lambda row: row.parameters.get("bank_ratio"), ("bank_ratio", "bank_size")
    ),
    "neighbors": Axis("K", lambda row: row.num_neighbors, ("num_neighbors", "sparsity")),
    "shots": Axis("nominal images", lambda row: row.parameters.get("shots"), ("shots",)),
    "time": Axis(
        "ms/image, without the network",
        lambda row: row.ms_per_image,
        ("bank_ratio", "bank_size", "num_neighbors", "sparsity"),
    ),
}


class Curve(NamedTuple):
    """One solver in one panel."""

    panel: str
    solver: str
    points: list[tuple[float, float, float]]  # x, mean, deviation, by x


def curves(rows: Sequence[Row], axis: Axis, metric: str) -> list[Curve]:
    """The curves of a metric; none where no curve has two places on the axis."""
    found: dict[tuple[str, str], list] = {}
    # Parameters that tell panels apart.
    apart = [name for name in rows[0].parameters if len({_text(r, name) for r in rows}) > 1]
    apart = [name for name in apart if name not in (*axis.moving, "solver")]
    for row in rows:
        x, mean = axis.value(row), row.mean[metric]
        if x is None or mean is None:
            continue
        solver = row.parameters["solver"]
        std = row.std[metric] or 0.0
        found.setdefault((_panel(row, apart), solver), []).append((x, 100 * mean, 100 * std))
    made = [Curve(panel, solver, sorted(points)) for (panel, solver), points in found.items()]
    several = any(len({x for x, _, _ in curve.points}) > 1 for curve in made)
    return made if several else []


def draw(made: Sequence[Curve], axis: Axis, metric: str) -> bytes:
    """The curves as a PNG, a panel for every other difference between them.

    Raises:
      ConfigError: if matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "plots need matplotlib: pip install 'sgfr_jax[report]', or --no_plots"
        ) from error
    panels = list(dict.fromkeys(curve.panel for curve in made))
    colours = {s: f"C{i}" for i, s in enumerate(sorted({curve.solver for curve in made}))}
    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure((_PANEL[0] * columns, _PANEL[1] * lines), layout="constrained")
    drawn = figure.subplots(lines, columns, squeeze=False, sharey=True).flat
    for panel, place in zip(panels, drawn, strict=False):
        for curve in made:
            if curve.panel == panel:
                x, mean, std = zip(*curve.points, strict=True)
                place.errorbar(
                    x, mean, std, marker="o", markersize=4, capsize=2, label=curve.solver,
                    color=colours[curve.solver],
                )  # fmt: skip
        place.set(
            title=panel.replace("$", r"\$"),
            xlabel=axis.label,
            ylabel=f"{metric} (%)",
            xscale=axis.scale,
        )
        place.title.set_fontsize(8)
        place.grid(alpha=0.3)
    for place in list(drawn):  # those left over in the last line
        place.set_visible(False)
    named = {label: handle for place in figure.axes for handle, label in zip(
        *place.get_legend_handles_labels(), strict=True
    )}  # fmt: skip
    figure.axes[0].legend(named.values(), named.keys(), fontsize=8)  # of all panels
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=150, metadata={"Software": None})
    return written.getvalue()


def _panel(row: Row, apart: Sequence[str]) -> str:
    named = [f"{name}={_text(row, name)}" for name in apart]
    return ", ".join([*named, *([row.category] if row.category is not None else [])])


def _text(row: Row, name: str) -> str:
    value = row.parameters[name]
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
