"""Scores of nominal images that a fitted detector has not learned from: its null distribution.

No image is spared in fitting: a training image is scored without the atoms that it gave, by the
detector's own scorer. That is nearly what a new image would score, with three differences.

- A bank sampled without the image would have kept other patches in the place of its own, so its
  score is a little too high.
- With several streams, calibration and weights of the streams come from up to a hundred of the
  images, which makes their scores a little too low. The others are taken first.
- The null is of images as like the training images as these are to each other. Where several
  photographs of each part are in the training set, those of a new part score higher.

The first errs on the safe side; the last does not. On MTD, at a wanted 5%, of the nominal test
images 3.1% and 0.5% (`auto` in squares, two seeds) were called anomalous where tiles are on both
sides of the split, but 14.5% and 24.4% where they are not (its split by tile).
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax import thresholds
from sgfr_jax.detector import assembly, blocks, looks, splits
from sgfr_jax.detector import state as states
from sgfr_jax.detector.assembly import Whole
from sgfr_jax.detector.splits import Split
from sgfr_jax.detector.stages import Stages
from sgfr_jax.detector.state import Look, Nulls, State

# Enough for a false-alarm rate of one in three hundred.
NULL_IMAGES = 300
# The number of no image: what it gave is nothing.
NO_IMAGE = -2
# In place of the number of the one training image: of each block, what that gave.
BY_BLOCK = -3


def nulls(
    stages: Stages,
    state: State,
    train: Split,
    calibrated_on: Collection[int],
    seed: int,
    title: str = "held-out scores",
) -> tuple[Nulls, str]:
    """The scores and pixels of up to `NULL_IMAGES` training images, held out as far as can be.

    Args:
      stages: that fitted.
      state: of the method's own solver.
      train: the training images, as they are looked at.
      calibrated_on: those that calibrated the detector.
      seed: of the choice of images.
      title: of the progress.

    Returns:
      The nulls, and a note on what they are of.

    Raises:
      DatasetError: if features are not finite.
    """
    num_images = len(train.examples)
    chosen = choose(num_images, calibrated_on, seed, at_most=NULL_IMAGES)
    found = of_images(stages, state, train.take(chosen), givers(chosen, num_images), title)
    return found, _note(chosen, state, calibrated_on)


def of_images(
    stages: Stages, state: State, split: Split, givers: Sequence[int], title: str
) -> Nulls:
    """What images score without the atoms that they gave, by the method's own solver.

    Args:
      stages: that embed and score.
      state: of the detector.
      split: the images.
      givers: of each, its number in the origins.
      title: of the progress.

    Raises:
      DatasetError: if features are not finite.
    """
    scores, pixels = [], thresholds.no_pixels()
    with stages.services.progress(title, len(split.examples), "images") as report:
        for found in of_looks(stages, stages.method.solver, state.looks, split, givers):
            whole = looks.together(stages.method, state, found)
            scores.append(float(whole.score))
            thresholds.add_pixels(pixels, whole.anomaly_map)
            report(1)
    return Nulls(thresholds.tally(np.float32(scores)), thresholds.tally_pixels(pixels))


def of_looks(
    stages: Stages,
    solver: str,
    every_look: Sequence[Look],
    split: Split,
    givers: Sequence[int],
) -> Iterator[tuple[Whole, ...]]:
    """What each look makes of images without the atoms that they gave, image by image.

    Args:
      stages: that embed and score.
      solver: whose scores.
      every_look: what is fitted to each.
      split: the images.
      givers: of each image, its number in the origins, or `BY_BLOCK`.

    Raises:
      DatasetError: if features are not finite.
    """

    def of_one(seen_so: Split, look: Look):
        wholes = assembly.Assembly(
            seen_so, stages.programs[solver], look,
            alone=len(every_look) == 1, at_once=BY_BLOCK not in givers,
        )  # fmt: skip
        seen = splits.views(seen_so)
        for i, patches in enumerate(_one_by_one(stages.batches(seen.split))):
            extents = None if seen.extents is None else seen.extents[i : i + 1]
            giver = givers[seen.owners[i]]
            if giver == BY_BLOCK:
                found = _by_block(wholes.score, look, patches, extents)
            else:
                others = states.without(look, giver)
                found = jax.device_get(wholes.score(others, patches, extents))
            yield from wholes.add(*found)

    return zip(*map(of_one, splits.looks(split), every_look), strict=True)


def _by_block(
    score: Callable, look: Look, patches: Sequence[Any], extents: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Maps `[1, S, S]` and scores of a square, whose blocks are scored without what they gave.

    A little low: near borders of a block its map is smoothed with what is beyond them.
    """
    grids = [math.isqrt(features.shape[1]) for features in patches]
    gave = [
        np.where(origin.images >= 0, blocks.numbers(grid)[origin.cells], NO_IMAGE)
        for origin, grid in zip(look.origins, grids, strict=True)
    ]
    whole, scores = None, []
    for number in range(blocks.SIDE**2):
        left = tuple(
            bank._replace(weights=jnp.where(own == number, 0, bank.weights))
            for bank, own in zip(look.banks, gave, strict=True)
        )
        maps, of_block = jax.device_get(score(look._replace(banks=left), patches, extents))
        whole = np.zeros_like(maps) if whole is None else whole
        shown = blocks.numbers(maps.shape[-1]).reshape(maps.shape[1:]) == number
        whole = np.where(shown, maps, whole)
        scores.append(of_block)
    return whole, np.max(scores, axis=0)


def choose(
    num_images: int, calibrated_on: Collection[int], seed: int, *, at_most: int
) -> list[int]:
    """Which of some images are held out, in order: first those that calibrated nothing."""
    order = np.random.default_rng(seed).permutation(num_images)
    order = order[np.argsort(np.isin(order, list(calibrated_on)), kind="stable")]
    return sorted(int(i) for i in order[:at_most])


def givers(chosen: Sequence[int], num_images: int) -> list[int]:
    """For each chosen training image, of `num_images` in all, what `of_looks` leaves out."""
    return list(chosen) if num_images > 1 else [BY_BLOCK] * len(chosen)


def _one_by_one(batches: Iterable[Sequence[np.ndarray]]) -> Iterator[tuple[np.ndarray, ...]]:
    for batch in batches:
        for i in range(len(batch[0])):
            yield tuple(features[i : i + 1] for features in batch)


def _note(chosen: Sequence[int], state: State, calibrated_on: Collection[int]) -> str:
    origins = [origin for look in state.looks for origin in look.origins]
    if any(bool(jnp.any(origin.images < 0)) for origin in origins):
        return f"null of {len(chosen)} training images, which the atoms are learned from"
    if len(chosen) == 1:
        return "null of the one training image, each of its parts without the atoms that it gave"
    known = len(set(chosen) & set(calibrated_on))
    also = f"; {known} of them calibrated the streams" if known else ""
    return f"null of {len(chosen)} training images, each without the atoms that it gave{also}"
