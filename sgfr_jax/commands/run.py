r"""Fits on nominal images, finds the defects in the test images, and measures how well.

    python -m experiments.run
    python -m experiments.run --dataset=mvtec --data_dir=/data/mvtec_anomaly_detection
    python -m experiments.run --dataset=folder --data_dir=my_photographs --save_maps

Each category is fitted alone. The work directory receives results.json, results.csv, scores.csv,
config.json, figures, what `experiments.report --html` makes a page of, and written.jsonl, which
names all of these: nothing else there is overwritten or removed.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from sgfr_jax.commands.files import filenames, inputs, reading, records, workdirs, written
from sgfr_jax.commands.flags import checking, launching, options, starting
from sgfr_jax.commands.flags.config import Config, speaking_of_flags
from sgfr_jax.commands.host import environment, machine, processes
from sgfr_jax.commands.host.machine import Resources
from sgfr_jax.commands.pages import category as one_category
from sgfr_jax.commands.pages import review, tables
from sgfr_jax.detector import model, network, saved, stages

flags.adopt_module_key_flags(options)


def run(settings: Config, resources: Resources) -> list[records.Record]:
    """Runs every category, going on where an interrupted run of the same settings stopped.

    Args:
      settings: from `config.resolve`.
      resources: what to use and where to write.

    Returns:
      A record of each category.

    Raises:
      ConfigError, DatasetError, WeightsError: on mistakes that the user can mend.
    """
    if not processes.first():
        return _run(settings, resources, None)
    records.open_workdir(resources.workdir)
    with written.opened(resources.workdir, "--workdir", "run") as output:
        return _run(settings, resources, output)


def make_stages(settings: Config, resources: Resources) -> stages.Stages:
    """The stages of a configuration on this machine.

    Raises:
      ConfigError, WeightsError: if there are too few devices, or no weights.
    """
    method = settings.method
    with speaking_of_flags():
        found = network.ours(method.backbone, method.weights)
    services, baselines = machine.services(resources), settings.evaluation.baselines
    return stages.make(method, found, services, baselines=baselines)


def _run(
    settings: Config, resources: Resources, output: written.Output | None
) -> list[records.Record]:
    """As `run`, with the work directory that the first process alone holds."""
    workdir = resources.workdir
    found = processes.first_then_others(
        lambda: inputs.load_data(settings, resources.accept_license)
    )
    model_paths = _model_paths(found, resources)
    if output is not None:
        workdirs.check(
            found, output, num_figures=resources.num_figures, save_maps=resources.save_maps,
            save_model=bool(model_paths), reviewed=bool(resources.num_review),
        )  # fmt: skip
    inputs.check_listed(found, settings, resources, model_paths.values())
    made = make_stages(settings, resources)
    checked = inputs.read(found, made, settings)
    num_memories = inputs.num_memories(settings, resources)
    inputs.check_squares(settings, checked, num_memories, resources.batch_size)

    shown = {
        "num_figures": resources.num_figures,
        "save_maps": resources.save_maps,
        "num_review": resources.num_review,
        "diagnose": resources.diagnose,
    }
    made_with, code = environment.describe(), environment.source()
    finished = []
    for category in checked:
        # The list of categories is no part of it: another list goes on with the same records.
        digest = settings.replace(categories=None).digest(
            category=category.name,
            data=category.fingerprint(made.services),
            weights=made.network.digest,
            version=made_with,
            code=code,
            output=list(shown.values()),
        )
        path, fitted = model_paths.get(category.name), []
        keep = fitted.append if path is not None else None
        into = one_category.Output(workdir, keep=keep, files=output, **shown)
        record = _kept(into, category.name, digest, path)
        if record is not None:
            print(f"{category.name}: finished before the interruption", file=sys.stderr)
        else:
            if output is not None and resources.num_review:
                output.claim(workdirs.review_name(category.name))
            outcome = one_category.run(category, made, settings, into)
            record = records.Record(category.name, digest, settings.flat(), made_with, **outcome)
            if processes.first():
                records.keep(workdir, record)
        for one in fitted:
            saved.save(path, _detector(made, settings, category, one, made_with, digest))
        finished.append(record)
    if output is not None:
        for name in records.FILES:
            output.claim(name)
        records.finish(workdir, finished, settings.flat(), made_with)
    return finished


def _model_paths(found: Sequence, resources: Resources) -> dict[str, Path]:
    """Where the models of categories go, if they are wanted, and this process writes."""
    if not resources.save_model or not processes.first():
        return {}
    directory = resources.workdir / "models"
    return {c.name: directory / filenames.shortened(c.name) for c in found}


def _detector(
    made: stages.Stages,
    settings: Config,
    category: reading.Checked,
    scored: one_category.Kept,
    made_with: dict[str, Any],
    digest: str,
) -> model.Detector:
    """The detector of a category that has been fitted and scored."""
    labels = np.array([example.label for example in category.test.examples], bool)
    return model.make(
        stages.of_method(made, category.settings(settings).method),
        settings.evaluation.seed,
        category.train,
        category.geometries,
        scored.fitted,
        name=category.name,
        notes=category.notes,
        labelled=(scored.scores, labels),
        made_with=json.dumps(made_with, sort_keys=True),
        source=json.dumps(dataclasses.asdict(settings.data)),
        record=digest,
    )


def _kept(output, category: str, digest: str, path: Path | None) -> records.Record | None:
    """The record of a category that this very run has finished, or None; the same in all processes.

    Finished is what has all that goes with its record: the model, where one is wanted, and what a
    review shows. Another run in this directory may have put its own in their places.
    """
    record = records.kept(output.workdir, digest)
    if record is not None and path is not None:
        record = record if saved.saved_by(path) == digest else None
    if record is not None and output.num_review:
        record = record if review.load(output.workdir, category, record.results) else None
    return processes.agreed(record)


def report(finished: Sequence[records.Record], workdir: Path) -> None:
    """Prints what a run found."""
    print(f"\n{tables.render(finished)}\n")
    for record in finished:
        for note in record.notes:
            print(f"{record.category}: {note}")
    places = ("figures", "review", "maps", "models")
    made = [*records.FILES, *(f"{name}/" for name in places if (workdir / name).is_dir())]
    print(f"Written to {workdir}: {', '.join(made)}")
    shown = launching.as_typed(f"python -m experiments.report --workdir={workdir}")
    print(f"To look at it: {shown}")


def main(argv: Sequence[str]) -> None:
    """Runs, and turns every foreseen mistake into one line and an exit status."""
    starting.start(argv)
    default = f"runs/{options.DATASET.value}"
    with starting.exit_on_mistakes(f"--workdir={options.WORKDIR.value or default}"):
        workdir = checking.path("workdir", options.workdir_from_flags(default))
        settings = options.config_from_flags()
        if options.CHECK_DATA.value:
            fine = inputs.check_data(settings, accept_license=options.ACCEPT_LICENSE.value)
            sys.exit(0 if fine else 1)
        resources = starting.resources_from_flags(workdir)
        processes.join(options.cluster_from_flags())
        finished = run(settings, resources)
        processes.leave()
    if processes.first():
        report(finished, workdir)


def console() -> None:
    """The command `sgfr-run`."""
    launching.launch(main, __name__)
