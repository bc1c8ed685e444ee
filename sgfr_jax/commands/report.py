r"""Makes tables and plots of the records of sweeps, and a page to look at a run or a sweep.

    python -m experiments.report --workdir=runs/demo
    python -m experiments.report --workdir=runs/solver_by_bank_mtd
    python -m experiments.report --workdir runs/seeds_mtd gs://bucket/few_shot_mtd --out=report

Of sweeps OUT receives table.csv (every metric, unrounded), table.md, table.tex (with the package
booktabs) and PNG plots: of every metric against the bank's ratio, K, the number of nominal images
and the milliseconds per image, as far as the records differ in these. Means are over categories,
then mean and sample standard deviation over seeds; a seed without all categories is left out, and
named.

Of a run, or of sweeps with --html, there is report.html in their place, one file that a browser
opens from disk. Of a run it shows the metrics, the scores with a threshold to move, a gallery of
the worst misses and false alarms first, and curves; of sweeps the tables and plots.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from etils import epath

from sgfr_jax import names
from sgfr_jax.commands.files import written
from sgfr_jax.commands.files.records import Record
from sgfr_jax.commands.flags import checking, launching
from sgfr_jax.commands.host import interruption, terminal
from sgfr_jax.commands.pages import page, plots, summary
from sgfr_jax.commands.sweeping import collection
from sgfr_jax.metrics import Metrics

METRICS = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")


def report(
    workdirs: Sequence[epath.Path],
    out: epath.Path,
    *,
    metrics: Sequence[str] = METRICS,
    by_category: bool = False,
    draw: bool = True,
) -> summary.Table:
    """Reads all records of some work directories and writes tables and plots.

    Args:
      workdirs: of sweeps.
      out: where to write; made if need be, and what an earlier report wrote there is replaced.
      metrics: those of the Markdown and LaTeX tables and of the plots.
      by_category: a row and a panel for every category instead of their mean.
      draw: whether to make plots.

    Raises:
      ConfigError: if there are no records, or the plots' extra is missing.
    """
    found, notes = _load(workdirs)
    table = summary.summarize(found, by_category=by_category)
    table.notes.extend(notes)
    if not table.rows:
        raise checking.ConfigError(
            "no configuration has all categories yet: run the sweep to its end, or --by_category"
        )
    files = {
        "table.csv": _encoded(summary.to_csv(table.rows)),
        "table.md": _encoded(summary.to_markdown(table.rows, metrics)),
        "table.tex": _encoded(summary.to_latex(table.rows, metrics)),
    }
    for name, axis in plots.AXES.items() if draw else ():
        for metric in metrics:
            made = plots.curves(table.rows, axis, metric)
            if made:
                files[f"{metric}_by_{name}.png"] = plots.draw(made, axis, metric)
    _write(out, files)
    return table


def write_page(
    workdirs: Sequence[epath.Path], out: epath.Path, *, metrics: Sequence[str] = METRICS
) -> epath.Path:
    """Writes one page of a run, or of the records of sweeps, and returns its path.

    Args:
      workdirs: of sweeps, or of one run.
      out: where to write; made if need be.
      metrics: those that are drawn for sweeps.

    Raises:
      ConfigError: if there is nothing to show.
    """
    if len(workdirs) == 1 and not _of_sweep(workdirs[0]):
        shown = page.of_run(Path(workdirs[0]))
    else:
        found, notes = _load(workdirs)
        means = summary.summarize(found)
        means.notes.extend(notes)
        shown = page.of_sweep(means, summary.summarize(found, by_category=True), metrics)
    _write(out, {"report.html": _encoded(page.render(shown))})
    return out / "report.html"


def _write(out: epath.Path, files: Mapping[str, bytes]) -> None:
    """Writes files into a directory; what lies there and is no report's is left alone.

    A bucket has neither locks nor a record: there files of these names are replaced.
    """
    if "://" in os.fspath(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (out / name).write_bytes(content)
        return
    with written.opened(Path(out), "--out", "report") as output:
        output.check(files)
        output.announce(*files)
        for name, content in files.items():
            output.claim(name).write_bytes(content)


def _encoded(text: str) -> bytes:
    """Text in UTF-8, whatever the system's own; paths may hold bytes that are no text."""
    return text.encode(errors="backslashreplace")


def _of_sweep(workdir: epath.Path) -> bool:
    return collection.directory(workdir).is_dir()


def _of_run(workdir: epath.Path) -> bool:
    """Whether it is a run's, finished or not, and no sweep's."""
    marks = ("results.json", "config.json", "unfinished")
    return not _of_sweep(workdir) and any((workdir / name).exists() for name in marks)


def _load(workdirs: Sequence[epath.Path]) -> tuple[list[Record], list[str]]:
    """The records of some work directories, and notes on damaged ones."""
    found, notes = [], []
    for workdir in workdirs:
        records, damaged = collection.load_all(workdir)
        if not records:
            raise checking.ConfigError(
                f"--workdir={workdir} has no records: run experiments.sweep with it first (of"
                " experiments.run there is a page alone, of one work directory at a time)"
            )
        found += records
        notes += [f"record {path} is damaged ({why}): left out" for path, why in damaged.items()]
    return found, notes


def main(argv: Sequence[str] | None = None) -> None:
    """Reports, and turns every foreseen mistake into one line and an exit status."""
    terminal.make_plain()
    parser = launching.Parser("experiments.report", __doc__)
    parser.add_argument("--workdir", nargs="+", action="extend", required=True,
                        help="work directories of sweeps, or of one run")  # fmt: skip
    parser.add_argument("--out", help="where to write; by default report below the first of them")
    parser.add_argument("--metric", nargs="+", default=METRICS, metavar="METRIC",
                        help=f"which metrics of sweeps: {', '.join(Metrics._fields)}")  # fmt: skip
    parser.add_argument("--by_category", action="store_true", help="a row for every category")
    parser.add_argument("--no_plots", action="store_true", help="tables alone")
    parser.add_argument(
        "--html", action="store_true", help="of sweeps too, write report.html alone"
    )
    options = parser.parse_args(argv)
    interruption.exit_at_once(lambda: None, "the same command makes what is missing")
    workdirs = [epath.Path(name).expanduser() for name in options.workdir]
    out = epath.Path(options.out).expanduser() if options.out else workdirs[0] / "report"
    try:
        for name in options.metric:
            if name not in Metrics._fields:
                raise checking.ConfigError(
                    f"--metric: {names.unknown_name('metric', name, Metrics._fields)}"
                )
        for flag, text in (*(("workdir", name) for name in options.workdir), ("out", options.out)):
            if text is not None:
                checking.check_named(flag, text)
        alone = len(workdirs) == 1 and _of_run(workdirs[0])
        if alone and options.metric is not METRICS:
            raise checking.ConfigError(
                "--metric is for sweeps: the page of a run shows every metric"
            )
        if options.html or alone:
            if options.by_category or options.no_plots:
                raise checking.ConfigError(
                    "the page shows means, categories and plots: leave --by_category and --no_plots"
                    " out"
                )
            print(f"Written: {write_page(workdirs, out, metrics=options.metric)}")
            return
        table = report(
            workdirs, out, metrics=options.metric, by_category=options.by_category,
            draw=not options.no_plots,
        )  # fmt: skip
    except (checking.ConfigError, OSError) as error:
        sys.exit(launching.told(error, f"--out={out}"))
    print(summary.to_markdown(table.rows, options.metric))
    for note in table.notes:
        print(f"note: {note}", file=sys.stderr)
    plotted = "" if options.no_plots else "; no plots, as nothing varies that they show"
    if any(out.glob("*.png")):
        plotted = ", plots"
    print(f"Written to {out}: table.csv, table.md, table.tex{plotted}")
