"""A fitted detector that learns from more nominal images, without those that it was fitted on.

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

import functools
import hashlib
import operator
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax import calibration, growing, pipeline, thresholds, types
from sgfr_jax.detector import (
    assembly,
    fitting,
    held_out,
    looks,
    model,
    sampling,
    scoring,
    splits,
)
from sgfr_jax.detector import state as states
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.model import About, Detector
from sgfr_jax.detector.services import Services, pad
from sgfr_jax.detector.splits import Split
from sgfr_jax.detector.stages import Stages
from sgfr_jax.detector.state import Look, Nulls, Origins
from sgfr_jax.errors import ArgumentError

# Squares that banks take up at a time, whatever the size of a batch: it makes a bank what it is.
_TOGETHER = 16


class Seen(NamedTuple):
    """What the model made of the new images before it learned from them."""

    scores: np.ndarray  # [B]
    known: np.ndarray  # [B]: the share of an image's patches, of all banks, that it could mimic


class _Look(NamedTuple):
    """One of the ways in which a detector looks at the new images."""

    name: str
    split: Split
    fitted: Look
    sizes: tuple[int, ...]  # that its banks may grow to


class _Met(NamedTuple):
    """What the banks of one look, as they were, made of the new images."""

    scores: np.ndarray  # [B]
    known: np.ndarray  # [B]: patches, of all banks, that they could mimic
    shown: np.ndarray  # [B]: patches that are no padding


class _Growing(NamedTuple):
    """A bank on the way."""

    bank: types.Bank
    origin: Origins
    known: Callable  # patches [N, D] -> [N] bool: what the bank as it was could mimic
    update: Callable  # (bank, patches [N, D], weights [N]) -> growing.Growth


def check(detector: Detector) -> None:
    """Raises ArgumentError if the detector cannot grow."""
    if detector.method.subspaces != "implicit":
        raise ArgumentError(
            f"`model`: its atoms are learned (subspaces={detector.method.subspaces}) from patches"
            " that are gone, so none can be added; fit a model of all images"
        )


def unseen(detector: Detector, split: Split) -> Split:
    """The images of a split that the detector has not learned from, each once."""
    known, fresh = set(detector.about.hashes), []
    for i, of_image in enumerate(splits.of_contents(split.hashes)):
        if of_image not in known:
            known.add(of_image)
            fresh.append(i)
    return split.take(fresh)


def grow(
    detector: Detector, stages: Stages, split: Split, key: jax.Array, made_with: str = "{}"
) -> tuple[Detector, Seen]:
    """The detector after it has learned from nominal images.

    Args:
      detector: that `check` lets pass.
      stages: of it.
      split: the images, whole, none of which it has seen.
      key: decides which of too many atoms stay, and which images are held out.
      made_with: of `model.About`.

    Returns:
      The detector, and what the old one made of the images.

    Raises:
      DatasetError: if features are not finite.
    """
    before, method, about = len(detector.about.train), detector.method, detector.about
    laid = splits.laid(split, method.geometries)
    came = model.num_patches(laid, stages)
    patches = tuple(map(operator.add, about.patches, came))
    grown, met = [], []
    for look in _looks(detector, stages, laid, patches):
        after, of_look = _take_up(detector, stages, look, key)
        if after.calibrations:
            after = _calibrate(detector, stages, look, after)
        grown.append(after)
        met.append(of_look)
    state = detector.state._replace(looks=tuple(grown))
    seen = Seen(
        looks.score_together(detector.state, np.stack([one.scores for one in met], axis=-1)),
        sum(one.known for one in met) / sum(one.shown for one in met),
    )

    seed = fitting.seed_of(key)
    chosen = held_out.choose(len(split.examples), (), seed, at_most=held_out.NULL_IMAGES)
    fresh = held_out.of_images(
        stages, state, laid.take(chosen), [before + i for i in chosen],
        f"{about.category}: held-out scores",
    )  # fmt: skip
    pooled = Nulls(*map(thresholds.together, detector.nulls, fresh))
    told = _about(detector, split, state, seen, len(chosen))
    told = told._replace(patches=patches, made_with=made_with)
    return Detector(state, pooled, method, detector.network, told), seen


def _looks(
    detector: Detector, stages: Stages, laid: Split, patches: Sequence[int]
) -> Iterator[_Look]:
    """The ways in which a detector looks at images.

    Args:
      detector: as it is.
      stages: of it.
      laid: the new images, as it looks at them.
      patches: how many each bank would be chosen from in a fit of all images.
    """
    method, category = detector.method, detector.about.category
    if method.has_streams:
        patches = [min(num, fitting.SAMPLED_PATCHES) for num in patches]
    sizes = iter(map(method.num_atoms, patches))
    kinds = [geometry.kind for geometry in method.geometries]
    for kind, split, look in zip(kinds, splits.looks(laid), detector.state.looks, strict=True):
        name = f"{category} ({kind})" if len(kinds) > 1 else category
        yield _Look(name, split, look, tuple(next(sizes) for _ in stages.streams))


def _take_up(detector: Detector, stages: Stages, look: _Look, key: jax.Array) -> tuple[Look, _Met]:
    """The look with banks grown by some squares after the others, in bounded memory."""
    method, before = detector.method, len(detector.about.train)
    num_images, machine = len(look.split.examples), stages.services
    banks = zip(look.fitted.banks, look.fitted.origins, look.sizes, strict=True)
    streams = [_growing(method, machine, key, *of_bank) for of_bank in banks]
    seen = splits.views(look.split)
    windows = states.window_numbers(seen.owners)
    alone, programs = len(method.geometries) == 1, stages.programs[method.solver]
    wholes = assembly.Assembly(look.split, programs, look.fitted, alone=alone)
    scores, known, shown, done = [], np.zeros(num_images), np.zeros(num_images), 0

    def patches_of(batch: assembly.Batch) -> list[np.ndarray]:
        found = jax.device_get(wholes.score(look.fitted, batch.patches, batch.extents))
        whole = wholes.add(*(x[: batch.num] for x in found))
        scores.extend(one.score for one in whole)
        report(len(whole))
        return [np.asarray(features)[: batch.num] for features in batch.patches]

    with machine.progress(f"{look.name}: learning", num_images, "images") as report:
        batches = assembly.batches(stages, seen)
        for together in _regrouped(map(patches_of, batches), _TOGETHER):
            rows = np.arange(done, done + len(together[0]))
            some = seen.take(rows)
            for i, (features, stream) in enumerate(zip(together, stages.streams, strict=True)):
                real = sampling.patch_weights(some, stream.grid) > 0
                places = (before + some.owners, windows[rows])
                streams[i], mimicked = _learn(streams[i], features, real, *places)
                np.add.at(known, some.owners, mimicked.sum(axis=1))
                np.add.at(shown, some.owners, real.sum(axis=1))
            done += len(rows)
    grown = look.fitted._replace(
        banks=tuple(stream.bank for stream in streams),
        origins=tuple(stream.origin for stream in streams),
    )
    return grown, _Met(np.array(scores), known, shown)


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


def _growing(
    method: Method, machine: Services, key: jax.Array, bank: types.Bank, origin: Origins, size: int
) -> _Growing:
    """A bank with room for as many atoms as it may have."""
    nominal_level, known, update, _ = _programs(method.coding(), machine.jit)
    level = nominal_level(bank)
    room = partial(_with_room, max(0, size - len(bank.atoms)))
    return _Growing(
        room(bank), room(origin), partial(known, bank, level), partial(update, key, level)
    )


@functools.lru_cache(8)
def _programs(method: Method, jit: Callable) -> tuple[Callable, ...]:
    """What a bank grows by, compiled once for equal methods."""
    coding = scoring.usual_coding(method, method.solver)
    code, chunk_size = coding.code, coding.chunk_size

    def known(bank: types.Bank, level: jax.Array, patches: jax.Array) -> jax.Array:
        return pipeline.score(bank, patches, code=code, chunk_size=chunk_size) <= level

    def update(key, level, bank: types.Bank, patches: jax.Array, weights: jax.Array):
        return growing.update(
            key, bank, patches, weights, code=code, level=level, chunk_size=chunk_size
        )

    held = partial(pipeline.score_held_out, code=code, chunk_size=chunk_size)
    return jit(partial(growing.nominal_level, code=code)), jit(known), jit(update), jit(held)


def _with_room(missing: int, tree: Any) -> Any:
    """Arrays `[M, ...]` with zeros up to `[M + missing, ...]`; atoms of weight 0 are none."""
    return jax.tree.map(lambda x: jnp.asarray(pad(np.asarray(x), len(x) + missing)), tree)


def _learn(
    stream: _Growing,
    features: np.ndarray,
    shown: np.ndarray,
    images: np.ndarray,
    windows: np.ndarray,
) -> tuple[_Growing, np.ndarray]:
    """The bank after some squares, and which of their patches it knew, `[n, P]`; none of padding.

    Args:
      stream: before them.
      features: `[n, P, D]`, of `_TOGETHER` squares or fewer.
      shown: `[n, P]` bool: which patches show an image.
      images: `[n]`: that each square is of, numbered among all that the model has seen.
      windows: `[n]`: and which of its windows.
    """
    num, each = shown.shape
    patches = pad(features, _TOGETHER).reshape(_TOGETHER * each, -1)
    known = np.asarray(stream.known(patches)).reshape(_TOGETHER, each)[:num]
    fresh = pad((shown & ~known).astype(np.float32), _TOGETHER)
    found = stream.update(stream.bank, patches, fresh.reshape(-1))
    sources = np.asarray(found.sources)
    squares, cells = np.divmod(np.maximum(sources, 0), each)
    came = Origins(images[squares], windows[squares], cells)
    origin = jax.tree.map(
        lambda old, new: jnp.where(sources < 0, old, jnp.asarray(new, jnp.int32)),
        stream.origin, came,
    )  # fmt: skip
    return stream._replace(bank=found.bank, origin=origin), shown & known


def _calibrate(detector: Detector, stages: Stages, look: _Look, grown: Look) -> Look:
    """The grown look with scales for the atoms that have come."""
    method, before = detector.method, len(detector.about.train)
    machine = stages.services
    score = _programs(method.coding(), machine.jit)[-1]
    seen = splits.views(look.split)
    found, done = [[] for _ in grown.origins], 0
    title = f"{look.name}: calibrating"
    with machine.progress(title, len(seen.owners), "squares") as report:
        for batch in assembly.batches(stages, seen):
            own = pad(before + seen.owners[done : done + batch.num], machine.batch_size)
            for of_stream, bank, origin, features in zip(
                found, grown.banks, grown.origins, batch.patches, strict=True
            ):
                scores = score(bank, origin.images, features, own)
                of_stream.append([np.asarray(x)[: batch.num] for x in scores])
            done += batch.num
            report(batch.num)
    extended = []
    for old, origin, of_stream, stream in zip(
        grown.calibrations, grown.origins, found, stages.streams, strict=True
    ):
        scores, owners = (
            np.concatenate(parts).reshape(-1, stream.grid, stream.grid)
            for parts in zip(*of_stream, strict=True)
        )
        fresh = origin.images >= before
        extended.append(calibration.extend(old, fresh, scores, owners, extents=seen.extents))
    return grown._replace(calibrations=tuple(extended))


def _about(
    detector: Detector, split: Split, state: states.State, seen: Seen, num_null: int
) -> About:
    about, num_images = detector.about, len(split.examples)
    origins = [origin for look in state.looks for origin in look.origins]
    came = sum(int(jnp.sum(origin.images >= len(about.train))) for origin in origins)
    held = int(detector.nulls.images.counts.sum())
    notes = (
        f"grown by {num_images} images, of whose patches {seen.known.mean():.1%} could be mimicked"
        f" before: {came} of their patches became atoms",
        f"null of {held} images as they scored before the model grew, and of {num_null} that it"
        " grew by, each without the atoms that it gave",
    )
    kept = about.notes[:-1]  # the last is on the former null
    return about._replace(
        train=(*about.train, *_names(split, len(about.train))),
        paths=(*about.paths, *map(model.path_of, split.examples)),
        hashes=(*about.hashes, *splits.of_contents(split.hashes)),
        data=hashlib.sha256("\n".join([about.data, *split.hashes]).encode()).hexdigest(),
        notes=(*kept, *notes),
        f1_threshold=None,
    )


def _names(split: Split, before: int) -> list[str]:
    """The names of images by their paths; arrays go on being numbered."""
    return [
        f"image {number}" if isinstance(example.image, np.ndarray) else str(example.image)
        for number, example in enumerate(split.examples, before)
    ]
