"""What a sweep has to do: a record for every point and category, in groups that share work."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from sgfr_jax import backbones
from sgfr_jax.commands.files import inputs
from sgfr_jax.commands.flags import config
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.sweeping import grids
from sgfr_jax.datasets import Category
from sgfr_jax.datasets.contents import content_hash
from sgfr_jax.detector.method import Method, Stage


class Task(NamedTuple):
    """One point on one category."""

    title: str  # for messages
    category: str
    config: config.Config  # of the point, for this category alone
    name: str  # of its record: a hash of all that its numbers follow from


def plan(points: Sequence[grids.Point], *, accept_license: bool = False) -> list[Task]:
    """The tasks of a grid, each once, those that share the most beside each other.

    Lists and hashes the images, and reads none.

    Args:
      points: from `grids.points`.
      accept_license: whether what is missing may be downloaded.

    Raises:
      ConfigError: names the grid, the point and what does not fit the data.
      DatasetError, WeightsError: if these cannot be found.
    """
    load = functools.cache(functools.partial(inputs.load_data, accept_license=accept_license))
    fingerprints = _Fingerprints()
    digest = functools.cache(backbones.weights_digest)
    found: dict[str, Task] = {}
    for point in points:
        settings = point.config
        try:
            categories = load(data_of(settings))
            config.check_sizes(settings, {c.name: len(c.train) for c in categories})
        except ConfigError as error:
            raise ConfigError(f"{point.title}: {error}") from error
        weights = digest(settings.method.backbone, settings.method.weights)
        for category in categories:
            of_one = settings.replace(categories=(category.name,))
            # Where files lie is no part of what is in them.
            placeless = settings.replace(categories=None, data_dir=None, weights=None)
            name = placeless.digest(
                category=category.name, data=fingerprints.of(category), weights=weights
            )
            title = f"{point.title}, category {category.name}"
            found.setdefault(name, Task(title, category.name, of_one, name))
    places = {task.name: place for place, task in enumerate(found.values())}
    firsts = [(of, _firsts(found.values(), of)) for of in (data_of, embedding_of, bank_of)]

    def nearness(task: Task) -> list[int]:
        """The places of the first with the same images, of that with the same bank, its own."""
        return [*(places[first[of(task.config)]] for of, first in firsts), places[task.name]]

    return sorted(found.values(), key=nearness)


def data_of(settings: config.Config) -> config.Config:
    """A configuration of the same images and nothing else."""
    data = dataclasses.replace(settings.data, skip_bad_images=False)
    kept = config.Config(data)
    if data.shots is None:
        return kept
    return kept.replace(seed=settings.evaluation.seed)  # which draws them


def embedding_of(settings: config.Config) -> config.Config:
    """A configuration of the same images with the same embeddings and nothing else."""
    found = dataclasses.replace(data_of(settings), data=settings.data)
    return dataclasses.replace(found, method=settings.method.only(Stage.EMBED))


def bank_of(settings: config.Config) -> config.Config:
    """What configurations with the same bank have in common."""
    method = settings.method
    if method.sampler == "support_frequency" or method.subspaces == "dictionary":
        return settings  # what codes patches also makes the bank
    if not method.one_bank:  # the detector takes one set of penalties for all its solvers
        return settings.replace(solver=Method.solver)
    return dataclasses.replace(settings, method=method.only(Stage.EMBED, Stage.BANK, Stage.MAP))


def groups(tasks: Iterable[Task]) -> list[list[Task]]:
    """The tasks with the same bank together, in their order."""
    found: dict[config.Config, list[Task]] = {}
    for task in tasks:
        found.setdefault(bank_of(task.config), []).append(task)
    return list(found.values())


def parse_slice(text: str) -> tuple[int, int]:
    """`3/16` as the number of a worker and how many there are.

    Raises:
      ConfigError: says what it must be.
    """
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ConfigError(
            f"--slice={text} must be a worker's number, from 0, and how many there are: such as"
            " 3/16, of 0/16 to 15/16"
        )
    return int(index), int(count)


def slice_of(found: Sequence[list[Task]], index: int, count: int) -> list[list[Task]]:
    """The groups of one of many workers, neighbours together: they share embeddings."""
    total = len(found)
    return list(found[index * total // count : (index + 1) * total // count])


def _firsts(tasks: Iterable[Task], key: Callable) -> dict[config.Config, str]:
    firsts: dict[config.Config, str] = {}
    for task in tasks:
        firsts.setdefault(key(task.config), task.name)
    return firsts


class _Fingerprints:
    """What records depend on of categories; every file is hashed once."""

    def __init__(self):
        # The source beside its hash, as the identity of one let go may be another's.
        self._known: dict[Path | int, tuple[Any, str]] = {}

    def of(self, category: Category) -> list:
        """The images and masks, their names, classes and order."""
        splits = (category.train, category.test)
        sources = [s for split in splits for e in split for s in (e.image, e.mask)]
        unknown = {_identity(s): s for s in sources if _identity(s) not in self._known}
        with ThreadPoolExecutor() as pool:
            hashes = pool.map(content_hash, unknown.values())
            for (identity, source), hashed in zip(unknown.items(), hashes, strict=True):
                self._known[identity] = source, hashed
        return [
            [[e.name, e.label, e.kind, self._hash(e.image), self._hash(e.mask)] for e in split]
            for split in splits
        ]

    def _hash(self, source: Any) -> str:
        return self._known[_identity(source)][1]


def _identity(source: Any) -> Path | int:
    return source if isinstance(source, Path) else id(source)
