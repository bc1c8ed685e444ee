"""The table that ends a run."""

from collections.abc import Sequence

from sgfr_jax.commands.files import records
from sgfr_jax.commands.files.records import Record

COLUMNS = {
    "image_auroc": "I-AUROC",
    "image_ap": "I-AP",
    "image_f1_max": "I-F1max",
    "pixel_auroc": "P-AUROC",
    "pixel_ap": "P-AP",
    "pixel_f1_max": "P-F1max",
    "aupro": "AUPRO",
    "aupro_05": "AUPRO@5%",
}


def render(finished: Sequence[Record]) -> str:
    """Every metric in percent, a row per category and method, then the means.

    Args:
      finished: one record or more, of one run.
    """
    methods = {finished[0].config["solver"]: [record.results for record in finished]}
    for name in finished[0].baselines:
        methods[f"baseline: {name}"] = [record.baselines[name] for record in finished]

    rows = [["category", "method", *COLUMNS.values()]]
    for i, record in enumerate(finished):
        rows += [_row(record.category, method, results[i]) for method, results in methods.items()]
    if len(finished) > 1:
        rows += [_row("mean", method, records.mean(results)) for method, results in methods.items()]

    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def _row(category: str, method: str, results: dict) -> list[str]:
    values = (results[name] for name in COLUMNS)
    return [category, method, *("-" if v is None else f"{100 * v:.1f}" for v in values)]
