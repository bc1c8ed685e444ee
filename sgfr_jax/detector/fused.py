"""The detector of several streams: a bank for each level and scale, weighed without any label.

Every stream (`streams`) is fitted alone. Training images, scored without the atoms they gave, say what residuals are nominal (`sgfr_jax.calibration`); synthetic defects drawn on some
of them say how much each stream counts (`sgfr_jax.fusion`). No test image is looked at.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax import calibration, fusion
from sgfr_jax.commands.flags.config import Config
from sgfr_jax.commands.host import devices, processes, progress
from sgfr_jax.detector import (
    blocks,
    detectors,
    embedding,
    loading,
    sampling,
    synthetic,
)
from sgfr_jax.detector.fused_scorer import Found, Scorer, spread_of
from sgfr_jax.detector.stream_maps import COARSE, Fused
from sgfr_jax.detector.streams import Stream

# Patches that one bank is chosen from: at most so many, as many from every image.
SAMPLED_PATCHES = 100_000
# Nominal images that calibrate the streams; the scale of an atom needs about a hundred.
CALIBRATION_IMAGES = 100


class Squares(NamedTuple):
    """Embedded squares that calibrate or weigh the streams."""

    features: list[np.ndarray]  # [B, P, D] of every stream
    seen: loading.Views  # whose owners are the training images they show, or are made from


def make_detector(
    config: Config, views: Sequence[tuple[embedding.Embedder, Sequence[Stream]]]
) -> detectors.Detector:
    """The detector of several streams.

    Args:
      config: of the run.
      views: an embedder for each image size, and the streams that its embeddings hold.
    """
    streams = [stream for _, of_view in views for stream in of_view]
    layout = views[0][0].layout
    scorers = {solver: Scorer(config, streams, solver, layout=layout) for solver in config.solvers}
    readers = [_Reader(embedder, [s.shape for s in of_view]) for embedder, of_view in views]

    def fit(category: loading.Checked) -> detectors.Fitted:
        return _fit(config, streams, scorers, readers, layout, category)

    return detectors.Detector(
        fit,
        partial(_all_batches, readers),
        {solver: scorer.score for solver, scorer in scorers.items()},
        views[0][0].batch_size,
        windowed={s: detectors.Windowed(of.score_windows, of.join) for s, of in scorers.items()},
        parts={solver: scorer.parts for solver, scorer in scorers.items()},
        put=partial(devices.put, layout=layout),
        place=partial(devices.replicate, layout=layout),
        breadth=config.breadth,
        image_prior=config.image_prior,
    )


class _Reader(NamedTuple):
    """Embeds images at one size."""

    embedder: embedding.Embedder
    shapes: Sequence[tuple[int, int]]  # of each stream of that size: `P` and `D`

    def __call__(self, split: loading.Split) -> Iterator[list[np.ndarray]]:
        """The patches `[n, P, D]` of the streams, of some images at a time."""
        for flat in self.embedder.batches(split):
            yield part(flat, self.shapes)


def part(flat: np.ndarray, shapes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """The patches `[n, P, D]` of the streams whose embeddings `[n, 1, F]` hold them in a row."""
    ends = itertools.accumulate(num_patches * width for num_patches, width in shapes)
    begins = itertools.pairwise((0, *ends))
    return [
        flat[:, 0, begin:end].reshape(flat.shape[0], *shape)
        for (begin, end), shape in zip(begins, shapes, strict=True)
    ]


def _all_batches(readers: Sequence[Callable], split: loading.Split) -> Iterator[tuple]:
    """The same of all streams."""
    for batch in zip(*(read(split) for read in readers), strict=True):
        yield tuple(itertools.chain.from_iterable(batch))


def _fit(config, streams, scorers, readers, layout, category) -> detectors.Fitted:
    """Fits the banks of the streams, those of one image size after the other, then weighs them."""
    name, num_images = category.name, len(category.train.examples)
    train = loading.views(category.train)
    num_views = len(train.owners)
    key = jax.random.key(config.seed)
    # As many squares, on average, where an image has several.
    held = min(num_images, max(1, CALIBRATION_IMAGES * num_images // num_views))
    calibrating = np.sort(np.asarray(jax.random.permutation(key, num_images)[:held]))
    kept = np.isin(train.owners, calibrating)

    embed_seconds = sample_seconds = 0.0
    banks, origins, nominal = [], [], []
    by_size = itertools.groupby(enumerate(streams), lambda numbered: numbered[1].image_size)
    mine = devices.share(num_views, layout)
    split, kept_here = train.split.take(mine), kept[mine.start : mine.stop]
    for read, (size, group) in zip(readers, by_size, strict=True):
        start = time.perf_counter()
        keys, grids = zip(*((jax.random.fold_in(key, i), s.grid) for i, s in group), strict=True)
        shown = [sampling.patch_weights(train, grid) for grid in grids]
        picks = [_pick(*of) for of in zip(keys, shown, strict=True)]
        weights = [np.take_along_axis(*of, axis=1) for of in zip(shown, picks, strict=True)]
        with progress.bar(f"{name}: embedding at {size} px", len(mine), "images") as report:
            here = [picked[mine.start : mine.stop] for picked in picks]
            points, seen = _read(read(split), read.shapes, here, kept_here, report)
        nominal.extend(map(processes.concatenated, seen))
        embedded = time.perf_counter()
        sizes = [config.num_atoms(int(of_stream.sum())) for of_stream in weights]
        with progress.bar(f"{name}: sampling at {size} px", sum(sizes), "atoms") as report:
            for of_key, picked, real, num_atoms in zip(keys, picks, weights, sizes, strict=True):
                # Large, and no longer needed.
                of_stream = sampling.place(config, points.pop(0), picked.shape, layout)
                bank = sampling.make_bank(
                    config, of_key, of_stream, real.ravel(), num_atoms, report
                )
                bank = processes.agreed(jax.block_until_ready(bank))
                banks.append(devices.replicate(bank, layout))
                if config.subspaces == "implicit":
                    origins.append(detectors.origins(bank.indices, picked, train.owners))
                else:
                    origins.append(detectors.no_origins(len(bank.weights)))
        embed_seconds += embedded - start
        sample_seconds += time.perf_counter() - embedded
    sampled = time.perf_counter()

    notes, sources, one = [], [of_bank.images for of_bank in origins], num_images == 1
    if config.subspaces != "implicit":
        notes.append(
            "learned bases come from all images: nothing could be held out, so residuals are those"
            " of patches that the banks have seen, and maps keep their halos"
        )
        sources = [jnp.full_like(s, -1) for s in sources]
    elif one:
        notes.append(
            "one training image: its sixteen parts were held out of one another, in place of images"
            " that the banks have not seen"
        )
        sources = [blocks.numbers(s.grid)[o.cells] for s, o in zip(streams, origins, strict=True)]
    drawn = synthetic.draw(
        category.train, config.seed, config.image_size,
        most_pixels=synthetic.MOST_PIXELS, least_side=streams[-1].image_size,
    )  # fmt: skip
    made = _gather(readers, drawn.seen.split, f"{name}: synthetic defects")
    ordinary = Squares(nominal, train.take(np.flatnonzero(kept)))
    defective = Squares(made, drawn.seen)
    states = {}
    for solver, scorer in scorers.items():
        with progress.bar(f"{name}: weighing streams", len(streams), "streams") as report:
            state = _weigh(scorer, tuple(banks), sources, one, ordinary, defective, drawn, report)
            states[solver] = devices.replicate(processes.agreed(state), layout)
    own = next(iter(states.values()))
    shares = [f"{s.name} {w:.2f}" for s, w in zip(streams, own.map_weights, strict=True)]
    notes.append(f"weights from {len(drawn.masks)} synthetic defects: {', '.join(shares)}")
    spent = detectors.Seconds(embed_seconds, sample_seconds, time.perf_counter() - sampled)
    num_atoms = sum(int(jnp.sum(bank.weights > 0)) for bank in banks)
    calibrated_on = tuple(int(image) for image in calibrating)
    return detectors.Fitted(states, num_atoms, notes, spent, tuple(origins), calibrated_on)


def _pick(key: jax.Array, shown: np.ndarray) -> np.ndarray:
    """Which patches of each square a bank is chosen from, `[V, n]`: as many from every one.

    Of `shown`, `[V, P]`, those that are 0 come last.
    """
    each = max(1, SAMPLED_PATCHES // len(shown))
    draws = np.asarray(jax.random.uniform(key, shown.shape))
    return np.sort(sampling.pick(draws, shown, each), axis=1)


def _read(
    batches: Iterator[Sequence[np.ndarray]],
    shapes: Sequence[tuple[int, int]],
    picks: Sequence[np.ndarray],
    kept: np.ndarray,
    report: sampling.Report,
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


def _gather(readers: Sequence[Callable], split: loading.Split, title: str) -> list[np.ndarray]:
    """All patches of a split, `[n, P, D]` of every stream."""
    if not split.examples:
        return []
    found, mine = [], processes.share(len(split.examples))
    with progress.bar(title, len(mine), "images") as report:
        for batch in _all_batches(readers, split.take(mine)):
            found.append(batch)
            report(len(batch[0]))
    every = zip(*processes.joined(found), strict=True)
    return [np.concatenate(of_stream) for of_stream in every]


def _weigh(scorer: Scorer, banks, sources, one, nominal, defective, drawn, report) -> Fused:
    """Calibrates every stream on held-out nominal images, and weighs them by synthetic defects.

    Of `one` image its blocks are held out, and sources are numbers of blocks.
    """
    calibrations, held, of_nominal, of_defects = [], [], [], []
    extents = nominal.seen.extents
    for i, (stream, bank) in enumerate(zip(scorer.streams, banks, strict=True)):
        held_out = partial(_held_out, partial(scorer.held_out, bank, sources[i]), stream.grid, one)
        scores, owners = held_out(nominal.features[i], nominal.seen.owners)
        calibrated = scorer.calibrate(scores, owners, len(bank.atoms), extents=extents)
        seen = scorer.glance(calibrated, scores, owners, extents)
        shown = seen.maps[seen.shown]
        mean, spread = shown.mean(), spread_of(shown, axis=None)
        calibrated = calibration.rescale(calibrated, jnp.float32(mean), jnp.float32(spread))
        calibrations.append(calibrated)
        held.append((scores, owners))
        # Maps are linear in the scores: the rescaled ones need not be made anew.
        maps, of_maps = ((x - mean) / spread for x in (seen.maps, seen.scores))
        of_nominal.append(Found(maps, of_maps, seen.shown))
        if len(defective.seen.owners):
            found = held_out(defective.features[i], defective.seen.owners)
            of_defects.append(scorer.glance(calibrated, *found, defective.seen.extents))
        report(1)

    map_weights, image_weights = _weights(of_nominal, of_defects, drawn)
    alone = np.stack([found.scores for found in of_nominal])
    state = Fused(
        banks,
        tuple(calibrations),
        jnp.asarray(map_weights, jnp.float32),
        jnp.asarray(image_weights, jnp.float32),
        jnp.asarray(alone.mean(axis=1), jnp.float32),
        jnp.asarray(spread_of(alone, axis=1), jnp.float32),
        jnp.zeros(2),
        jnp.ones(2),
        jnp.float32(jnp.inf),
    )
    # Of a bank whose atoms are of no one image nothing was left out.
    unseen = all(bool(jnp.any(of_bank >= 0)) for of_bank in sources)
    return scorer.standard(state, held, extents, held_out=unseen)


def _held_out(score, grid: int, one: bool, features, owners) -> list[np.ndarray]:
    """Scores and owners `[V, h, w]` of squares without the atoms of their images, or blocks."""
    found = blocks.held_out(score, grid, features) if one else score(features, owners)
    return [x.reshape(-1, grid, grid) for x in found]


def _weights(
    of_nominal: Sequence[Found], of_defects: Sequence[Found], drawn: synthetic.Drawn
) -> tuple[np.ndarray, np.ndarray]:
    """What each stream counts in the map and in the streams' score; alike without defects."""
    if not of_defects:
        alike = np.full(len(of_nominal), 1 / len(of_nominal))
        return alike, alike
    masks = synthetic.coarse(drawn.masks, COARSE)
    precision = np.stack([
        fusion.precisions(
            # Padding ranks last, and so counts for nothing.
            np.where(defects.shown, defects.maps, defects.maps.min()),
            masks, drawn.groups, ordinary.maps[ordinary.shown],
        )
        for defects, ordinary in zip(of_defects, of_nominal, strict=True)
    ])  # fmt: skip
    of_images = (np.stack([found.scores for found in of]) for of in (of_defects, of_nominal))
    return fusion.map_weights(precision), fusion.image_weights(*of_images)
