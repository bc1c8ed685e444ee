r"""Fits on nominal images, finds the defects in the test images, and measures how well.

    python -m experiments.run
    python -m experiments.run --dataset=mvtec --data_dir=/data/mvtec_anomaly_detection
    python -m experiments.run --dataset=folder --data_dir=my_photographs --save_maps

Each category is fitted alone. The work directory receives results.json, results.csv, scores.csv,
config.json, figures, what `experiments.report --html` makes a page of, and written.jsonl, which
names all of these: nothing else there is overwritten or removed.
"""

import contextlib
import dataclasses
import functools
import itertools
import logging
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import flags

from sgfr_jax import datasets
from sgfr_jax.commands.files import (
    cache,
    filenames,
    records,
    written,
)
from sgfr_jax.commands.flags import config, launching, options
from sgfr_jax.commands.host import (
    compilation,
    devices,
    interruption,
    memory,
    processes,
    progress,
    terminal,
)
from sgfr_jax.commands.pages import tables
from sgfr_jax.datasets import batches, counts
from sgfr_jax.detector import choices, streams

flags.adopt_module_key_flags(options)


class Resources(NamedTuple):
    """What a run may use and where it writes; none of it changes a number."""

    workdir: Path
    batch_size: int = 16
    workers: int = 0  # processes that read images; 0: threads of this one
    num_figures: int = 2
    num_review: int = 16  # pictures kept for a report's page: of the worst misses, and alarms
    save_maps: bool = False
    save_model: bool = False
    diagnose: bool = False
    cache_dir: Path | None = None  # of embeddings; None: none are kept
    cache_bytes: int = 0
    accept_license: bool = False  # what is missing may be downloaded
    mesh: str = devices.AUTO  # which devices; see `devices.parse`


def run(settings: config.Config, resources: Resources) -> list[records.Record]:
    """Runs every category, going on where an interrupted run of the same settings stopped.

    Args:
      settings: from `config.resolve`.
      resources: what to use and where to write.

    Returns:
      A record of each category.

    Raises:
      ConfigError, DatasetError, WeightsError: on mistakes that the user can mend.
    """
    with contextlib.ExitStack() as stack:
        output = None
        if processes.first():
            records.open_workdir(resources.workdir)
            output = stack.enter_context(written.opened(resources.workdir, "--workdir", "run"))
        return _run(settings, resources, output)


def _run(
    settings: config.Config, resources: Resources, output: written.Output | None
) -> list[records.Record]:
    """As `run`, with the work directory that the first process alone holds."""
    # Imported late: `--help` and a mistyped flag need not wait for these.
    from sgfr_jax.commands.files import workdirs
    from sgfr_jax.commands.host import environment
    from sgfr_jax.commands.pages import category as one_category

    workdir = resources.workdir
    num_memories = devices.num_memories(settings, devices.lay_out(resources.mesh, settings))
    found = processes.first_then_others(lambda: load_data(settings, resources.accept_license))
    save_model = resources.save_model and processes.first()
    model_paths = {}
    if save_model:
        of_category = filenames.shortened
        model_paths = {c.name: workdir / "models" / of_category(c.name) for c in found}
    if output is not None:
        workdirs.check(
            found, output, num_figures=resources.num_figures, save_maps=resources.save_maps,
            save_model=resources.save_model, reviewed=bool(resources.num_review),
        )  # fmt: skip
    _check_listed(found, settings, num_memories, resources.batch_size, model_paths.values())
    detector, embedders = make_detector(settings, resources)
    checked = _read(found, embedders, settings, resources.workers)
    check_squares(settings, checked, num_memories)

    shown = {
        "num_figures": resources.num_figures,
        "save_maps": resources.save_maps,
        "num_review": resources.num_review,
        "diagnose": resources.diagnose,
    }
    fitted = []  # the last category's detector and test scores
    keep = (lambda *of_category: fitted.append(of_category)) if save_model else None
    into = one_category.Output(workdir, keep=keep, files=output, **shown)
    weights, made_with, code = embedders[0].digest, environment.describe(), source()
    finished = []
    for category in checked:
        # The list of categories is no part of it: another list goes on with the same records.
        digest = dataclasses.replace(settings, categories=None).digest(
            category=category.name,
            data=category.fingerprint(),
            weights=weights,
            version=made_with,
            code=code,
            output=list(shown.values()),
        )
        path = model_paths.get(category.name)
        record = _kept(into, category.name, digest, path)
        if record is not None:
            print(f"{category.name}: finished before the interruption", file=sys.stderr)
        else:
            if output is not None and resources.num_review:
                output.claim(workdirs.review_name(category.name))
            outcome = one_category.run(category, detector, settings, into)
            record = records.Record(
                category.name, digest, dataclasses.asdict(settings), made_with, **outcome
            )
            if processes.first():
                records.keep(workdir, record)
        if fitted:
            from sgfr_jax.detector import models

            of_category, scores = fitted.pop()
            model = models.make(
                settings, category, detector, of_category,
                scores=scores, weights=weights, made_with=made_with, record=digest,
            )  # fmt: skip
            models.save(path, model)
        finished.append(record)
    if output is not None:
        for name in records.FILES:
            output.claim(name)
        records.finish(workdir, finished, dataclasses.asdict(settings), made_with)
    return finished


def _check_listed(
    found: Sequence[datasets.Category],
    settings: config.Config,
    num_memories: int,
    batch_size: int,
    model_paths: Iterable[Path],
) -> None:
    """Checks, and notes, what can be told before an image is read or a network loaded."""
    from sgfr_jax import saving

    for path in model_paths:
        saving.check_place(path)
    print_notes(found)
    if settings.shots is None and processes.first():
        for note in counts.differences(settings.dataset, found):
            print(f"note: {note}", file=sys.stderr)
    num_train = {category.name: len(category.train) for category in found}
    config.check_sizes(settings, num_train)
    memory.check_batch(settings, batch_size)
    memory.check(settings, num_train, num_memories)


def print_notes(found: Iterable[datasets.Category]) -> None:
    """Prints what listing images has left out, which a long run should not wait to say."""
    for category in found if processes.first() else ():
        for note in category.notes:
            print(f"note: {category.name}: {note}", file=sys.stderr)


def _read(
    found: Sequence[datasets.Category], embedders: Sequence, settings: config.Config, workers: int
) -> Sequence:
    """The categories with their images read and checked, `loading.Checked`."""
    from sgfr_jax.detector import loading

    train_hashes = {category.name: loading.hash_images(category.train) for category in found}
    embedded = _embedded(found, train_hashes, embedders, settings)
    if len(embedded) < len(found):
        embedders[0].load()  # weights that do not fit should be known before images are read
    return loading.check(found, settings, train_hashes, embedded, workers=workers)


def _embedded(found, train_hashes, embedders, settings) -> set[str]:
    """Names of the categories whose images have all been embedded before."""
    from sgfr_jax.detector import loading

    names = set()
    for category in found:
        seen = loading.view_hashes(category.train, train_hashes[category.name], settings)
        if all_known(embedders, seen):
            names.add(category.name)
    return names


def all_known(embedders: Sequence, seen: Sequence[tuple[str, ...]] | None) -> bool:
    """Whether all that is seen of training images, of `loading.view_hashes`, lies in the cache."""
    return seen is not None and all(e.known(hashes) for e in embedders for hashes in seen)


def source() -> str:
    """A hash of the code that results depend on; the commit does not tell two edits apart."""
    import sgfr_jax

    return cache.source_digest(sgfr_jax)


def _kept(output, category: str, digest: str, model: Path | None) -> records.Record | None:
    """The record of a category that this very run has finished, or None; the same in all processes.

    Finished is what has all that goes with its record: the model, where one is wanted, and what a
    review shows. Another run in this directory may have put its own in their places.
    """
    record = records.kept(output.workdir, digest)
    if record is not None and model is not None:
        from sgfr_jax.detector import models

        record = record if models.saved_by(model) == digest else None
    if record is not None and output.num_review:
        from sgfr_jax.commands.pages import review

        record = record if review.load(output.workdir, category, record.results) else None
    return processes.agreed(record)


def check_squares(settings: config.Config, checked: Sequence, num_memories: int | None) -> None:
    """Checks, once images are read, that what is seen of them is enough, and not too much.

    Args:
      settings: of the run.
      checked: the categories, from `loading.check`.
      num_memories: as of `memory.check`; None where the patches lie in memory already.

    Raises:
      ConfigError: as `config.check_sizes`, `memory.check`.
    """
    from sgfr_jax.detector import loading, sampling

    grid = config.coarsest_grid(settings)
    for category in checked:
        for look in category.looks():
            seen = loading.views(look.train)
            config.check_patches(settings, {look.name: sampling.num_patches(seen, grid)})
            if num_memories is not None:
                most = int(np.bincount(seen.owners).max())
                memory.check(settings, {look.name: len(seen.owners)}, num_memories, most)


def check_data(settings: config.Config, *, accept_license: bool = False) -> bool:
    """Reads every image, and prints what a run would use and what is wrong with it.

    Args:
      settings: from `config.resolve`.
      accept_license: whether what is missing may be downloaded.

    Returns:
      Whether everything can be used.

    Raises:
      DatasetError: if it cannot even be listed.
    """
    from sgfr_jax.datasets import checking

    found = load_data(settings, accept_license)
    total = sum(len(c.train) + len(c.validation) + len(c.test) + len(c.private) for c in found)
    with progress.bar("checking", total, "images") as report:
        result = checking.survey(
            found,
            dataset=settings.dataset,
            min_side=max(config.strides(settings)),
            workers=os.cpu_count() or 1,
            report=lambda done, total: report(1),
        )
    print(checking.describe(result))
    return not result.problems


def load_data(
    settings: config.Config, accept_license: bool = False
) -> tuple[datasets.Category, ...]:
    """The categories of a configuration's data set, listed and not yet read."""
    found = datasets.load(
        settings.dataset,
        settings.data_dir,
        categories=settings.categories,
        split=settings.split,
        split_seed=settings.split_seed,
        prepared_dir=settings.prepared_dir,
        accept_license=accept_license,
        train_glob=settings.train_glob,
        test_glob=settings.test_glob,
        mask_glob=settings.mask_glob,
        manifest=settings.manifest,
    )
    return found if settings.shots is None else tuple(_few(c, settings) for c in found)


def _few(category: datasets.Category, settings: config.Config) -> datasets.Category:
    """The category with `--shots` of its training images; more shots keep those of fewer."""
    num_train = len(category.train)
    if settings.shots > num_train:
        raise choices.ConfigError(
            f"--shots={settings.shots}, but category {category.name} has {num_train} training"
            " images: use at most that many"
        )
    drawn = np.random.default_rng(settings.seed).permutation(num_train)[: settings.shots]
    return category._replace(train=tuple(category.train[i] for i in sorted(drawn)))


def make_detector(settings: config.Config, resources: Resources):
    """The detector of a configuration, and an embedder for each image size that it looks at."""
    from sgfr_jax import backbones
    from sgfr_jax.detector import embedding, fused, stages

    layout = devices.lay_out(resources.mesh, settings)
    digest = backbones.weights_digest(settings.backbone, settings.weights)
    planned = streams.plan(settings) if settings.has_streams else ()

    @functools.cache
    def load() -> backbones.Backbone:
        found = backbones.load(settings.backbone, settings.weights, config.levels(settings))
        return found._replace(state=devices.replicate(found.state, layout))

    def embedder(of: config.Config, compiled, shape=None) -> embedding.Embedder:
        return embedding.Embedder(
            config=of,
            load=load,
            digest=digest,
            compiled=compiled,
            batch_size=devices.round_up(resources.batch_size, layout),
            cache_dir=resources.cache_dir,
            cache_bytes=resources.cache_bytes,
            shape=shape,
            layout=layout,
        )

    if not planned:
        of_all = embedder(settings, embedding.make_embedding(settings, layout))
        return stages.make_detector(of_all), [of_all]
    views = []
    for size, group in itertools.groupby(planned, lambda stream: stream.image_size):
        of_view = tuple(group)
        seen = dataclasses.replace(
            settings, image_size=size, layers=tuple(stream.level for stream in of_view)
        )
        floats = sum(math.prod(stream.shape) for stream in of_view)
        compiled = embedding.make_stream_embedding(seen, of_view, layout)
        views.append((embedder(seen, compiled, (1, floats)), of_view))
    return fused.make_detector(settings, views), [view[0] for view in views]


def start(argv: Sequence[str], what_next: str = interruption.RESUMED) -> None:
    """What every command begins with: no stray arguments, a quiet log, an end without a mess.

    Args:
      argv: what is left of the command line.
      what_next: as of `interruption.exit_at_once`.
    """
    terminal.make_plain()
    if len(argv) > 1:
        sys.exit(f"error: unexpected arguments: {' '.join(argv[1:])}; flags start with --")
    # JAX tells at this level of every platform that it tried in vain.
    logging.getLogger("jax").setLevel(logging.WARNING)
    interruption.exit_at_once(_clean_up, what_next)


def resources_from_flags(workdir: Path) -> Resources:
    """What the flags allow a run to use; compiled programs are kept from here on.

    Raises:
      ConfigError: if a flag cannot be understood.
    """
    devices.parse(options.MESH.value)
    cache_dir = _cache_dir()
    if cache_dir is None and flags.FLAGS[options.CACHE_GB.name].present:
        raise choices.ConfigError(
            f"--cache_gb={options.CACHE_GB.value:g} must be left out with --cache_dir=: nothing is"
            " kept"
        )
    if cache_dir is not None:
        cache.remove_abandoned(cache_dir)
        compilation.keep_in(cache_dir / "compiled")
    return Resources(
        workdir,
        batch_size=options.BATCH_SIZE.value,
        mesh=options.MESH.value,
        workers=options.WORKERS.value,
        num_figures=options.NUM_FIGURES.value,
        num_review=options.NUM_REVIEW.value,
        save_maps=options.SAVE_MAPS.value,
        save_model=options.SAVE_MODEL.value,
        diagnose=options.DIAGNOSE.value,
        cache_dir=cache_dir,
        cache_bytes=int(min(options.CACHE_GB.value, 1e9) * 1e9),
        accept_license=options.ACCEPT_LICENSE.value,
    )


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


def foreseen(error: Exception) -> bool:
    """Whether an error is the user's to mend; anything else deserves its traceback."""
    from sgfr_jax.backbones import WeightsError
    from sgfr_jax.saving import SavingError

    # The system's own: a full disk, a name too long, a directory out of reach.
    mistakes = choices.ConfigError | datasets.DatasetError | WeightsError | SavingError
    return isinstance(error, mistakes | OSError) or _is_of_memory(error)


def _is_of_memory(error: Exception) -> bool:
    """Whether memory has run out, of the host or of a device."""
    of_device = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    return isinstance(error, MemoryError) or of_device


@contextlib.contextmanager
def exit_on_mistakes(into: str) -> Iterator[None]:
    """Turns every foreseen mistake into one line and an exit status, of all processes.

    Args:
      into: as of `launching.told`.
    """
    try:
        with processes.ending_together(foreseen):
            yield
    except Exception as error:
        if not foreseen(error):
            raise
        if _is_of_memory(error):
            why = (str(error).splitlines() or ["without a word"])[0]
            sys.exit(f"error: memory has run out ({why}): lower --batch_size or --image_size")
        sys.exit(launching.told(error, into))


def main(argv: Sequence[str]) -> None:
    """Runs, and turns every foreseen mistake into one line and an exit status."""
    start(argv)
    default = f"runs/{options.DATASET.value}"
    with exit_on_mistakes(f"--workdir={options.WORKDIR.value or default}"):
        workdir = choices.path("workdir", options.workdir_from_flags(default))
        settings = options.config_from_flags()
        if options.CHECK_DATA.value:
            sys.exit(0 if check_data(settings, accept_license=options.ACCEPT_LICENSE.value) else 1)
        resources = resources_from_flags(workdir)
        processes.join(options.cluster_from_flags())
        finished = run(settings, resources)
        processes.leave()
    if processes.first():
        report(finished, workdir)


def console() -> None:
    """The command `sgfr-run`."""
    launching.launch(main, __name__)


def _clean_up() -> None:
    batches.end_workers()
    cache_dir = _cache_dir()
    if cache_dir is not None:
        cache.remove_unfinished(cache_dir)


def _cache_dir() -> Path | None:
    return choices.path("cache_dir", options.CACHE_DIR.value) if options.CACHE_DIR.value else None
