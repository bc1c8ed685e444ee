r"""Chooses among configurations without looking at a test image or a label.

    python -m experiments.select --dataset=mtd --data_dir=../shared/data/mtd
    python -m experiments.select --candidates='layers=auto|fast;num_neighbors=5|10' --score_test

The nominal training images are split into those that fit and those that validate. On the latter,
synthetic defects of many kinds and sizes are drawn. Every point of the grid is fitted on the former
and scored on the validation images with and without defects. The criterion is the mean of image
AUROC, pixel AUROC, pixel AP and AUPRO, averaged over categories, and the highest wins. With
`--repeats` all is done several times, and the first point that is within one standard error of the
highest wins, or, with `--least_gain`, within that: list first what you would rather have.

The winner is written to chosen.json; with `--score_test` it, and nothing else, is then fitted on
all training images and scored on the test set, once: the same question asked again is answered by
what is written there, and another one in the same work directory is refused.

All other flags belong to `experiments.run` and hold for every point of the grid.
"""

import itertools
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from sgfr_jax.commands import run
from sgfr_jax.commands.files import frozen, inputs, records, written
from sgfr_jax.commands.flags import (
    checking,
    config,
    launching,
    options,
    starting,
    usage,
)
from sgfr_jax.commands.host import machine
from sgfr_jax.datasets import Category

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
REPEATS = flags.DEFINE_integer(
    "repeats", 1,
    "How often to split the training images and draw defects, each time anew. Several say what"
    " chance may bring about: the first candidate within one standard error of the best wins.",
    lower_bound=1, upper_bound=1000,
)  # fmt: skip
LEAST_GAIN = flags.DEFINE_float(
    "least_gain", 0.0,
    "How many points of the criterion, in percent, a candidate has to be ahead of those listed"
    " before it: what costs more should be worth it.",
    lower_bound=0.0,
)  # fmt: skip
SCORE_TEST = flags.DEFINE_bool(
    "score_test", False,
    "Score the winner on the test set, once: a choice or a score that is in --workdir already is"
    " shown again.",
)  # fmt: skip

options.require_finite(SHARE, LEAST_GAIN)
flags.adopt_module_key_flags(options)

# Flags of `experiments.run` that choosing has no use for; the latter the winner's score has.
_OF_A_SCORE = (
    "baseline", "diagnose", "num_figures", "num_review", "save_maps", "save_model",
)  # fmt: skip
_OF_A_RUN = ("check_data", *_OF_A_SCORE)

CRITERION = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")


def parse_grid(
    text: str, base: config.Config, given: Collection[str] = ()
) -> list[tuple[str, config.Config]]:
    """The points of a grid such as `layers=auto|fast;num_neighbors=5|10`, each with a name.

    Args:
      text: what is compared.
      base: the command line's configuration, before anything is filled in.
      given: the flags that the command line names.

    Raises:
      ConfigError: names the part that is wrong, and what it may be; or a flag that no point uses.
    """
    axes: dict[str, list[tuple[str, Any]]] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, found, values = part.partition("=")
        if not found or not values:
            raise checking.ConfigError(f"--candidates: '{part}' must be flag=value|value")
        checking.check_known("candidates", "flag", name, config.FIELDS)
        if (config.FIELDS[name] == "data" and name != "skip_bad_images") or name == "baselines":
            flag = {"categories": "category", "baselines": "baseline"}.get(name, name)
            raise checking.ConfigError(
                f"--candidates: all candidates have the same images and no baselines: give --{flag}"
                " on the command line"
            )
        if name in given:
            raise checking.ConfigError(f"--{name} is set by --candidates={text}: leave it out")
        if name in axes:
            raise checking.ConfigError(f"--candidates: name {name} once, as {name}=value|value")
        axis = [(value, _value(name, value)) for value in values.split("|")]
        for number, (value, parsed) in enumerate(axis):
            if parsed in (other for _, other in axis[:number]):
                raise checking.ConfigError(f"--candidates: {name}={value} is named twice")
        axes[name] = axis
    points = []
    for point in itertools.product(*axes.values()):
        title = " ".join(f"{name}={value}" for name, (value, _) in zip(axes, point, strict=True))
        fields = {name: parsed for name, (_, parsed) in zip(axes, point, strict=True)}
        settings = config.resolve(usage.cleared(base.replace(**fields)))
        if settings not in (other for _, other in points):  # where one flag decides another
            points.append((title or "default", settings))
    usage.refuse_unused([settings for _, settings in points], {*axes, *given})
    return points


def _value(name: str, text: str) -> Any:
    """What a flag of `experiments.run` takes a text for."""
    if name == "layers":
        return tuple(text.split("+"))
    try:
        return flags.FLAGS[name].parser.parse(text)
    except ValueError as error:
        kind = flags.FLAGS[name].flag_type()
        wanted = "true or false" if kind == "bool" else f"of type {kind}"
        raise checking.ConfigError(f"--candidates: {name}={text} must be {wanted}") from error


def evaluate(
    settings: config.Config, categories: Sequence[Category], resources: machine.Resources
) -> dict[str, dict[str, float | None]]:
    """The metrics of one configuration on every category, by name."""
    from sgfr_jax.commands.files import reading
    from sgfr_jax.commands.pages import category as one_category
    from sgfr_jax.detector import splits

    stages = run.make_stages(settings, resources)
    hashes = {category.name: splits.hash_images(category.train) for category in categories}
    output = one_category.Output(resources.workdir, 0, False)
    found = {}
    for checked in reading.check(categories, settings, hashes, (), stages.services):
        inputs.check_squares(settings, [checked], inputs.num_memories(settings, resources))
        results = one_category.run(checked, stages, settings, output)["results"]
        found[checked.name] = {name: results[name] for name in CRITERION}
    return found


def criterion_of(found: dict[str, dict[str, float | None]]) -> float:
    """The mean over categories and metrics; a metric that is undefined does not count."""
    values = [v for metrics in found.values() for v in metrics.values() if v is not None]
    return float(np.mean(values)) if values else 0.0


class Comparison(NamedTuple):
    """How far candidates are behind the best of them, repeat by repeat."""

    mean: list[float]  # [P] of the criterion
    behind: list[float]  # [P] the best one's mean less theirs
    error: list[float]  # [P] the standard error of that difference; 0 of one repeat
    winner: int


def compare(criteria: np.ndarray, least_gain: float = 0.0) -> Comparison:
    """Chooses by the rule of one standard error (Breiman et al. 1984, section 3.4.3).

    Args:
      criteria: `[P, R]` of `P` candidates in `R` repeats, which pose all of them the same problem.
      least_gain: what it takes to be worth changing to, in the unit of the criteria.

    Returns:
      The comparison. Its winner is the first candidate that is behind the best by no more than one
      standard error, or by no more than the least gain: what chance may have brought about, or is
      worth nothing, is no reason to give up what comes first.
    """
    mean, num_repeats = criteria.mean(axis=1), criteria.shape[1]
    differences = criteria[np.argmax(mean)] - criteria
    behind, error = mean.max() - mean, np.zeros_like(mean)
    if num_repeats > 1:
        error = differences.std(axis=1, ddof=1) / np.sqrt(num_repeats)
    winner = int(np.argmax(behind <= np.maximum(error, least_gain)))
    return Comparison(mean.tolist(), behind.tolist(), error.tolist(), winner)


def question(
    points: Sequence[tuple[str, config.Config]],
    categories: Sequence[Category],
    share: float,
    *more: Any,
) -> str:
    """A hash of what is asked: of arguments as of `select`, and of whatever else JSON takes."""
    from sgfr_jax.commands.sweeping import validation

    return frozen.question(points, categories, share, validation.SIZES, CRITERION, *more)


def select(
    points: Sequence[tuple[str, config.Config]],
    categories: Sequence[Category],
    resources: machine.Resources,
    *,
    share: float,
    repeats: int,
    least_gain: float = 0.0,
) -> tuple[int, list[dict[str, Any]]]:
    """Scores every point on the validation images of every repeat.

    What is found is kept below `resources.workdir` as soon as it is known: asked again after an
    interruption, or with more repeats, the same question goes on from there.

    Args:
      points: from `parse_grid`.
      categories: of which only `train` is looked at.
      resources: what to use.
      share: of the training images that validate.
      repeats: how often the training images are split, each time with other defects and seeds.
      least_gain: of `compare`.

    Returns:
      The number of the winner, and a row for every point.

    Raises:
      ConfigError: if seeds do not reach so far.
    """
    from sgfr_jax.commands.host import environment

    last = max(settings.evaluation.seed for _, settings in points) + repeats - 1
    if last >= 2**32:
        raise checking.ConfigError(
            f"--seed: the last repeat has the seed {last}, which is not below 2^32"
        )
    asked = question(points, categories, share, environment.source(), environment.describe())
    of_repeats = []
    for repeat in range(repeats):
        own = [
            (f"{title} (repeat {repeat + 1}/{repeats})" if repeats > 1 else title,
             settings.replace(seed=settings.evaluation.seed + repeat))
            for title, settings in points
        ]  # fmt: skip
        places = [resources.workdir / _place(i, repeat) for i in range(len(points))]
        of_repeats.append(_validate(own, places, categories, resources, asked, share))
    found = list(zip(*of_repeats, strict=True))
    criteria = np.array([[criterion_of(of) for of in of_point] for of_point in found])
    compared = compare(criteria, least_gain)
    rows = [
        {
            "point": title,
            "criterion": compared.mean[number],
            "behind": compared.behind[number],
            "standard_error": compared.error[number],
            "categories": {
                name: records.mean([of[name] for of in found[number]], CRITERION)
                for name in found[number][0]
            },
            "repeats": list(found[number]),
        }
        for number, (title, _) in enumerate(points)
    ]
    return compared.winner, rows


def _place(number: int, repeat: int) -> str:
    """Where a candidate's results in one repeat are kept, below the work directory."""
    return f"validation/{number}-{repeat}"


def _validate(
    points: Sequence[tuple[str, config.Config]],
    places: Sequence[Path],
    categories: Sequence[Category],
    resources: machine.Resources,
    asked: str,
    share: float,
) -> list[dict[str, dict[str, float | None]]]:
    """What every point comes to in one repeat, where it is not known from `places`."""
    from sgfr_jax.commands.sweeping import validation

    found = [frozen.validated(place, asked) for place in places]
    if None not in found:
        return found
    candidates = [settings for _, settings in points]
    held_out = validation.of_all(categories, candidates, share, candidates[0].evaluation.seed)
    for settings in candidates:
        config.check_sizes(settings, {c.name: len(c.train) for c in held_out})
    for number, (title, settings) in enumerate(points):
        if found[number] is None:
            print(f"{number + 1}/{len(points)}: {title}", file=sys.stderr)
            places[number].mkdir(parents=True, exist_ok=True)
            below = resources._replace(workdir=places[number])
            found[number] = evaluate(settings, held_out, below)
            frozen.keep_validated(places[number], asked, found[number])
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text, in percent: the criterion, what is behind the best, and every metric."""
    heads = "  ".join(f"{n:>11}" for n in CRITERION)
    width = max(len(row["point"]) for row in rows)
    lines = [f"{'point':{width}}  {'criterion':>9}  {'behind':>12}  {heads}"]
    for row in rows:
        means = records.mean(list(row["categories"].values()), CRITERION)
        values = "  ".join(f"{100 * (value or 0):11.1f}" for value in means.values())
        behind = f"{100 * row['behind']:.2f}"
        if len(row["repeats"]) > 1:
            behind += f" ± {100 * row['standard_error']:.2f}"
        lines.append(
            f"{row['point']:{width}}  {100 * row['criterion']:9.2f}  {behind:>12}  {values}"
        )
    return "\n".join(lines)


def choose(
    points: Sequence[tuple[str, config.Config]],
    categories: Sequence[Category],
    resources: machine.Resources,
) -> frozen.Choice:
    """The choice in the work directory, or a new one that is written there.

    Raises:
      ConfigError: if the work directory holds the test score of another choice.
    """
    repeats, least_gain = REPEATS.value, LEAST_GAIN.value / 100
    asked = question(points, categories, SHARE.value, repeats, least_gain)
    choice = frozen.kept(resources.workdir, asked)
    if choice is not None:
        print("chosen before; not chosen anew", file=sys.stderr)
        return choice
    path = resources.workdir / frozen.FILE
    if path.exists():
        print(f"note: {path} answers another question: it is replaced", file=sys.stderr)
    winner, rows = select(
        points, categories, resources, share=SHARE.value, repeats=repeats, least_gain=least_gain
    )
    title, chosen = points[winner]
    choice = frozen.Choice(title, chosen.flat(), rows, asked)
    frozen.keep(resources.workdir, choice)
    return choice


def score_test(
    settings: config.Config,
    choice: frozen.Choice,
    categories: Sequence[Category],
    resources: machine.Resources,
) -> None:
    """Scores a choice on the test set and reports it, or reports the score that there is.

    Raises:
      ConfigError: if the choice was scored on other test images.
    """
    frozen.begin_scoring(resources.workdir, choice, frozen.test_set(categories))
    below = resources._replace(workdir=frozen.test_directory(resources.workdir))
    finished = frozen.scored(resources.workdir)
    if finished is None:
        finished = run.run(settings, below)
    else:
        print("scored before; not scored anew", file=sys.stderr)
    run.report(finished, below.workdir)


def _given() -> set[str]:
    """The flags that the command line names, all of which a selection uses."""
    given = options.given()
    for name in sorted(given.intersection(_OF_A_RUN)):
        if name not in _OF_A_SCORE:
            raise checking.ConfigError(f"--{name} is for experiments.run, not for a selection")
        if not SCORE_TEST.value:
            raise checking.ConfigError(f"--{name} is of the test score: add --score_test")
    return given


def main(argv: Sequence[str]) -> None:
    """Selects, and turns every foreseen mistake into one line and an exit status."""
    starting.start(argv, "the same command goes on after the last finished candidate")
    from sgfr_jax.commands.files import workdirs

    default = f"runs/select_{options.DATASET.value}"
    with starting.exit_on_mistakes(f"--workdir={options.WORKDIR.value or default}"):
        where = options.workdir_from_flags(default)
        workdir = checking.path("workdir", where)
        if options.cluster_from_flags() is not None:
            raise checking.ConfigError(
                "experiments.select runs in one process: start one, or add --distributed=never"
            )
        given = _given()
        points = parse_grid(CANDIDATES.value, options.named_by_flags(), given)
        resources = starting.resources_from_flags(workdir)
        records.open_workdir(workdir)
        with written.opened(workdir, "--workdir", "select") as output:
            found = inputs.load_data(points[0][1], resources.accept_license)
            inputs.print_notes(found)
            test = frozen.test_directory(workdir).name
            workdirs.check_inputs(found, workdir, ("validation", test))
            output.claim(frozen.FILE)
            for number, repeat in itertools.product(range(len(points)), range(REPEATS.value)):
                output.claim(f"{_place(number, repeat)}/{frozen.VALIDATED}")
            choice = choose(points, found, resources)
            print(f"\n{table(choice.rows)}\n\nchosen without labels: {choice.point}", end=" ")
            print(f"({workdir / frozen.FILE})")
            if SCORE_TEST.value:
                score_test(dict(points)[choice.point], choice, found, resources)


def console() -> None:
    """The command `sgfr-select`."""
    launching.launch(main, __name__)
