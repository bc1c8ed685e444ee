"""A saved model that learns from more nominal images, without those that it was fitted on.

Every bank takes up what it cannot mimic yet (`sgfr_jax.growing`) and stays within the size that a
fit of all images would have given it. What else a model holds was told from images that are gone:

- The null is of both: the old images' scores as they were, under the bank as it was, and the new
  images' under the bank as it is, each without the atoms that it gave. Old images would score
  nearly the same now: a little less for the atoms that came, a little more for those that went.
- With several streams, their weights and the calibration of old atoms and cells stay. Atoms that
  have come are given scales by the new images.
- The threshold of the best F1 falls away, as no labelled image was scored with the new bank.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import (
    assembly,
    choices,
    detectors,
    embedding,
    environment,
    fused,
    fused_scorer,
    loading,
    models,
    nulls,
    progress,
    stages,
)
from experiments.choices import ConfigError
from experiments.models import Model
from sgfr_jax import calibration, growing, pipeline, thresholds, types

# Images that banks take up at a time, whatever the size of a batch: it makes a bank what it is.
_TOGETHER = 16


class Seen(NamedTuple):
    """What the model made of the new images before it learned from them."""

    scores: np.ndarray  # [B]
    known: np.ndarray  # [B]: the share of an image's patches, of all banks, that it could mimic


class _Stream(NamedTuple):
    """A bank on the way."""

    bank: types.Bank
    origin: detectors.Origins
    known: Callable  # patches [N, D] -> [N] bool: what the bank as it was could mimic
    update: Callable  # (bank, patches [N, D], weights [N]) -> growing.Growth


def check(model: Model) -> None:
    """Raises ConfigError if the model cannot grow."""
    models.require_squares(model.config, "updated")
    if model.config.subspaces != "implicit":
        raise ConfigError(
            f"--model: its atoms are learned (--subspaces={model.config.subspaces}) from patches"
            " that are gone, so none can be added; fit a model of all images"
        )


def unseen(model: Model, split: loading.Split) -> loading.Split:
    """The images of a split that the model has not learned from, each once."""
    known, fresh = set(model.about.hashes), []
    for i, of_image in enumerate(split.hashes):
        if of_image not in known:
            known.add(of_image)
            fresh.append(i)
    return split.take(fresh)


def grow(model: Model, detector: detectors.Detector, split: loading.Split) -> tuple[Model, Seen]:
    """The model after it has learned from nominal images.

    Args:
      model: from `models.load`, that `check` lets pass.
      detector: of the model.
      split: the images, none of which it has seen.

    Returns:
      The model, and what the old one made of the images.

    Raises:
      DatasetError: if features are not finite.
    """
    streams, seen = _take_up(model, detector, split)
    state = nulls.with_banks(model.state, [stream.bank for stream in streams])
    origins = tuple(stream.origin for stream in streams)
    if isinstance(state, fused_scorer.Fused):
        state = _calibrate(model, detector, split, state, origins)

    before, solver = len(model.about.train), model.config.solver
    chosen = nulls.choose(len(split.examples), (), model.config.seed, at_most=nulls.NULL_IMAGES)
    fresh = nulls.of_images(
        detector, solver, state, origins, split.take(chosen),
        [before + i for i in chosen], f"{model.about.category}: held-out scores",
    )  # fmt: skip
    pooled = nulls.Nulls(*map(thresholds.together, model.nulls, fresh))
    about = _about(model, split, origins, seen, len(chosen))
    return Model(state, origins, pooled, model.config, about), seen


def _take_up(
    model: Model, detector: detectors.Detector, split: loading.Split
) -> tuple[list[_Stream], Seen]:
    """Grows the banks by some images after the others, in bounded memory."""
    before, num_images = len(model.about.train), len(split.examples)
    streams = [
        _stream(model, bank, origin, grid, before + num_images)
        for bank, origin, (_, _, grid) in zip(
            nulls.banks(model.state), model.origins, models.layout(model.config), strict=True
        )
    ]
    scorer, scores, known = detector.scorers[model.config.solver], [], []

    def patches_of(batch: assembly.Batch) -> list[np.ndarray]:
        scores.extend(np.asarray(scorer(model.state, batch.patches)[1])[: batch.num])
        report(batch.num)
        return [np.asarray(features)[: batch.num] for features in jax.tree.leaves(batch.patches)]

    with progress.bar(f"{model.about.category}: learning", num_images, "images") as report:
        batches = assembly.batches(detector, loading.views(split))
        for together in _regrouped(map(patches_of, batches), _TOGETHER):
            of_streams, num, first = [], len(together[0]), before + len(known)
            for i, features in enumerate(together):
                padded = embedding.pad(features, _TOGETHER)
                streams[i], found = _learn(streams[i], padded, num, first)
                of_streams.append(found)
            known.extend(np.concatenate(of_streams, axis=1).mean(axis=1))
    return streams, Seen(np.array(scores), np.array(known))


def _regrouped(batches: Iterator[list[np.ndarray]], size: int) -> Iterator[list[np.ndarray]]:
    """Arrays `[n, ...]` of the same images, `size` images at a time; the last may be fewer."""
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


def _stream(model: Model, bank, origin, grid: int, num_images: int) -> _Stream:
    """A bank with room for what it may learn of so many images, old and new."""
    config, num_patches = model.config, num_images * grid**2
    if config.has_streams:
        num_patches = min(num_patches, fused.SAMPLED_PATCHES)
    code, chunk_size = choices.make_coder(config.solver, config), stages.chunk_size(config.solver)
    level = jax.jit(partial(growing.nominal_level, code=code))(bank)

    @jax.jit
    def known(bank: types.Bank, patches: jax.Array) -> jax.Array:
        return pipeline.score(bank, patches, code=code, chunk_size=chunk_size) <= level

    update = partial(
        growing.update, jax.random.key(config.seed), code=code, level=level, chunk_size=chunk_size
    )
    missing = max(0, config.num_atoms(num_patches) - len(bank.atoms))
    room = partial(_with_room, missing)
    return _Stream(room(bank), room(origin), partial(known, bank), jax.jit(update))


def _with_room(missing: int, tree: Any) -> Any:
    """Arrays `[M, ...]` with zeros up to `[M + missing, ...]`; atoms of weight 0 are none."""
    return jax.tree.map(lambda x: jnp.asarray(embedding.pad(np.asarray(x), len(x) + missing)), tree)


def _learn(
    stream: _Stream, features: jax.Array, num: int, first: int
) -> tuple[_Stream, np.ndarray]:
    """The bank after some images, numbered from `first`, and which patches it knew, `[num, P]`.

    Args:
      stream: before them.
      features: `[B, P, D]`, of which `num` images count.
      num: see above.
      first: number of the first image among all that the model has seen.
    """
    size, each = features.shape[:2]
    patches = features.reshape(size * each, -1)
    known = np.asarray(stream.known(patches))
    fresh = ~known & (np.arange(size * each) < num * each)
    found = stream.update(stream.bank, patches, fresh.astype(np.float32))
    images, cells = jnp.divmod(found.sources, each)
    origin = detectors.Origins(
        jnp.where(found.sources < 0, stream.origin.images, first + images),
        jnp.where(found.sources < 0, stream.origin.windows, 0),
        jnp.where(found.sources < 0, stream.origin.cells, cells),
    )
    return stream._replace(bank=found.bank, origin=origin), known.reshape(size, each)[:num]


def _calibrate(
    model: Model,
    detector: detectors.Detector,
    split: loading.Split,
    state: fused_scorer.Fused,
    origins: Sequence[detectors.Origins],
) -> fused_scorer.Fused:
    """The state with scales for the atoms that have come."""
    config, before = model.config, len(model.about.train)
    code, chunk_size = choices.make_coder(config.solver, config), stages.chunk_size(config.solver)
    held_out = jax.jit(partial(pipeline.score_held_out, code=code, chunk_size=chunk_size))
    found, done = [[] for _ in state.banks], before
    with progress.bar(f"{model.about.category}: calibrating", len(split.examples), "images") as bar:
        for batch in assembly.batches(detector, loading.views(split)):
            own = done + np.arange(detector.batch_size)
            for of_stream, bank, origin, features in zip(
                found, state.banks, origins, jax.tree.leaves(batch.patches), strict=True
            ):
                scores = held_out(bank, origin.images, features, own)
                of_stream.append([np.asarray(x)[: batch.num] for x in scores])
            done += batch.num
            bar(batch.num)
    extended = []
    for old, origin, of_stream in zip(state.calibrations, origins, found, strict=True):
        scores, owners = map(np.concatenate, zip(*of_stream, strict=True))
        extended.append(calibration.extend(old, origin.images >= before, scores, owners))
    return state._replace(calibrations=tuple(extended))


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
        paths=(*(about.paths or [None] * len(about.train)), *map(models.path_of, split.examples)),
        hashes=(*(about.hashes or [""] * len(about.train)), *split.hashes),
        data=hashlib.sha256("\n".join([about.data, *split.hashes]).encode()).hexdigest(),
        made_with=json.dumps(environment.describe(), sort_keys=True),
        notes=(*kept, *notes),
        f1_threshold=None,
    )
