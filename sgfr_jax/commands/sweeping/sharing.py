"""Computes tasks that share a bank, images and embeddings, doing once what they have in common.

The records equal the records of separate runs. Points that differ in a penalty alone (`ridge`,
`l1`, `l2`) are one compiled program, mapped over the penalties.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax.commands import run
from sgfr_jax.commands.files import inputs, reading
from sgfr_jax.commands.files.records import Record
from sgfr_jax.commands.flags.config import Config
from sgfr_jax.commands.host import devices, environment
from sgfr_jax.commands.host.machine import Resources
from sgfr_jax.commands.pages import category as one_category
from sgfr_jax.commands.pages import pixels
from sgfr_jax.commands.sweeping import grids, tasks
from sgfr_jax.detector import fitting, programs, sampling, splits, squares
from sgfr_jax.detector import state as states
from sgfr_jax.detector.fitting import FittedLook, Seconds
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.programs import Programs
from sgfr_jax.detector.splits import Split
from sgfr_jax.detector.stages import Stages
from sgfr_jax.detector.streams import Stream

# Embeddings of test images stay in memory when they fit in this; else the cache is read again.
KEPT_BYTES = 1 << 31
# Compiled scorers that a worker holds.
_SCORERS = 64
# Solvers whose pixels are counted in bins at a time.
_STREAMED_AT_ONCE = 8

Axis = list[tasks.Task]  # tasks that differ in a penalty at most


class Part(NamedTuple):
    """Tasks scored together, whose metrics are being computed."""

    tasks: list[tasks.Task]
    records: Future[list[Record]]  # kept already


class Worker:
    """Computes groups of tasks, keeping what the next group may share."""

    def __init__(self, resources: Resources, keep: Callable[[Record], None]):
        """Makes a worker.

        Args:
          resources: what it may use; nothing is written into `workdir`.
          keep: called with every record as soon as it is made, in a thread.
        """
        self._keep = keep
        # What a worker does is small; sweeps use many devices through many workers.
        self._resources = resources._replace(mesh=devices.ONE)
        self._environment = environment.describe()
        self._pool = ThreadPoolExecutor(1)
        self._category, self._stages = _Latest(), _Latest()
        self._points, self._tested, self._bank = _Latest(), _Latest(), _Latest()

    def run(self, group: Sequence[tasks.Task]) -> Iterator[Part]:
        """Yields parts of a group as they have been scored.

        Args:
          group: tasks with one bank, from `tasks.groups`.

        Raises:
          ConfigError, DatasetError, WeightsError: on what only the images can tell.
        """
        settings = group[0].config
        category = self._read(settings)
        of_group = tasks.embedding_of(settings)
        # Patches already in memory need no memory check; those of the previous group go first.
        there = self._points.only(of_group)
        self._tested.only(of_group)
        inputs.check_squares(settings, [category], None if there else 1)
        num_test = len(category.test.examples)
        image_size = category.settings(settings).method.image_size
        # What a task would do alone: together they may have more pixels than are kept.
        exact = pixels.keep_all(num_test, image_size, 1, settings.evaluation.counting)
        limit = _STREAMED_AT_ONCE
        if exact:
            limit = max(1, pixels.KEPT_BYTES // (4 * max(1, num_test) * image_size**2))
        for part in _parts(group, limit):
            yield self._score(category, part, "exact" if exact else "streaming")

    def _score(self, category: reading.Checked, part: Sequence[Axis], metrics: str) -> Part:
        flat = [task for axis in part for task in axis]
        settings, fit_look = flat[0].config, None
        one_bank = settings.method.one_bank
        names = [task.name if one_bank else task.config.method.solver for task in flat]
        seen = settings.replace(metrics=metrics, baselines=tuple(names[1:]))
        if one_bank:
            stages, fit_look = self._one_bank(category, settings, part)
        else:
            stages = run.make_stages(seen, self._resources)
        # A worker has a bar of its own.
        stages = stages._replace(services=stages.services._replace(progress=_silent))
        output = one_category.Output(Path(), 0, False, bar=_silent)  # which writes nothing
        measure = one_category.start(category, stages, seen, output, fit_look)
        return Part(flat, self._pool.submit(self._records, part, names, measure))

    def _records(
        self, part: Sequence[Axis], names: Sequence[str], measure: Callable[[], dict[str, Any]]
    ) -> list[Record]:
        """The records of a part's tasks, whose solvers `measure` knows by these names."""
        outcome = measure()
        results = [outcome["results"], *(outcome["baselines"][name] for name in names[1:])]
        records = []
        flat = (task for axis in part for task in axis)
        for i, (task, name) in enumerate(zip(flat, names, strict=True)):
            score = f"score_{name}" if i else "score"
            images = [
                {key: image[key] for key in ("file", "label", "kind")} | {"score": image[score]}
                for image in outcome["images"]
            ]
            # The weights that a note tells of are those of the first solver.
            notes = [n for n in outcome["notes"] if not i or "weights from" not in n]
            described = task.config.flat()
            records.append(
                Record(task.category, task.name, described, self._environment, results[i], {},
                       images, notes)
            )  # fmt: skip
        _share_seconds(part, {record.digest: record.results for record in records})
        for record in records:
            self._keep(record)
        return records

    def _shared(self, settings: Config) -> Stages:
        """The stages of some configuration with the same embeddings."""
        return self._stages.get(
            tasks.embedding_of(settings), lambda: run.make_stages(settings, self._resources)
        )

    def _read(self, settings: Config) -> reading.Checked:
        """The configuration's one category, with its images checked."""

        def read() -> reading.Checked:
            (found,) = inputs.load_data(settings, self._resources.accept_license)
            stages, hashes = self._shared(settings), splits.hash_images(found.train)
            known = inputs.is_embedded(found, hashes, stages, settings)
            embedded = {found.name} if known else set()
            return reading.check(
                [found], settings, {found.name: hashes}, embedded, stages.services
            )[0]

        return self._category.get(tasks.embedding_of(settings), read)

    def _one_bank(
        self, category: reading.Checked, settings: Config, part: Sequence[Axis]
    ) -> tuple[Stages, fitting.FitLook]:
        """The stages of one bank with the programs of the tasks, by their names; what fits it."""
        shared = self._shared(settings)
        made = {}
        for axis in part:
            made |= _axis_programs(axis, shared)
        stages = shared._replace(method=settings.method, programs=made)

        def fit(stages: Stages, key: jax.Array, train: Split, prefix: str) -> FittedLook:
            del stages, prefix
            bank_of = tasks.bank_of(settings)
            look, seconds = self._bank.get(bank_of, lambda: self._fit(settings, shared, key, train))
            # Compiled before anything is timed.
            size, (stream,) = shared.services.batch_size, shared.streams
            nothing = jax.device_put((np.zeros((size, *stream.shape), np.float32),))
            extents = splits.views(category.test).extents
            if extents is not None:
                extents = np.ones((size, 2), np.float32)
            for own in made.values():
                jax.block_until_ready(own.score(look, nothing, extents))
            return FittedLook(dict.fromkeys(made, look), [], seconds)

        tested = self._tested_patches(settings, stages, category.test)
        return stages._replace(embedders=(tested,)), fit

    def _fit(
        self, settings: Config, stages: Stages, key: jax.Array, train: Split
    ) -> tuple[states.Look, Seconds]:
        """As `fitting.fit_one` of one bank, but that the patches are kept for the next bank."""
        method, seen = settings.method, splits.views(train)
        (stream,) = stages.streams
        start = time.perf_counter()
        points = self._points.get(tasks.embedding_of(settings), lambda: _gather(stages, seen.split))
        gathered = time.perf_counter()
        weights = sampling.patch_weights(seen, stream.grid)
        num_atoms = method.num_atoms(int(weights.sum()))
        bank = sampling.make_bank(
            method, key, points, weights.reshape(-1), num_atoms, machine=stages.services
        )
        origins = sampling.origins(method, bank, sampling.every_patch(*weights.shape), seen.owners)
        sampled = time.perf_counter() - gathered
        look = states.plain_look((bank,), (origins,))
        return look, Seconds(gathered - start, sampled)

    def _tested_patches(self, settings: Config, stages: Stages, test: Split) -> Any:
        """What yields the patches of the test images, from memory where they fit."""
        (embedder,), (stream,) = stages.embedders, stages.streams
        size = splits.num_views(test) * 4 * stream.grid**2 * stream.width
        if not test.examples or size > KEPT_BYTES:
            return embedder
        kept = self._tested.get(
            tasks.embedding_of(settings),
            lambda: list(embedder.batches(splits.views(test).split)),
        )
        return _InMemory(kept)


class _InMemory(NamedTuple):
    """Stands in for an embedder of images that have been embedded."""

    kept: list[list[np.ndarray]]

    def batches(self, split: Split) -> Iterator[list[np.ndarray]]:
        """The patches, whatever the split."""
        del split
        return iter(self.kept)


def _gather(stages: Stages, seen: Split) -> np.ndarray:
    """All patches of the only stream, `[N, D]`."""
    (embedder,), (stream,) = stages.embedders, stages.streams
    found = [features for (features,) in embedder.batches(seen)]
    return np.concatenate(found).reshape(-1, stream.width)


class _Latest:
    """Remembers what was made last: neighbouring groups ask for the same."""

    def __init__(self):
        self._key: Hashable = None
        self._value: Any = None

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` returned for this key, unless another has been asked for since."""
        if self._key != key:
            self._key = self._value = None  # let go before another is made
            self._value = make()
            self._key = key
        return self._value

    def only(self, key: Hashable) -> bool:
        """Whether what was made for this key is there; lets go of anything else."""
        if self._key != key:
            self._key = self._value = None
        return self._key is not None


def _parts(group: Sequence[tasks.Task], limit: int) -> Iterator[list[Axis]]:
    """The group's axes, as many at a time as have `limit` tasks, and none longer than that."""
    found: dict[Hashable, Axis] = {}
    for task in group:
        found.setdefault(_axis_key(task), []).append(task)
    part: list[Axis] = []
    for axis in found.values():
        for start in range(0, len(axis), limit):
            piece = axis[start : start + limit]
            if sum(map(len, part)) + len(piece) > limit:
                yield part
                part = []
            part.append(piece)
    if part:
        yield part


def _axis_key(task: tasks.Task) -> Hashable:
    method = task.config.method
    return _program(method, _penalties(method)) if method.one_bank else task.name


def _penalties(method: Method) -> tuple[str, ...]:
    """The penalties that a method has a value for."""
    return tuple(name for name in grids.PENALTIES if getattr(method, name) is not None)


def _program(method: Method, mapped: Sequence[str]) -> tuple[Method, tuple[str, ...]]:
    """What a compiled scorer follows from, apart from the penalties it is mapped over."""
    # One that is mapped over differs from one that is left to the solver.
    left = {"image_size": method.image_size} | dict.fromkeys(mapped)
    return dataclasses.replace(method.coding(), **left), tuple(mapped)


def _axis_programs(axis: Axis, stages: Stages) -> dict[str, Programs]:
    """The programs of every task of an axis."""
    method = axis[0].config.method
    own = programs.make(method, stages.streams, stages.services)
    if len(axis) == 1:
        return {axis[0].name: own}
    mapped = _penalties(method)
    compiled = mapped_scorer(*_program(method, mapped), stages.streams)
    values = {
        name: jnp.asarray([getattr(task.config.method, name) for task in axis], jnp.float32)
        for name in mapped
    }
    # The batch is held, so that no other can have its identity.
    latest: list[Any] = [None, None, None]

    def score(place: int, look: states.Look, batch: Any, extents: jax.Array | None = None):
        if latest[0] is not look or latest[1] is not batch:
            found = compiled(look, batch, values, extents)
            latest[:] = look, batch, jax.device_get(found)
        return jax.tree.map(lambda x: x[place], latest[2])

    def score_windows(place: int, *args: Any):
        maps, scores = score(place, *args)
        return maps, np.stack([scores, scores], axis=1)

    return {
        task.name: own._replace(
            score=functools.partial(score, place),
            score_windows=functools.partial(score_windows, place),
        )
        for place, task in enumerate(axis)
    }


@functools.lru_cache(_SCORERS)
def mapped_scorer(method: Method, mapped: tuple[str, ...], streams: tuple[Stream, ...]) -> Callable:
    """A compiled scorer of several values of the penalties at once.

    `(look, [patches [B, P, D]], {penalty: [H]}, extents) -> (maps [H, B, S, S], scores [H, B])`,
    the extents as of `scoring.Scoring`.

    Args:
      method: all but the penalties.
      mapped: the names of the penalties; they are arguments, so that no value compiles anew.
      streams: of the method: one.
    """
    del mapped  # names the program in the cache; jit tells by the keys of the penalties

    @jax.jit
    def score(look, batch, penalties: dict[str, jax.Array], extents: jax.Array | None = None):
        def of_one(chosen: dict[str, jax.Array]):
            own = dataclasses.replace(method, **chosen)
            return squares.score_patches(own, streams, look, batch, extents)

        return jax.vmap(of_one)(penalties)

    return score


def _share_seconds(part: Sequence[Axis], results: dict[str, dict[str, Any]]) -> None:
    """Spreads the seconds of scoring evenly over an axis, which is computed at once."""
    for axis in part:
        seconds = [results[task.name]["seconds"] for task in axis]
        mean = sum(s["score_test"] for s in seconds) / len(axis)
        for own in seconds:
            own["score_test"] = mean


@contextlib.contextmanager
def _silent(*description: Any) -> Iterator[Callable[[int], None]]:
    """A progress bar that shows nothing: a worker has one of its own."""
    del description
    yield lambda more: None
