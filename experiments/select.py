r"""Chooses among configurations without looking at a test image or a label.

    python -m experiments.select --dataset=mtd --data_dir=../shared/data/mtd
    python -m experiments.select --candidates='layers=auto|fast;num_neighbors=5|10' --score_test

The nominal training images are split into those that fit and those that validate. On the latter,
synthetic defects of many kinds and sizes are drawn (`experiments.synthetic`). Every point of the
grid is fitted on the former and scored on the validation images with and without defects. The
criterion is the mean of image AUROC, pixel AUROC, pixel AP and AUPRO, averaged over categories.
The winner is written to chosen.json; with `--score_test` it, and nothing else, is then fitted on
all training images and scored on the test set, once: the same question asked again is answered by
what is written there, and another one in the same work directory is refused.

All other flags are those of `experiments.run` and hold for every point of the grid.
"""

import dataclasses
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from experiments import choices, config, devices, frozen, options, records, run
from sgfr_jax.datasets import Category, DatasetError, Example, images
from sgfr_jax.datasets.defects import DEFECTS

CANDIDATES = flags.DEFINE_string(
    "candidates", "layers=auto|fast;solver=affine_ridge|nearest",
    "The configurations to compare: flags of experiments.run and their values, as"
    " 'flag=value|value;flag=value'. Names of --layers are joined by +, such as"
    " 'layers=auto|block4+block10|block4@1.5+block10@1'.",
)  # fmt: skip
SHARE = flags.DEFINE_float(
    "validation_share", 0.2, "The share of nominal training images that validate.",
    lower_bound=0.01, upper_bound=0.9,
)  # fmt: skip
SCORE_TEST = flags.DEFINE_bool(
    "score_test", False,
    "Score the winner on the test set, once: a choice or a score that is in --workdir already is"
    " shown again.",
)  # fmt: skip

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


def validation(
    category: Category,
    share: float,
    seed: int,
    *,
    size: int = 256,
    most_pixels: int | None = None,
    least_side: int = 0,
) -> Category:
    """The category whose test set is made of training images: some as they are, some spoilt.

    Args:
      category: of which only `train` is looked at.
      share: of the training images that validate; at least one, and not all.
      seed: of the split and of the defects.
      size: the largest `image_size` of a candidate.
      most_pixels: of a spoilt image, which is kept in memory; as of `synthetic.draw`.
      least_side: the side of the largest square that a candidate sees; as there.

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
        loading.Split(nominal, (), None), seed + _OTHER_SEEDS, size, copies=_COPIES,
        most_pixels=most_pixels, least_side=least_side,
    )  # fmt: skip
    others = _with_demo_defects(nominal, seed + _OTHER_SEEDS)
    if most_pixels is not None:
        least_side = max(2 * size, least_side)
        others = (synthetic.shrunk(example, most_pixels, least_side) for example in others)
    fitting = tuple(train[i] for i in sorted(order[held:]))
    return Category(category.name, fitting, (*nominal, *drawn.seen.split.examples, *others))


def _with_demo_defects(nominal: Sequence[Example], seed: int) -> Iterator[Example]:
    """The demo's kinds of defects, which no detector weighs its levels by."""
    for number, kind in enumerate(sorted(DEFECTS) * _DEMO_COPIES):
        rng = np.random.default_rng([seed, number])
        source = nominal[int(rng.integers(len(nominal)))]
        changed, mask = DEFECTS[kind](rng, images.read_native(source).image)
        if mask.any():
            name = f"demo/{kind}/{number} on {source.name}"
            yield Example(name, changed, 1, kind, mask.astype(np.uint8))


def held_out(
    categories: Sequence[Category], points: Sequence[tuple[str, config.Config]], share: float
) -> list[Category]:
    """The `validation` categories of some candidates.

    Large spoilt images are shrunk, unless a candidate looks at pixels in their own size.
    """
    from experiments import loading, models, synthetic

    candidates = [settings for _, settings in points]
    bound = {
        "size": max(settings.image_size for settings in candidates),
        "least_side": max(side for of in candidates for side, _, _ in models.layout(of)),
    }

    as_they_are = any(settings.tiled or settings.native for settings in candidates)
    left_open = [settings for settings in candidates if settings.geometry == config.AUTO]

    def tiled(category: Category) -> bool:
        try:
            return any(of.kind == "tile" for of in loading.ways(category.train, left_open[0]))
        except DatasetError:  # an image that --skip_bad_images may leave out
            return True

    found = []
    for category in categories:
        kept = as_they_are or (bool(left_open) and tiled(category))
        most = None if kept else synthetic.MOST_PIXELS
        found.append(validation(category, share, candidates[0].seed, most_pixels=most, **bound))
    return found


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
      categories: from `held_out`.
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


def choose(
    points: Sequence[tuple[str, config.Config]],
    categories: Sequence[Category],
    resources: run.Resources,
) -> frozen.Choice:
    """The choice in the work directory, or a new one that is written there.

    Raises:
      ConfigError: if the work directory holds the test score of another choice.
    """
    asked = frozen.question(points, categories, SHARE.value, CRITERION)
    choice = frozen.kept(resources.workdir, asked)
    if choice is not None:
        print("chosen before; not chosen anew", file=sys.stderr)
        return choice
    winner, rows = select(points, held_out(categories, points, SHARE.value), resources)
    title, chosen = points[winner]
    choice = frozen.Choice(title, dataclasses.asdict(chosen), rows, asked)
    frozen.keep(resources.workdir, choice)
    return choice


def score_test(
    settings: config.Config,
    choice: frozen.Choice,
    categories: Sequence[Category],
    resources: run.Resources,
) -> None:
    """Scores a choice on the test set and reports it, or reports the score that there is.

    Raises:
      ConfigError: if the choice was scored on other test images.
    """
    frozen.begin_scoring(resources.workdir, choice, frozen.test_set(categories))
    below = resources._replace(workdir=frozen.test_directory(resources.workdir))
    finished = records.finished(below.workdir)
    if finished is None:
        finished = run.run(settings, below)
    else:
        print("scored before; not scored anew", file=sys.stderr)
    run.report(finished, below.workdir)


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
        found = run.load_data(points[0][1], resources.accept_license)
        choice = choose(points, found, resources)
        print(f"\n{table(choice.rows)}\n\nchosen without labels: {choice.point}", end=" ")
        print(f"({workdir / frozen.FILE})")
        if SCORE_TEST.value:
            score_test(dict(points)[choice.point], choice, found, resources)


if __name__ == "__main__":
    app.run(main)
