r"""Chooses among configurations without looking at a test image or a label.

    python -m experiments.select --dataset=mtd --data_dir=../shared/data/mtd
    python -m experiments.select --candidates='layers=auto|fast;num_neighbors=5|10' --score_test

The nominal training images are split into those that fit and those that validate. On the latter,
synthetic defects of many kinds and sizes are drawn (`experiments.synthetic`). Every point of the
grid is fitted on the former and scored on the validation images with and without defects. The
criterion is the mean of image AUROC, pixel AUROC, pixel AP and AUPRO, averaged over categories.
The winner is written to chosen.json; with `--score_test` it, and nothing else, is then fitted on
all training images and scored on the test set, once.

All other flags are those of `experiments.run` and hold for every point of the grid.
"""

import dataclasses
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from experiments import choices, config, devices, options, records, run
from sgfr_jax.datasets import Category, Example, images
from sgfr_jax.datasets.defects import DEFECTS

CANDIDATES = flags.DEFINE_string(
    "candidates", "layers=auto|fast;solver=affine_ridge|nearest",
    "The configurations to compare: flags of experiments.run and their values, as"
    " 'flag=value|value;flag=value'. Levels of one bank are joined by +.",
)  # fmt: skip
SHARE = flags.DEFINE_float(
    "validation_share", 0.2, "The share of nominal training images that validate.",
    lower_bound=0.01, upper_bound=0.9,
)  # fmt: skip
SCORE_TEST = flags.DEFINE_bool("score_test", False, "Score the winner on the test set, once.")

_OTHER_SEEDS = 2**32
_COPIES, _DEMO_COPIES = 1, 5  # of each kind and size, and of each of the demo's kinds
flags.adopt_module_key_flags(options)

CRITERION = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")


def parse_grid(text: str, base: config.Config) -> list[tuple[str, config.Config]]:
    """The points of a grid such as `layers=auto|fast;num_neighbors=5|10`, each with a name.

    Raises:
      ConfigError: names the part that is wrong, and what it may be.
    """
    from experiments import tasks

    axes = []
    known = {field.name: field for field in dataclasses.fields(config.Config)}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, found, values = part.partition("=")
        if not found or not values:
            raise choices.ConfigError(f"--candidates: '{part}' must be flag=value|value")
        choices.check_known("candidates", "flag", name, known)
        if name in (*tasks.DATA, "baselines"):
            flag = {"categories": "category", "baselines": "baseline"}.get(name, name)
            raise choices.ConfigError(
                f"--candidates: all candidates have the same images and no baselines: give --{flag}"
                " on the command line"
            )
        axes.append([(name, value) for value in values.split("|")])
    points = []
    for point in itertools.product(*axes):
        fields = {name: _value(name, value, getattr(base, name)) for name, value in point}
        title = " ".join(f"{name}={value}" for name, value in point) or "default"
        points.append((title, config.resolve(dataclasses.replace(base, **fields))))
    return points


def _value(name: str, text: str, default: Any) -> Any:
    if name == "layers":
        return tuple(text.split("+"))
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            pass
    if isinstance(default, bool):
        return text.lower() in ("true", "yes")
    return text


def validation(category: Category, share: float, seed: int) -> Category:
    """The category whose test set is made of training images: some as they are, some spoilt.

    Args:
      category: of which only `train` is looked at.
      share: of the training images that validate; at least one, and not all.
      seed: of the split and of the defects.

    Raises:
      ConfigError: if there are fewer than two training images.
    """
    from experiments import loading, synthetic

    train = category.train
    if len(train) < 2:
        raise choices.ConfigError(
            f"category {category.name} has {len(train)} training image: choosing needs at least two"
        )
    order = np.random.default_rng(seed).permutation(len(train))
    held = min(len(train) - 1, max(1, round(share * len(train))))
    nominal = tuple(train[i] for i in sorted(order[:held]))
    # Drawn on the held-out images alone, and not with the seed by which a detector draws its own.
    drawn = synthetic.draw(
        loading.Split(nominal, (), None), seed + _OTHER_SEEDS, 256, copies=_COPIES
    )
    others = _with_demo_defects(nominal, seed + _OTHER_SEEDS)
    fitting = tuple(train[i] for i in sorted(order[held:]))
    return Category(category.name, fitting, (*nominal, *drawn.seen.split.examples, *others))


def _with_demo_defects(nominal: Sequence[Example], seed: int) -> list[Example]:
    """The demo's kinds of defects, which no detector weighs its levels by."""
    made = []
    for number, kind in enumerate(sorted(DEFECTS) * _DEMO_COPIES):
        rng = np.random.default_rng([seed, number])
        source = nominal[int(rng.integers(len(nominal)))]
        changed, mask = DEFECTS[kind](rng, images.read_native(source).image)
        if mask.any():
            name = f"demo/{kind}/{number} on {source.name}"
            made.append(Example(name, changed, 1, kind, mask.astype(np.uint8)))
    return made


def evaluate(
    settings: config.Config, categories: Sequence[Category], resources: run.Resources
) -> dict[str, dict[str, float | None]]:
    """The metrics of one configuration on every category, by name."""
    from experiments import category as one_category
    from experiments import loading

    num_memories = devices.num_memories(settings, devices.lay_out(resources.mesh, settings))
    detector, _ = run.make_detector(settings, resources)
    hashes = {category.name: loading.hash_images(category.train) for category in categories}
    output = one_category.Output(resources.workdir, 0, False)
    found = {}
    for checked in loading.check(categories, settings, hashes, (), workers=resources.workers):
        run.check_squares(settings, [checked], num_memories)
        results = one_category.run(checked, detector, settings, output)["results"]
        found[checked.name] = {name: results[name] for name in CRITERION}
    return found


def criterion(found: dict[str, dict[str, float | None]]) -> float:
    """The mean over categories and metrics; a metric that is undefined does not count."""
    values = [v for metrics in found.values() for v in metrics.values() if v is not None]
    return float(np.mean(values)) if values else 0.0


def select(
    points: Sequence[tuple[str, config.Config]],
    categories: Sequence[Category],
    resources: run.Resources,
) -> tuple[int, list[dict[str, Any]]]:
    """Scores every point on the validation categories.

    Args:
      points: from `parse_grid`.
      categories: from `validation`.
      resources: what to use; results go below `workdir/validation`.

    Returns:
      The number of the winner, the first of equals, and a row for every point.
    """
    for _, settings in points:
        config.check_sizes(settings, {c.name: len(c.train) for c in categories})
    rows = []
    for number, (title, settings) in enumerate(points):
        print(f"{number + 1}/{len(points)}: {title}", file=sys.stderr)
        below = resources._replace(workdir=resources.workdir / "validation" / str(number))
        below.workdir.mkdir(parents=True, exist_ok=True)
        found = evaluate(settings, categories, below)
        rows.append({"point": title, "criterion": criterion(found), "categories": found})
    winner = int(np.argmax([row["criterion"] for row in rows]))
    return winner, rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text, in percent: the criterion and the mean of each metric."""
    lines = [f"{'point':44}  {'criterion':>9}  " + "  ".join(f"{n:>11}" for n in CRITERION)]
    for row in rows:
        means = [
            np.mean([m[name] for m in row["categories"].values() if m[name] is not None] or [0])
            for name in CRITERION
        ]
        values = "  ".join(f"{100 * value:11.1f}" for value in means)
        lines.append(f"{row['point']:44}  {100 * row['criterion']:9.2f}  {values}")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Selects, and turns every foreseen mistake into one line and an exit status."""
    run.start(argv)
    workdir = Path(options.WORKDIR.value or f"runs/select_{options.DATASET.value}").expanduser()
    with run.exit_on_mistakes():
        if options.cluster_from_flags() is not None:
            raise choices.ConfigError(
                "experiments.select runs in one process: start one, or add --distributed=never"
            )
        points = parse_grid(CANDIDATES.value, options.named_by_flags())
        resources = run.resources_from_flags(workdir)
        records.open_workdir(workdir)
        base = points[0][1]
        found = run.load_data(base, resources.accept_license)
        held_out = [validation(category, SHARE.value, base.seed) for category in found]
        winner, rows = select(points, held_out, resources)
        title, chosen = points[winner]
        described = {"point": title, "config": dataclasses.asdict(chosen), "rows": rows}
        records.write_json(workdir / "chosen.json", described)
        print(f"\n{table(rows)}\n\nchosen without labels: {title} ({workdir / 'chosen.json'})")
        if SCORE_TEST.value:
            below = resources._replace(workdir=workdir / "test")
            run.report(run.run(chosen, below), below.workdir)


if __name__ == "__main__":
    app.run(main)
