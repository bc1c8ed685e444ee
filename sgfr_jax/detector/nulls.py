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
sides of the split, but 14.5% and 24.4% where they are not (`--split=grouped`).
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax import thresholds, types
from sgfr_jax.commands.host import progress
from sgfr_jax.detector import (
    assembly,
    blocks,
    detectors,
    loading,
    looks,
)

# Enough for a false-alarm rate of one in three hundred.
NULL_IMAGES = 300
# The number of no image: what it gave is nothing.
NO_IMAGE = -2
# In place of the number of the one training image: of each block, what that gave.
BY_BLOCK = -3


class Nulls(NamedTuple):
    """What nominal images score."""

    images: thresholds.Tally
    pixels: thresholds.Tally


def banks(state: Any) -> tuple[types.Bank, ...]:
    """The banks of a detector's state, of one bank or of several, look by look."""
    if isinstance(state, looks.Several):
        return tuple(itertools.chain.from_iterable(map(banks, state.looks)))
    return (state,) if isinstance(state, types.Bank) else state.banks


def by_look(
    state: Any, origins: Sequence[detectors.Origins]
) -> list[tuple[detectors.Origins, ...]]:
    """The origins of the banks of each look of a state, of all of them in a row."""
    left = iter(origins)
    return [tuple(itertools.islice(left, len(banks(own)))) for own in looks.states(state)]


def with_banks(state: Any, new: Sequence[types.Bank]) -> Any:
    """The state of one look with other banks in their places."""
    return new[0] if isinstance(state, types.Bank) else state._replace(banks=tuple(new))


def without(state: Any, origins: Sequence[detectors.Origins], image: int) -> Any:
    """The state of one look without the atoms that a training image gave."""
    left = [
        bank._replace(weights=jnp.where(origin.images == image, 0, bank.weights))
        for bank, origin in zip(banks(state), origins, strict=True)
    ]
    return with_banks(state, left)


def held_out(
    detector: detectors.Detector,
    solver: str,
    fitted: detectors.Fitted,
    category: loading.Checked,
    seed: int,
) -> tuple[Nulls, str]:
    """The scores and pixels of up to `NULL_IMAGES` training images, held out as far as can be.

    Args:
      detector: that fitted.
      solver: whose scores.
      fitted: on this category.
      category: of which only the training images are looked at.
      seed: of the choice of images.

    Returns:
      The nulls, and a note on what they are of.

    Raises:
      DatasetError: if features are not finite.
    """
    num_images = len(category.train.examples)
    chosen = choose(num_images, fitted.calibrated_on, seed, at_most=NULL_IMAGES)
    split, own = category.train.take(chosen), givers(chosen, num_images)
    state, title = fitted.states[solver], f"{category.name}: held-out scores"
    nulls = of_images(detector, solver, state, fitted.origins, split, own, title)
    return nulls, _note(chosen, fitted)


def of_images(
    detector: detectors.Detector,
    solver: str,
    state: Any,
    origins: Sequence[detectors.Origins],
    split: loading.Split,
    givers: Sequence[int],
    title: str,
) -> Nulls:
    """What images score without the atoms that they gave.

    Args:
      detector: that embeds and scores.
      solver: whose scores.
      state: of the detector.
      origins: of every bank.
      split: the images.
      givers: of each, its number in the origins.
      title: of the progress.

    Raises:
      DatasetError: if features are not finite.
    """
    scores, pixels = [], thresholds.no_pixels()
    each, own = looks.states(state), by_look(state, origins)
    with progress.bar(title, len(split.examples), "images") as report:
        for found in of_looks(detector, solver, each, own, split, givers):
            whole = looks.together(detector, state, found)
            scores.append(float(whole.score))
            thresholds.add_pixels(pixels, whole.anomaly_map)
            report(1)
    return Nulls(thresholds.tally(np.float32(scores)), thresholds.tally_pixels(pixels))


def of_looks(
    detector: detectors.Detector,
    solver: str,
    states: Sequence[Any],
    origins: Sequence[Sequence[detectors.Origins]],
    split: loading.Split,
    givers: Sequence[int],
) -> Iterator[tuple[assembly.Whole, ...]]:
    """What each look makes of images without the atoms that they gave, image by image.

    Args:
      detector: that embeds and scores.
      solver: whose scores.
      states: of each look.
      origins: of the banks of each look.
      split: the images.
      givers: of each image, its number in the origins, or `BY_BLOCK`.

    Raises:
      DatasetError: if features are not finite.
    """

    def of_one(look: loading.Split, state: Any, own: Sequence[detectors.Origins]):
        wholes = assembly.Assembly(
            look, detector, solver, state,
            alone=len(states) == 1, at_once=BY_BLOCK not in givers,
        )  # fmt: skip
        seen = loading.views(look)
        for i, patches in enumerate(_one_by_one(detector.batches(seen.split))):
            extents = None if seen.extents is None else seen.extents[i : i + 1]
            giver = givers[seen.owners[i]]
            if giver == BY_BLOCK:
                found = _by_block(wholes.score, state, own, patches, extents)
            else:
                others = without(state, own, giver)
                found = jax.device_get(wholes.score(others, patches, extents))
            yield from wholes.add(*found)

    return zip(*map(of_one, loading.looks(split), states, origins), strict=True)


def _by_block(
    score: Callable, state: Any, origins: Sequence[detectors.Origins], patches: Any, extents: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Maps `[1, S, S]` and scores of a square, whose blocks are scored without what they gave.

    A little low: near borders of a block its map is smoothed with what is beyond them.
    """
    grids = [math.isqrt(of_bank.shape[1]) for of_bank in jax.tree.leaves(patches)]
    gave = [
        np.where(origin.images >= 0, blocks.numbers(grid)[origin.cells], NO_IMAGE)
        for origin, grid in zip(origins, grids, strict=True)
    ]
    whole, scores = None, []
    for number in range(blocks.SIDE**2):
        left = [
            bank._replace(weights=jnp.where(own == number, 0, bank.weights))
            for bank, own in zip(banks(state), gave, strict=True)
        ]
        maps, of_block = jax.device_get(score(with_banks(state, left), patches, extents))
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
    """Of chosen training images, of so many in all, what `of_looks` leaves out for each."""
    return list(chosen) if num_images > 1 else [BY_BLOCK] * len(chosen)


def _one_by_one(batches: Iterable[Any]) -> Iterator[Any]:
    for batch in batches:
        for i in range(len(jax.tree.leaves(batch)[0])):
            yield jax.tree.map(lambda x, i=i: x[i : i + 1], batch)


def _note(chosen: Sequence[int], fitted: detectors.Fitted) -> str:
    if any(bool(jnp.any(origin.images < 0)) for origin in fitted.origins):
        return f"null of {len(chosen)} training images, which the atoms are learned from"
    if len(chosen) == 1:
        return "null of the one training image, each of its parts without the atoms that it gave"
    known = len(set(chosen) & set(fitted.calibrated_on))
    also = f"; {known} of them calibrated the streams" if known else ""
    return f"null of {len(chosen)} training images, each without the atoms that it gave{also}"
