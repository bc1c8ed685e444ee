"""Computes tasks that share a bank, images and embeddings, doing once what they have in common.

The records are those of separate runs. Points that differ in a penalty alone (`ridge`, `l1`, `l2`)
are one compiled program, mapped over the penalties.
"""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax import types
from sgfr_jax.commands import run
from sgfr_jax.commands.files.records import Record
from sgfr_jax.commands.flags import config
from sgfr_jax.commands.host import devices, environment
from sgfr_jax.commands.pages import category as one_category
from sgfr_jax.commands.pages import pixels
from sgfr_jax.commands.sweeping import grids, tasks
from sgfr_jax.detector import (
    choices,
    detectors,
    embedding,
    loading,
    sampling,
    stages,
)

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

    def __init__(self, resources: run.Resources, keep: Callable[[Record], None]):
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
        self._category, self._embedding = _Latest(), _Latest()
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
        # What lies there already need not be foreseen; what the last group left gives way first.
        there = self._points.only(of_group)
        self._tested.only(of_group)
        run.check_squares(settings, [category], None if there else 1)
        num_test = len(category.test.examples)
        # What a task would do alone: together they may have more pixels than are kept.
        exact = pixels.keep_all(num_test, settings.image_size, 1, settings.counting)
        limit = _STREAMED_AT_ONCE
        if exact:
            limit = max(1, pixels.KEPT_BYTES // (4 * max(1, num_test) * settings.image_size**2))
        for part in _parts(group, limit):
            yield self._score(category, part, "exact" if exact else "streaming")

    def _score(self, category: loading.Checked, part: Sequence[Axis], metrics: str) -> Part:
        flat = [task for axis in part for task in axis]
        settings = flat[0].config
        names = [task.name if settings.one_bank else task.config.solver for task in flat]
        seen = dataclasses.replace(settings, metrics=metrics, baselines=tuple(names[1:]))
        if settings.one_bank:
            detector = self._one_bank(category, settings, part)
        else:
            detector, _ = run.make_detector(seen, self._resources)
        output = one_category.Output(Path(), 0, False, bar=_silent)  # which writes nothing
        measure = one_category.start(category, detector, seen, output)
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
            described = dataclasses.asdict(task.config)
            records.append(
                Record(task.category, task.name, described, self._environment, results[i], {},
                       images, notes)
            )  # fmt: skip
        _share_seconds(part, {record.digest: record.results for record in records})
        for record in records:
            self._keep(record)
        return records

    def _embedders(self, settings: config.Config) -> list[embedding.Embedder]:
        """Those of the configuration's detector, for all banks of the same embeddings."""
        return self._embedding.get(
            tasks.embedding_of(settings), lambda: run.make_detector(settings, self._resources)[1]
        )

    def _read(self, settings: config.Config) -> loading.Checked:
        """The configuration's one category, with its images checked."""

        def read() -> loading.Checked:
            (found,) = run.load_data(settings, self._resources.accept_license)
            hashes = loading.hash_images(found.train)
            seen = loading.view_hashes(found.train, hashes, settings)
            known = run.all_known(self._embedders(settings), seen)
            embedded = {found.name} if known else set()
            of_train, workers = {found.name: hashes}, self._resources.workers
            return loading.check([found], settings, of_train, embedded, workers=workers)[0]

        return self._category.get(tasks.embedding_of(settings), read)

    def _one_bank(
        self, category: loading.Checked, settings: config.Config, part: Sequence[Axis]
    ) -> detectors.Detector:
        """The detector of one bank whose scorers are those of the tasks, by their names."""
        (embedder,) = self._embedders(settings)
        batches = self._batches(embedder, category.test)
        scorers = {}
        for axis in part:
            scorers |= _axis_scorers(axis)

        def fit(category: loading.Checked) -> detectors.Fitted:
            bank, notes, seconds = self._bank.get(
                tasks.bank_of(settings),
                lambda: self._fit(category, embedder._replace(config=settings)),
            )
            # Compiled before anything is timed.
            empty = np.zeros((embedder.batch_size, *embedder.patch_shape), np.float32)
            nothing = jax.device_put(empty)
            extents = loading.views(category.test).extents
            if extents is not None:
                extents = np.ones((embedder.batch_size, 2), np.float32)
            for scorer in scorers.values():
                jax.block_until_ready(scorer(bank, nothing, extents))
            states = dict.fromkeys(scorers, bank)
            return detectors.Fitted(states, int(jnp.sum(bank.weights > 0)), notes, seconds)

        return detectors.Detector(fit, batches, scorers, embedder.batch_size)

    def _fit(
        self, category: loading.Checked, embedder: embedding.Embedder
    ) -> tuple[types.Bank, list[str], detectors.Seconds]:
        """As `sampling.fit`, but that the patches are kept for the next bank."""
        settings, train = embedder.config, loading.views(category.train)
        if settings.sampler == choices.STREAMING:
            return sampling.fit(embedder, train, _silent, _silent)
        start = time.perf_counter()
        points = self._points.get(
            tasks.embedding_of(settings),
            lambda: sampling.gather(embedder, train.split, _unreported),
        )
        gathered = time.perf_counter()
        weights = sampling.patch_weights(train, settings.grid).reshape(-1)
        key, num_atoms = jax.random.key(settings.seed), settings.num_atoms(int(weights.sum()))
        bank = sampling.make_bank(settings, key, points, weights, num_atoms, _unreported)
        sampled = time.perf_counter() - gathered
        return jax.block_until_ready(bank), [], detectors.Seconds(gathered - start, sampled)

    def _batches(
        self, embedder: embedding.Embedder, test: loading.Split
    ) -> Callable[[loading.Split], Iterator[np.ndarray]]:
        """What yields the patches of the test images, from memory where they fit."""
        size = loading.num_views(test) * 4 * math.prod(embedder.patch_shape)
        if not test.examples or size > KEPT_BYTES:
            return embedder.batches
        kept = self._tested.get(
            tasks.embedding_of(embedder.config),
            lambda: list(embedder.batches(loading.views(test).split)),
        )
        return lambda split: iter(kept)


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
    settings = task.config
    if not settings.one_bank:
        return task.name
    return _program(settings, _penalties(settings))


def _penalties(settings: config.Config) -> tuple[str, ...]:
    """The penalties that a configuration has a value for."""
    return tuple(name for name in grids.PENALTIES if getattr(settings, name) is not None)


def _program(settings: config.Config, mapped: Sequence[str]) -> tuple[config.Config, ...]:
    """What a compiled scorer follows from, apart from the penalties it is mapped over."""
    fields = (*tasks.SCORING, "image_size", "grid", "subspace_rank")
    chosen = {name: getattr(settings, name) for name in fields if name not in mapped}
    # One that is mapped over differs from one that is left to the solver.
    return config.Config(**chosen), tuple(mapped)


def _axis_scorers(axis: Axis) -> dict[str, Callable]:
    """The scorer of every task of an axis."""
    settings = axis[0].config
    if len(axis) == 1:
        return {axis[0].name: _scorer(_program(settings, ())[0])}
    mapped = _penalties(settings)
    compiled = mapped_scorer(*_program(settings, mapped))
    values = {
        name: jnp.asarray([getattr(task.config, name) for task in axis], jnp.float32)
        for name in mapped
    }
    # The batch is held, so that no other can have its identity.
    latest: list[Any] = [None, None, None]

    def score(place: int, bank: types.Bank, batch: jax.Array, extents: jax.Array | None = None):
        if latest[0] is not bank or latest[1] is not batch:
            found = compiled(bank, batch, values, extents)
            latest[:] = bank, batch, jax.device_get(found)
        return jax.tree.map(lambda x: x[place], latest[2])

    return {task.name: functools.partial(score, place) for place, task in enumerate(axis)}


@functools.lru_cache(_SCORERS)
def _scorer(settings: config.Config) -> Callable:
    return stages.make_scorer(settings, settings.solver)


@functools.lru_cache(_SCORERS)
def mapped_scorer(settings: config.Config, mapped: tuple[str, ...]) -> Callable:
    """A compiled scorer of several values of the penalties at once.

    `(bank, patches [B, P, D], {penalty: [H]}, extents) -> (maps [H, B, S, S], scores [H, B])`, the
    extents as of `stages.make_scorer`.

    Args:
      settings: of all but the penalties.
      mapped: the names of the penalties; they are arguments, so that no value compiles anew.
    """
    del mapped  # names the program in the cache; jit tells by the keys of the penalties

    @jax.jit
    def score(
        bank: types.Bank,
        batch: jax.Array,
        penalties: dict[str, jax.Array],
        extents: jax.Array | None = None,
    ):
        def of_one(chosen: dict[str, jax.Array]):
            return stages.make_scorer(dataclasses.replace(settings, **chosen), settings.solver)(
                bank, batch, extents
            )

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
    yield _unreported


def _unreported(more: int) -> None:
    """What takes reports of progress and shows none."""
