"""A detector fitted to nominal images: banks of every look and stream, weighed without any label.

Every stream is fitted alone. Where a method has several, they are calibrated and weighed
(`weighing`); where images are looked at in several ways, what nominal images come to makes these
comparable. No test image is looked at.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax.datasets.geometry import Geometry
from sgfr_jax.detector import held_out, looks, sampling, services, splits, synthetic, weighing
from sgfr_jax.detector import state as states
from sgfr_jax.detector.services import Report
from sgfr_jax.detector.splits import Split
from sgfr_jax.detector.stages import Stages
from sgfr_jax.detector.state import Look, State
from sgfr_jax.detector.weighing import Squares
from sgfr_jax.errors import ArgumentError, shown

# The most patches that one bank of several is chosen from; every image gives the same number.
SAMPLED_PATCHES = 100_000
# Nominal images that calibrate the streams; the scale of an atom needs about a hundred.
CALIBRATION_IMAGES = 100
# Training images, each scored without the atoms it gave, that say what the looks' numbers mean.
NOMINAL_IMAGES = 100


class Seconds(NamedTuple):
    """Wall time of the stages of fitting."""

    embed: float
    sample: float
    calibrate: float = 0.0


class FittedLook(NamedTuple):
    """What is fitted to one way of looking at training images."""

    looks: dict[str, Look]  # by solver
    notes: list[str]  # on how it was fitted
    seconds: Seconds
    calibrated_on: tuple[int, ...] = ()  # the training images that calibrated the streams


class Fitted(NamedTuple):
    """What is fitted to training images in all ways in which they are looked at."""

    states: dict[str, State]  # by solver
    notes: list[str]
    seconds: Seconds
    calibrated_on: tuple[int, ...]

    @property
    def num_atoms(self) -> int:
        """The atoms in all banks together."""
        return sum(map(states.num_atoms, next(iter(self.states.values())).looks))


# `(stages, key, training images as one look sees them, name) -> FittedLook`
FitLook = Callable[[Stages, jax.Array, Split, str], FittedLook]


def check_key(key: jax.Array) -> None:
    """Raises ArgumentError for what is not one random key, of the new type or the old."""
    try:
        single = jax.random.key_data(key).ndim == 1
    except (TypeError, ValueError):
        single = False
    if not single:
        raise ArgumentError(f"key={shown(key)} must be one random key, such as jax.random.key(0)")


def seed_of(key: jax.Array) -> int:
    """The integer that `jax.random.key` makes a key of: what NumPy's generators are seeded with."""
    words = np.asarray(jax.random.key_data(key)).tolist()
    return sum(word << 32 * place for place, word in enumerate(reversed(words)))


def fit(
    stages: Stages, key: jax.Array, train: Split, name: str = "", fit_look: FitLook | None = None
) -> Fitted:
    """Fits a detector to nominal images; where there are several looks, to each of them.

    Args:
      stages: of the method.
      key: decides all that is drawn.
      train: the images, as they are looked at (`splits.laid`).
      name: of the category, for progress.
      fit_look: what fits one look; None: `fit_one`.

    Raises:
      DatasetError: if features are not finite.
    """
    every_look, prefix, each = splits.looks(train), f"{name}: " if name else "", []
    geometries = [split.geometry for split in every_look]
    for split in every_look:
        own = f"{name} ({split.geometry.kind}): " if len(every_look) > 1 else prefix
        each.append((fit_look or fit_one)(stages, key, split, own))
    if len(each) == 1:
        (only,) = each
        found = {solver: states.alone(look) for solver, look in only.looks.items()}
        return Fitted(found, only.notes, only.seconds, only.calibrated_on)
    began = time.perf_counter()
    known = tuple(sorted(set().union(*(fitted.calibrated_on for fitted in each))))
    found = {
        solver: _together(
            stages, solver, [fitted.looks[solver] for fitted in each], geometries, train, known,
            seed_of(key), prefix,
        )
        for solver in each[0].looks
    }  # fmt: skip
    seconds = np.sum([fitted.seconds for fitted in each], axis=0)
    seconds[-1] += time.perf_counter() - began
    notes = [
        f"{geometry.kind}: {note}"
        for geometry, fitted in zip(geometries, each, strict=True)
        for note in fitted.notes
    ]
    return Fitted(found, notes, Seconds(*seconds.tolist()), known)


def _together(
    stages: Stages,
    solver: str,
    every_look: Sequence[Look],
    geometries: Sequence[Geometry],
    train: Split,
    known: Sequence[int],
    seed: int,
    prefix: str,
) -> State:
    """The state of one solver, with what nominal images come to in each look."""
    machine, num_images = stages.services, len(train.examples)
    chosen = held_out.choose(num_images, known, seed, at_most=NOMINAL_IMAGES)
    mine = [chosen[i] for i in machine.share(len(chosen))]
    givers = held_out.givers(mine, num_images)
    split, found = train.take(mine), []
    with machine.progress(f"{prefix}comparing looks", len(mine), "images") as report:
        wholes = held_out.of_looks(stages, solver, every_look, split, givers)
        for example, of_image in zip(split.examples, wholes, strict=True):
            looks.check_finite(example, of_image)
            found.append(looks.summary(of_image))
            report(1)
    nominal = looks.nominal(np.array(machine.joined(found)))
    whole = jnp.array([geometry.kind != "tile" for geometry in geometries])
    return State(tuple(every_look), nominal, whole)


def fit_one(stages: Stages, key: jax.Array, train: Split, prefix: str) -> FittedLook:
    """Fits one look: the banks of one image size after those of the other, then their weights.

    Args:
      stages: of the method.
      key: decides all that is drawn.
      train: the images as this look sees them.
      prefix: of the titles of progress.

    Raises:
      DatasetError: if features are not finite.
    """
    method, machine = stages.method, stages.services
    num_images, seen = len(train.examples), splits.views(train)
    calibrating = np.zeros(0, int)
    if method.has_streams:
        # As many squares, on average, where an image has several.
        held = max(1, CALIBRATION_IMAGES * num_images // len(seen.owners))
        order = np.asarray(jax.random.permutation(key, num_images))
        calibrating = np.sort(order[: min(num_images, held)])
    look, nominal, seconds = _fit_banks(stages, key, seen, calibrating, prefix)
    sampled = time.perf_counter()
    if not method.has_streams:
        return FittedLook(dict.fromkeys(stages.programs, look), [], seconds)
    drawn, made = _draw(stages, train, seed_of(key), prefix)
    by_block = num_images == 1 and method.subspaces == "implicit"
    found = {}
    for solver, programs in stages.programs.items():
        title = f"{prefix}weighing streams"
        with machine.progress(title, len(stages.streams), "streams") as report:
            own, held = weighing.calibrate(
                programs, stages.streams, look, nominal, machine, by_block=by_block, report=report
            )
            own = weighing.weigh(
                programs, stages.streams, own, held, made, drawn.masks, drawn.groups, machine,
                by_block=by_block,
            )  # fmt: skip
        found[solver] = machine.replicate(machine.agreed(own))
    notes = _notes(stages, next(iter(found.values())), len(drawn.masks), by_block=by_block)
    seconds = seconds._replace(calibrate=time.perf_counter() - sampled)
    return FittedLook(found, notes, seconds, tuple(int(image) for image in calibrating))


def _fit_banks(
    stages: Stages,
    key: jax.Array,
    seen: splits.Views,
    calibrating: np.ndarray,
    prefix: str,
) -> tuple[Look, Squares, Seconds]:
    """The banks of one look, and the embedded squares of the images that calibrate it."""
    method, machine = stages.method, stages.services
    kept = np.isin(seen.owners, calibrating)
    mine = machine.share_images(len(seen.owners))
    split, kept_here = seen.split.take(mine), kept[mine.start : mine.stop]
    banks, origins, nominal, done = [], [], [], 0
    embed_seconds = sample_seconds = 0.0
    for embedder in stages.embedders:
        start, size = time.perf_counter(), embedder.image_size
        keys = [_key_of(stages, key, done + i) for i in range(len(embedder.streams))]
        done += len(embedder.streams)
        shown = [sampling.patch_weights(seen, stream.grid) for stream in embedder.streams]
        picks = [_pick(stages, *of) for of in zip(keys, shown, strict=True)]
        weights = [np.take_along_axis(*of, axis=1) for of in zip(shown, picks, strict=True)]
        shapes = [stream.shape for stream in embedder.streams]
        with machine.progress(f"{prefix}embedding at {size} px", len(mine), "images") as report:
            here = [picked[mine.start : mine.stop] for picked in picks]
            points, own = _read(embedder.batches(split), shapes, here, kept_here, report)
        nominal.extend(services.concatenated(machine, features) for features in own)
        embedded = time.perf_counter()
        sizes = [method.num_atoms(int(of_stream.sum())) for of_stream in weights]
        with machine.progress(f"{prefix}sampling at {size} px", sum(sizes), "atoms") as report:
            for of_key, picked, real, num in zip(keys, picks, weights, sizes, strict=True):
                bank = sampling.make_bank(
                    method, of_key, points.pop(0), real.ravel(), num, report, machine,
                    shape=picked.shape,
                )  # fmt: skip
                banks.append(machine.replicate(bank))
                origins.append(sampling.origins(method, bank, picked, seen.owners))
        embed_seconds += embedded - start
        sample_seconds += time.perf_counter() - embedded
    squares = seen.take(np.flatnonzero(kept))
    look = states.plain_look(tuple(banks), tuple(origins))
    return (
        look,
        Squares(nominal, squares.owners, squares.extents),
        Seconds(embed_seconds, sample_seconds),
    )


def _key_of(stages: Stages, key: jax.Array, number: int) -> jax.Array:
    """The key of one of several banks, or of the only one."""
    return jax.random.fold_in(key, number) if stages.method.has_streams else key


def _pick(stages: Stages, key: jax.Array, shown: np.ndarray) -> np.ndarray:
    """Which patches of each square a bank is chosen from, `[V, n]`: as many from every one.

    Of `shown`, `[V, P]`, those that are 0 come last. The only bank is chosen from all patches.
    """
    if not stages.method.has_streams:
        return sampling.every_patch(*shown.shape)
    each = max(1, SAMPLED_PATCHES // len(shown))
    draws = np.asarray(jax.random.uniform(key, shown.shape))
    return np.sort(sampling.pick(draws, shown, each), axis=1)


def _read(
    batches: Iterator[Sequence[np.ndarray]],
    shapes: Sequence[tuple[int, int]],
    picks: Sequence[np.ndarray],
    kept: np.ndarray,
    report: Report,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of every stream the picked patches `[V n, D]`, and all `[M, P, D]` of the `kept` squares."""
    points = [
        np.empty((*picked.shape, features), np.float32)
        for picked, (_, features) in zip(picks, shapes, strict=True)
    ]
    nominal = [[np.empty((0, *shape), np.float32)] for shape in shapes]
    done = 0
    for batch in batches:
        rows = np.arange(done, done + len(batch[0]))
        inside = kept[rows]
        for i, (features, picked) in enumerate(zip(batch, picks, strict=True)):
            points[i][rows] = features[np.arange(len(rows))[:, None], picked[rows]]
            nominal[i].append(features[inside])
        done += len(rows)
        report(len(rows))
    return [p.reshape(-1, p.shape[-1]) for p in points], [np.concatenate(n) for n in nominal]


def _draw(stages: Stages, train: Split, seed: int, prefix: str) -> tuple[synthetic.Drawn, Squares]:
    """Synthetic defects on training images, embedded."""
    method, machine = stages.method, stages.services
    drawn = synthetic.draw(
        train, seed, method.image_size,
        most_pixels=synthetic.MOST_PIXELS, least_side=stages.streams[-1].image_size,
    )  # fmt: skip
    split, made = drawn.seen.split, []
    if split.examples:
        found, mine = [], machine.share(len(split.examples))
        title = f"{prefix}synthetic defects"
        with machine.progress(title, len(mine), "images") as report:
            for batch in stages.batches(split.take(mine)):
                found.append(batch)
                report(len(batch[0]))
        made = [np.concatenate(parts) for parts in zip(*machine.joined(found), strict=True)]
    return drawn, Squares(made, drawn.seen.owners, drawn.seen.extents)


def _notes(stages: Stages, look: Look, num_drawn: int, *, by_block: bool) -> list[str]:
    notes = []
    if stages.method.subspaces != "implicit":
        notes.append(
            "learned bases come from all images: nothing could be held out, so residuals are those"
            " of patches that the banks have seen, and maps keep their halos"
        )
    elif by_block:
        notes.append(
            "one training image: its sixteen parts were held out of one another, in place of images"
            " that the banks have not seen"
        )
    shares = [
        f"{stream.name} {weight:.2f}"
        for stream, weight in zip(stages.streams, look.map_weights, strict=True)
    ]
    notes.append(f"weights from {num_drawn} synthetic defects: {', '.join(shares)}")
    return notes
