"""A choice on disk, what it rests on, and the test score that belongs to it, each made once.

`chosen.json` says which question it answers and, once the test set has been looked at, which images
that was on. A choice whose test set was scored is final: no other takes its place. Before there is
a choice, `validated.json` of every candidate keeps what has been found.
"""

import functools
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sgfr_jax import backbones
from sgfr_jax.checked_json import Damaged
from sgfr_jax.commands.files import records
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.flags.config import Config
from sgfr_jax.datasets import Category
from sgfr_jax.detector import splits

FILE = "chosen.json"
VALIDATED = "validated.json"


class Validated(NamedTuple):
    """What a candidate came to on validation images."""

    question: str  # of `question`
    categories: dict[str, dict[str, float | None]]  # the metrics of each


class Choice(NamedTuple):
    """Which candidate won, and why."""

    point: str  # the winner's name
    config: dict[str, Any]  # and configuration
    rows: list[dict[str, Any]]  # of all candidates
    question: str  # of `question`
    test_set: str | None = None  # of `test_set`: what scoring has begun on; None: it has not


def question(
    points: Sequence[tuple[str, Config]], categories: Sequence[Category], *described: Any
) -> str:
    """A hash of all that a choice follows from; where images and weights lie is no part of it.

    Args:
      points: the candidates by name.
      categories: of which only `train` is looked at.
      *described: whatever else there is, as JSON takes it.
    """
    weights = functools.cache(backbones.weights_digest)
    candidates = []
    for name, settings in points:
        placeless = settings.replace(categories=None, data_dir=None, weights=None)
        of_weights = weights(settings.method.backbone, settings.method.weights)
        candidates.append([name, placeless.digest(weights=of_weights)])
    images = [[c.name, _fingerprint(c.train)] for c in categories]
    return _hash([candidates, images, described])


def test_set(categories: Sequence[Category]) -> str:
    """A hash of the test images, their masks and classes; none of them is decoded."""
    return _hash([[c.name, _fingerprint(c.test)] for c in categories])


def test_directory(workdir: Path) -> Path:
    """Where the winner's run on the test set is written."""
    return workdir / "test"


def kept(workdir: Path, asked: str) -> Choice | None:
    """The choice in a work directory, if it answers the question; else None.

    Raises:
      ConfigError: if it answers another one, or is damaged, and its test set was scored.
    """
    path, test = workdir / FILE, test_directory(workdir)
    try:
        choice = records.read(path, Choice)
    except Damaged as error:
        if records.begun(test):
            raise ConfigError(
                f"{path} is damaged ({error}), and {test} holds the test score of the choice that"
                " it named: restore the file, or give another --workdir"
            ) from error
        print(f"{path} is damaged ({error}): chosen again", file=sys.stderr)
        return None
    if choice is not None and choice.question == asked:
        return choice
    if records.begun(test):
        raise ConfigError(
            f"{test} holds the test score of another choice, for {path} is not of these candidates,"
            " settings, seed, share, repeats, least gain and training images: give another"
            " --workdir"
        )
    return None


def keep(workdir: Path, choice: Choice) -> None:
    """Writes a choice, whole or not at all."""
    records.write(workdir / FILE, choice._asdict())


def validated(directory: Path, asked: str) -> dict[str, dict[str, float | None]] | None:
    """The metrics that a candidate came to in a directory, if that was for the same question."""
    kept = records.read_whole(directory / VALIDATED, Validated)
    return kept.categories if kept is not None and kept.question == asked else None


def keep_validated(directory: Path, asked: str, found: dict[str, dict[str, float | None]]) -> None:
    """Writes what `validated` reads."""
    records.write(directory / VALIDATED, Validated(asked, found)._asdict())


def scored(workdir: Path) -> list[records.Record] | None:
    """The test score of the choice in a work directory; None: there is none yet.

    Raises:
      ConfigError: if it is damaged: a choice is scored once.
    """
    test = test_directory(workdir)
    try:
        return records.finished(test)
    except Damaged as error:
        raise ConfigError(
            f"{test / 'results.json'} is damaged ({error}), and a choice is scored once: restore"
            " the file, or give another --workdir"
        ) from error


def begin_scoring(workdir: Path, choice: Choice, seen: str) -> None:
    """Notes on which test set a choice is scored, before it is.

    Raises:
      ConfigError: if it was scored on another.
    """
    if choice.test_set != seen:
        test = test_directory(workdir)
        if records.begun(test):
            raise ConfigError(
                f"{test} holds the score of {workdir / FILE} on other test images, and a choice is"
                " scored once: give another --workdir"
            )
        keep(workdir, choice._replace(test_set=seen))


def _fingerprint(examples: Sequence) -> list:
    return splits.fingerprint(examples, splits.hash_images(examples))


def _hash(described: Any) -> str:
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()
