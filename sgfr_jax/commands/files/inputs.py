"""The images of a run: listed, checked against its configuration, and read."""

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sgfr_jax import datasets
from sgfr_jax.commands.files import reading
from sgfr_jax.commands.files.reading import Checked
from sgfr_jax.commands.flags import config
from sgfr_jax.commands.flags.checking import ConfigError, as_flags
from sgfr_jax.commands.flags.config import Config
from sgfr_jax.commands.host import devices, machine, memory, processes, progress
from sgfr_jax.commands.host.machine import Resources
from sgfr_jax.datasets import counts
from sgfr_jax.detector import resolution, sampling, settle, splits
from sgfr_jax.detector import stages as machinery
from sgfr_jax.detector.stages import Stages


def load_data(settings: Config, accept_license: bool = False) -> tuple[datasets.Category, ...]:
    """The categories of a configuration's data set, listed and not yet read."""
    data = settings.data
    found = datasets.load(
        data.dataset,
        data.data_dir,
        categories=data.categories,
        split=data.split,
        split_seed=data.split_seed,
        prepared_dir=data.prepared_dir,
        accept_license=accept_license,
        train_glob=data.train_glob,
        test_glob=data.test_glob,
        mask_glob=data.mask_glob,
        manifest=data.manifest,
    )
    return found if data.shots is None else tuple(_few(c, settings) for c in found)


def _few(category: datasets.Category, settings: Config) -> datasets.Category:
    """The category with `--shots` of its training images; more shots keep those of fewer."""
    num_train, shots = len(category.train), settings.data.shots
    if shots > num_train:
        raise ConfigError(
            f"--shots={shots}, but category {category.name} has {num_train} training images: use at"
            " most that many"
        )
    drawn = np.random.default_rng(settings.evaluation.seed).permutation(num_train)[:shots]
    return category._replace(train=tuple(category.train[i] for i in sorted(drawn)))


def num_memories(settings: Config, resources: Resources) -> int:
    """Over how many memories nominal patches are spread while banks are chosen: k-center can."""
    method = settings.method
    if method.sampler != "k_center" or method.subspaces == "dictionary":
        return 1
    return devices.num_memories(devices.lay_out(resources.mesh))


def check_listed(
    found: Sequence[datasets.Category],
    settings: Config,
    resources: Resources,
    model_paths: Iterable[Path],
) -> None:
    """Checks, and notes, what can be told before an image is read or a network loaded."""
    from sgfr_jax import saving

    for path in model_paths:
        saving.check_place(path)
    print_notes(found)
    if settings.data.shots is None and processes.first():
        for note in counts.differences(settings.data.dataset, found):
            print(f"note: {note}", file=sys.stderr)
    num_train = {category.name: len(category.train) for category in found}
    config.check_sizes(settings, num_train)
    memory.check_batch(settings, resources.batch_size)
    memory.check(settings, num_train, num_memories(settings, resources))


def print_notes(found: Iterable[datasets.Category | Checked]) -> None:
    """Prints what listing or reading images has found, which a long run should not wait to say."""
    for category in found if processes.first() else ():
        for note in category.notes:
            print(f"note: {category.name}: {note}", file=sys.stderr)


def read(found: Sequence[datasets.Category], stages: Stages, settings: Config) -> list[Checked]:
    """The categories with their images read and checked, after saying what is found in them.

    Raises:
      DatasetError, WeightsError: on the first bad image, or if the network cannot be loaded.
    """
    hashes = {c.name: splits.hash_images(c.train, stages.services) for c in found}
    embedded = {c.name for c in found if is_embedded(c, hashes[c.name], stages, settings)}
    if len(embedded) < len(found):
        stages.embedders[0].load()  # weights that do not fit should be known before images are read
    checked = reading.check(found, settings, hashes, embedded, stages.services)
    said = {category.name: category.notes for category in found}
    print_notes(
        c._replace(notes=tuple(note for note in c.notes if note not in said[c.name]))
        for c in checked
    )
    return checked


def is_embedded(
    category: datasets.Category, hashes: tuple[str, ...], stages: Stages, settings: Config
) -> bool:
    """Whether all that is seen of a category's training images has been embedded before."""
    found = reading.view_hashes(category.train, hashes, settings)
    if found is None:
        return False
    seen, large = found
    if large:
        stages = machinery.of_method(stages, resolution.enlarged(settings.method))
    return all(machine.is_embedded(embedder, own) for embedder in stages.embedders for own in seen)


def check_squares(
    settings: Config,
    checked: Sequence[Checked],
    num_memories: int | None,
    batch_size: int | None = None,
) -> None:
    """Checks, once images are read, that what is seen of them is enough, and not too much.

    Args:
      settings: of the run.
      checked: the categories, from `reading.check`.
      num_memories: as of `memory.check`; None where the patches lie in memory already.
      batch_size: as of `memory.check_batch`; None where that is known to fit.

    Raises:
      ConfigError: as `config.check_sizes`, `memory.check`.
    """
    asked = settings
    for category in checked:
        settings = category.settings(asked)
        if category.large and batch_size is not None:
            memory.check_batch(settings, batch_size)
        grid = settle.coarsest_grid(settings.method, settings.network)
        for look in category.looks():
            seen = splits.views(look.train)
            config.check_patches(settings, {look.name: sampling.num_patches(seen, grid)})
            if num_memories is not None:
                most = int(np.bincount(seen.owners).max())
                memory.check(settings, {look.name: len(seen.owners)}, num_memories, most)


def check_data(settings: Config, *, accept_license: bool = False) -> bool:
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
            dataset=settings.data.dataset,
            min_side=settle.largest_stride(settings.method, settings.network),
            workers=os.cpu_count() or 1,
            report=lambda done, total: report(1),
        )
    print(as_flags(checking.describe(result)))
    return not result.problems
