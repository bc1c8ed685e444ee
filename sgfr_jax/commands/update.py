r"""Lets a saved model learn from more nominal images, without those that it was fitted on.

    python -m experiments.update --model=runs/demo/models/brick --images=new_photographs \
        --output=models/brick_2

The images must be nominal. Every bank takes up the patches that it cannot mimic yet, and stays
within the size that a fit of all images would have given it. Images that the model knows already
are left out. --report=FILE says of each image what the model made of it before: its score, p-value,
and the share of its patches that could already be mimicked. An image far above the others may have
a defect, which the new model would take for nominal: look at those that are named.
"""

import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from absl import flags

from sgfr_jax.commands.files import csv_cells, locking, written
from sgfr_jax.commands.flags import checking, launching, model_flags, options, starting
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.host import terminal

flags.adopt_module_key_flags(model_flags)
OUTPUT = flags.DEFINE_string(
    "output", None, "The directory of the new model; the directory of --model replaces the old one."
)
REPORT = flags.DEFINE_string(
    "report",
    None,
    "A CSV file for what was known of each image: path, score, p_value, known. An earlier report is"
    " replaced.",
)
# Of experiments.run: what does not change what a model is.
_SHARED = (
    "weights", "batch_size", "workers", "cache_dir", "cache_gb", "mesh", "skip_bad_images",
)  # fmt: skip
for name in _SHARED:
    flags.declare_key_flag(name)

COLUMNS = ("path", "score", "p_value", "known")
# Images above the old model's threshold for this rate are named: the rate, and how many at most.
FALSE_ALARM_RATE, _NAMED = 0.01, 5


def update() -> None:
    """Does what the flags ask for.

    Raises:
      ConfigError, DatasetError, SavingError, WeightsError: on mistakes that the user can mend.
    """
    model_flags.check((model_flags.MODEL, model_flags.IMAGES, OUTPUT), _SHARED)
    if REPORT.value is not None:
        _check_report(checking.path("report", REPORT.value))
    from sgfr_jax import saving

    output = checking.path("output", OUTPUT.value)
    saving.check_place(output)
    # Of two at once into one model, what the one learned would be lost.
    with locking.held(output, f"--output={output}"):
        _update(output)


def _update(output: Path) -> None:
    """As `update`, with the place of the new model held by this process alone."""
    # Imported late: `--help` and a mistyped flag need not wait for these.
    from sgfr_jax import thresholds
    from sgfr_jax.commands.files import prediction, reading, records
    from sgfr_jax.commands.flags.config import Config
    from sgfr_jax.commands.host import environment, machine
    from sgfr_jax.datasets import Category, Example, depth, left_out
    from sgfr_jax.detector import growing, model, saved, splits

    resources = starting.resources_from_flags(Path())
    path = checking.path("model", model_flags.MODEL.value)
    detector = saved.load(path, weights=model_flags.weights())
    growing.check(detector)
    images = f"--images={model_flags.IMAGES.value}"
    sources, faulty = prediction.parted(prediction.find(model_flags.IMAGES.value))
    if not sources:
        raise ConfigError(f"{images} names no image that can be read: {faulty[0].problem}")
    written.refuse_inside([output], [source.path for source in sources], images, "--output")
    white, category = detector.about.white, detector.about.category
    unlike = depth.note_on([source.path for source in sources], white)
    not_read = prediction.not_read(model_flags.IMAGES.value)
    skipped = (f"skipped: {one.problem}" for one in faulty)
    for note in (*skipped, *left_out.notes(not_read), *unlike):
        print(terminal.one_line(f"note: {note}"), file=sys.stderr)
    examples = tuple(
        Example(s.name, s.path.absolute(), 0, "good", None, white=white) for s in sources
    )
    stages = model.stages_of(detector, machine.services(resources))
    hashes = {category: splits.hash_images(examples)}
    # Read as whole images; what is looked at of them is the model's to say.
    settings = Config(method=detector.method).replace(
        geometry="square", skip_bad_images=options.SKIP_BAD_IMAGES.value
    )
    (checked,) = reading.check(
        [Category(category, examples, ())], settings, hashes, (), stages.services
    )
    split = growing.unseen(detector, checked.train)
    num_known = len(checked.train.examples) - len(split.examples)
    if not split.examples:
        raise ConfigError(f"{images}: the model has learned from all of these already")
    made_with = json.dumps(environment.describe(), sort_keys=True)
    key = jax.random.key(detector.about.seed)
    grown, seen = growing.grow(detector, stages, split, key, made_with)
    if output.is_dir() and any(output.iterdir()):
        print(f"note: the model in {output} is replaced", file=sys.stderr)
    saved.save(output, grown)
    names = [example.name for example in split.examples]
    p_values = thresholds.p_values(detector.nulls.images, np.float32(seen.scores))
    if REPORT.value is not None:
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(COLUMNS)
        for row in zip(names, seen.scores, p_values, seen.known, strict=True):
            rows.writerow([csv_cells.cell(row[0]), *(f"{value:.6g}" for value in row[1:])])
        records.write_text(checking.path("report", REPORT.value), table.getvalue())
    threshold = thresholds.at_false_alarm_rate(detector.nulls.images, FALSE_ALARM_RATE).score
    suspects = [i for i in np.argsort(-seen.scores) if seen.scores[i] > threshold]
    if suspects:
        named = ", ".join(names[i] for i in suspects[:_NAMED])
        print(
            f"note: {len(suspects)} of {len(names)} images score above the old model's threshold"
            f" for {FALSE_ALARM_RATE:.0%} false alarms; a defect in them would now be taken for"
            f" nominal: {named}{', ...' if len(suspects) > _NAMED else ''}",
            file=sys.stderr,
        )
    known = f"; {num_known} known already were left out" if num_known else ""
    reported = "" if REPORT.value is None else f", what was known of the images to {REPORT.value}"
    print(f"{grown.about.notes[-2]}{known}; written to {output}{reported}")


def _check_report(path: Path) -> None:
    """Raises ConfigError where no report can be written, before any work is done."""
    given = f"--report={REPORT.value}"
    if path.is_dir() or REPORT.value.endswith(("/", os.sep)):
        raise ConfigError(f"{given} is a directory: name a CSV file, such as {path / 'report.csv'}")
    for flag in (model_flags.MODEL, OUTPUT):
        if path.absolute().is_relative_to(checking.path(flag.name, flag.value).absolute()):
            raise ConfigError(f"{given} lies in the model of --{flag.name}: name a file elsewhere")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise ConfigError(f"{given} cannot be written in '{above}': name a file elsewhere")
    written.check_file(path, given, _is_report)
    if path.exists():
        print(f"note: {given} replaces the report of an earlier update", file=sys.stderr)


def _is_report(path: Path) -> bool:
    """Whether a file begins as a report does."""
    header = f"{','.join(COLUMNS)}\n".encode()
    with path.open("rb") as file:
        return file.read(len(header)) == header


def main(argv: Sequence[str]) -> None:
    """Updates, and turns every foreseen mistake into one line and an exit status."""
    starting.start(argv, "the same command begins anew")
    with starting.exit_on_mistakes(f"--output={OUTPUT.value}"):
        update()


def console() -> None:
    """The command `sgfr-update`."""
    launching.launch(main, __name__)
