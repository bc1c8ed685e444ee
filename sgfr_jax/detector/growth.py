"""A saved model that learns from more nominal images, without those that it was fitted on.

The new images are looked at as the old ones were, and every bank takes up what it cannot mimic yet
(`sgfr_jax.growing`) of the squares that its look sees. It stays within the size that a fit of all
images would have given it. What else a model holds was told from images that are gone:

- The null is of both: the old images' scores as they were, under the bank as it was, and the new
  images' under the bank as it is, each without the atoms that it gave. Old images would score
  nearly the same now: a little less for the atoms that came, a little more for those that went.
- With several streams, their weights, the calibration of old atoms and cells, and what nominal
  images score stay. Atoms that have come are given scales by the new images.
- With several looks, what makes them comparable stays: what nominal images came to in each.
- The threshold of the best F1 falls away, as no labelled image was scored with the new bank.
"""

import hashlib
import itertools
import json
import operator
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax import calibration, growing, pipeline, thresholds, types
from sgfr_jax.commands.flags.config import Config
from sgfr_jax.commands.host import environment, progress
from sgfr_jax.detector import (
    assembly,
    choices,
    detectors,
    embedding,
    fused,
    loading,
    looks,
    models,
    nulls,
    sampling,
    stages,
    stream_maps,
)
from sgfr_jax.detector.choices import ConfigError
from sgfr_jax.detector.models import Model

# Squares that banks take up at a time, whatever the size of a batch: it makes a bank what it is.
_TOGETHER = 16


class Seen(NamedTuple):
    """What the model made of the new images before it learned from them."""

    scores: np.ndarray  # [B]
    known: np.ndarray  # [B]: the share of an image's patches, of all banks, that it could mimic


class _Look(NamedTuple):
    """One of the ways in which a model looks at the new images."""

    name: str
    split: loading.Split
    state: Any  # for this look
    origins: tuple[detectors.Origins, ...]
    sizes: tuple[int, ...]  # that its banks may grow to


class _Met(NamedTuple):
    """What the banks of one look, as they were, made of the new images."""

    scores: np.ndarray  # [B]
    known: np.ndarray  # [B]: patches, of all banks, that they could mimic
    shown: np.ndarray  # [B]: patches that are no padding


class _Stream(NamedTuple):
    """A bank on the way."""

    bank: types.Bank
    origin: detectors.Origins
    known: Callable  # patches [N, D] -> [N] bool: what the bank as it was could mimic
    update: Callable  # (bank, patches [N, D], weights [N]) -> growing.Growth


def check(model: Model) -> None:
    """Raises ConfigError if the model cannot grow."""
    if model.config.subspaces != "implicit":
        raise ConfigError(
            f"--model: its atoms are learned (--subspaces={model.config.subspaces}) from patches"
            " that are gone, so none can be added; fit a model of all images"
        )


def unseen(model: Model, split: loading.Split) -> loading.Split:
    """The images of a split that the model has not learned from, each once."""
    known, fresh = set(model.about.hashes), []
    for i, of_image in enumerate(loading.of_contents(split.hashes)):
        if of_image not in known:
            known.add(of_image)
            fresh.append(i)
    return split.take(fresh)


def grow(model: Model, detector: detectors.Detector, split: loading.Split) -> tuple[Model, Seen]:
    """The model after it has learned from nominal images.

    Args:
      model: from `models.load`, that `check` lets pass.
      detector: of the model.
      split: the images, whole, none of which it has seen.

    Returns:
      The model, and what the old one made of the images.

    Raises:
      DatasetError: if features are not finite.
    """
    before, solver = len(model.about.train), model.config.solver
    laid = loading.laid(split, model.config.geometries)
    came = models.num_patches(laid, model.config)
    patches = tuple(map(operator.add, model.about.patches, came))
    grown, met = [], []
    for look in _looks(model, laid, patches):
        after, of_look = _take_up(model, detector, look)
        if isinstance(after.state, stream_maps.Fused):
            after = after._replace(state=_calibrate(model, detector, after))
        grown.append(after)
        met.append(of_look)
    state = looks.with_states(model.state, [look.state for look in grown])
    origins = tuple(itertools.chain.from_iterable(look.origins for look in grown))
    seen = Seen(
        looks.score_together(model.state, np.stack([one.scores for one in met], axis=-1)),
        sum(one.known for one in met) / sum(one.shown for one in met),
    )

    chosen = nulls.choose(len(split.examples), (), model.config.seed, at_most=nulls.NULL_IMAGES)
    fresh = nulls.of_images(
        detector, solver, state, origins, laid.take(chosen),
        [before + i for i in chosen], f"{model.about.category}: held-out scores",
    )  # fmt: skip
    pooled = nulls.Nulls(*map(thresholds.together, model.nulls, fresh))
    about = _about(model, split, origins, seen, len(chosen))._replace(patches=patches)
    return Model(state, origins, pooled, model.config, about), seen


def _looks(model: Model, laid: loading.Split, patches: Sequence[int]) -> Iterator[_Look]:
    """The ways in which a model looks at images.

    Args:
      model: as it is.
      laid: the new images, as it looks at them.
      patches: how many each bank would be chosen from in a fit of all images.
    """
    config, category = model.config, model.about.category
    if config.has_streams:
        patches = [min(num, fused.SAMPLED_PATCHES) for num in patches]
    sizes = map(config.num_atoms, patches)
    kinds = [geometry.kind for geometry in config.geometries]
    for kind, split, state, origins in zip(
        kinds,
        loading.looks(laid),
        looks.states(model.state),
        nulls.by_look(model.state, model.origins),
        strict=True,
    ):
        name = f"{category} ({kind})" if len(kinds) > 1 else category
        yield _Look(name, split, state, origins, tuple(itertools.islice(sizes, len(origins))))


def _take_up(model: Model, detector: detectors.Detector, look: _Look) -> tuple[_Look, _Met]:
    """The look with banks grown by some squares after the others, in bounded memory."""
    config, before, num_images = model.config, len(model.about.train), len(look.split.examples)
    streams = [
        _stream(config, *of_bank)
        for of_bank in zip(nulls.banks(look.state), look.origins, look.sizes, strict=True)
    ]
    grids = [grid for _, _, grid in models.layout(config)]
    seen = loading.views(look.split)
    windows = detectors.window_numbers(seen.owners)
    alone = len(config.geometries) == 1
    wholes = assembly.Assembly(look.split, detector, config.solver, look.state, alone=alone)
    scores, known, shown, done = [], np.zeros(num_images), np.zeros(num_images), 0

    def patches_of(batch: assembly.Batch) -> list[np.ndarray]:
        found = jax.device_get(wholes.score(look.state, batch.patches, batch.extents))
        whole = wholes.add(*(x[: batch.num] for x in found))
        scores.extend(one.score for one in whole)
        report(len(whole))
        return [np.asarray(features)[: batch.num] for features in jax.tree.leaves(batch.patches)]

    with progress.bar(f"{look.name}: learning", num_images, "images") as report:
        batches = assembly.batches(detector, seen)
        for together in _regrouped(map(patches_of, batches), _TOGETHER):
            rows = np.arange(done, done + len(together[0]))
            some = seen.take(rows)
            for i, (features, grid) in enumerate(zip(together, grids, strict=True)):
                real = sampling.patch_weights(some, grid) > 0
                places = (before + some.owners, windows[rows])
                streams[i], mimicked = _learn(streams[i], features, real, *places)
                np.add.at(known, some.owners, mimicked.sum(axis=1))
                np.add.at(shown, some.owners, real.sum(axis=1))
            done += len(rows)
    state = nulls.with_banks(look.state, [stream.bank for stream in streams])
    origins = tuple(stream.origin for stream in streams)
    return look._replace(state=state, origins=origins), _Met(np.array(scores), known, shown)


def _regrouped(batches: Iterator[list[np.ndarray]], size: int) -> Iterator[list[np.ndarray]]:
    """Arrays `[n, ...]` of the same squares, `size` squares at a time; the last may be fewer."""
    waiting = None
    for batch in batches:
        together = (
            batch if waiting is None else map(np.concatenate, zip(waiting, batch, strict=True))
        )
        waiting = list(together)
        while len(waiting[0]) >= size:
            yield [x[:size] for x in waiting]
            waiting = [x[size:] for x in waiting]
    if waiting is not None and len(waiting[0]):
        yield waiting


def _stream(config: Config, bank: types.Bank, origin: detectors.Origins, size: int) -> _Stream:
    """A bank with room for as many atoms as it may have."""
    code, chunk_size = choices.make_coder(config.solver, config), stages.chunk_size(config.solver)
    level = jax.jit(partial(growing.nominal_level, code=code))(bank)

    @jax.jit
    def known(bank: types.Bank, patches: jax.Array) -> jax.Array:
        return pipeline.score(bank, patches, code=code, chunk_size=chunk_size) <= level

    update = partial(
        growing.update, jax.random.key(config.seed), code=code, level=level, chunk_size=chunk_size
    )
    room = partial(_with_room, max(0, size - len(bank.atoms)))
    return _Stream(room(bank), room(origin), partial(known, bank), jax.jit(update))


def _with_room(missing: int, tree: Any) -> Any:
    """Arrays `[M, ...]` with zeros up to `[M + missing, ...]`; atoms of weight 0 are none."""
    return jax.tree.map(lambda x: jnp.asarray(embedding.pad(np.asarray(x), len(x) + missing)), tree)


def _learn(
    stream: _Stream,
    features: np.ndarray,
    shown: np.ndarray,
    images: np.ndarray,
    windows: np.ndarray,
) -> tuple[_Stream, np.ndarray]:
    """The bank after some squares, and which of their patches it knew, `[n, P]`; none of padding.

    Args:
      stream: before them.
      features: `[n, P, D]`, of `_TOGETHER` squares or fewer.
      shown: `[n, P]` bool: which patches show an image.
      images: `[n]`: that each square is of, numbered among all that the model has seen.
      windows: `[n]`: and which of its windows.
    """
    num, each = shown.shape
    patches = embedding.pad(features, _TOGETHER).reshape(_TOGETHER * each, -1)
    known = np.asarray(stream.known(patches)).reshape(_TOGETHER, each)[:num]
    fresh = embedding.pad((shown & ~known).astype(np.float32), _TOGETHER)
    found = stream.update(stream.bank, patches, fresh.reshape(-1))
    sources = np.asarray(found.sources)
    squares, cells = np.divmod(np.maximum(sources, 0), each)
    came = detectors.Origins(images[squares], windows[squares], cells)
    origin = jax.tree.map(
        lambda old, new: jnp.where(sources < 0, old, jnp.asarray(new, jnp.int32)),
        stream.origin, came,
    )  # fmt: skip
    return stream._replace(bank=found.bank, origin=origin), shown & known


def _calibrate(model: Model, detector: detectors.Detector, look: _Look) -> stream_maps.Fused:
    """The state of a look with scales for the atoms that have come."""
    config, before = model.config, len(model.about.train)
    code, chunk_size = choices.make_coder(config.solver, config), stages.chunk_size(config.solver)
    held_out = jax.jit(partial(pipeline.score_held_out, code=code, chunk_size=chunk_size))
    seen, pad = loading.views(look.split), partial(embedding.pad, size=detector.batch_size)
    found, done = [[] for _ in look.origins], 0
    with progress.bar(f"{look.name}: calibrating", len(seen.owners), "squares") as report:
        for batch in assembly.batches(detector, seen):
            own = pad(before + seen.owners[done : done + batch.num])
            for of_stream, bank, origin, features in zip(
                found, look.state.banks, look.origins, jax.tree.leaves(batch.patches), strict=True
            ):
                scores = held_out(bank, origin.images, features, own)
                of_stream.append([np.asarray(x)[: batch.num] for x in scores])
            done += batch.num
            report(batch.num)
    extended = []
    for old, origin, of_stream, (_, _, grid) in zip(
        look.state.calibrations, look.origins, found, models.layout(config), strict=True
    ):
        scores, owners = (
            np.concatenate(parts).reshape(-1, grid, grid) for parts in zip(*of_stream, strict=True)
        )
        fresh = origin.images >= before
        extended.append(calibration.extend(old, fresh, scores, owners, extents=seen.extents))
    return look.state._replace(calibrations=tuple(extended))


def _about(
    model: Model,
    split: loading.Split,
    origins: Sequence[detectors.Origins],
    seen: Seen,
    num_null: int,
) -> models.About:
    about, num_images = model.about, len(split.examples)
    came = sum(int(jnp.sum(origin.images >= len(about.train))) for origin in origins)
    held = int(model.nulls.images.counts.sum())
    notes = (
        f"grown by {num_images} images, of whose patches {seen.known.mean():.1%} could be mimicked"
        f" before: {came} of their patches became atoms",
        f"null of {held} images as they scored before the model grew, and of {num_null} that it"
        " grew by, each without the atoms that it gave",
    )
    kept = about.notes[:-1]  # the last is on the former null
    return about._replace(
        train=(*about.train, *(str(example.image) for example in split.examples)),
        paths=(*about.paths, *map(models.path_of, split.examples)),
        hashes=(*about.hashes, *loading.of_contents(split.hashes)),
        data=hashlib.sha256("\n".join([about.data, *split.hashes]).encode()).hexdigest(),
        made_with=json.dumps(environment.describe(), sort_keys=True),
        notes=(*kept, *notes),
        f1_threshold=None,
    )
