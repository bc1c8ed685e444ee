"""Scores of nominal images that a fitted detector has not learned from: its null distribution.

No image is spared in fitting: a training image is scored without the atoms that it gave, by the
detector's own scorer. That is nearly what a new image would score, with three differences.

- A bank sampled without the image would have kept other patches in the place of its own, so its
  score is a little too high.
- With `--layers=auto`, calibration and weights of the streams come from up to a hundred of the
  images, which makes their scores a little too low. The others are taken first.
- The null is of images as like the training images as these are to each other. Where several
  photographs of each part are in the training set, those of a new part score higher.

The first errs on the safe side; the last does not. On MTD, at a wanted 5%, of the nominal test
images 2.1% (`fast`) and 2.6% (`auto`) were called anomalous where tiles are on both sides of the
split, but 18.7% (`fast`) and 11.9% (`auto`) where they are not (`--split=grouped`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import detectors, loading, progress
from sgfr_jax import thresholds, types

# Enough for a false-alarm rate of one in three hundred.
NULL_IMAGES = 300


class Nulls(NamedTuple):
    """What nominal images score."""

    images: thresholds.Tally
    pixels: thresholds.Tally


def banks(state: Any) -> tuple[types.Bank, ...]:
    """The banks of a detector's state, of one bank or of several."""
    return (state,) if isinstance(state, types.Bank) else state.banks


def with_banks(state: Any, new: Sequence[types.Bank]) -> Any:
    """The state with other banks in their places."""
    return new[0] if isinstance(state, types.Bank) else state._replace(banks=tuple(new))


def without(state: Any, origins: Sequence[detectors.Origins], image: int) -> Any:
    """The state without the atoms that a training image gave."""
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
    chosen = _choose(len(category.train.examples), fitted.calibrated_on, seed)
    state, scorer = fitted.states[solver], detector.scorers[solver]
    alone = len(chosen) == 1  # without its atoms there would be none
    scores, pixels = [], thresholds.no_pixels()
    with progress.bar(f"{category.name}: held-out scores", len(chosen), "images") as report:
        for batch in detector.batches(loading.subset(category.train, chosen)):
            for patches in _one_by_one(batch):
                others = state if alone else without(state, fitted.origins, chosen[len(scores)])
                maps, score = jax.device_get(scorer(others, patches))
                scores.append(float(score[0]))
                thresholds.add_pixels(pixels, maps)
                report(1)
    nulls = Nulls(thresholds.tally(np.array(scores)), thresholds.tally_pixels(pixels))
    return nulls, _note(chosen, fitted)


def _choose(num_images: int, calibrated_on: Sequence[int], seed: int) -> list[int]:
    """Which training images, in order: first those that calibrated nothing."""
    order = np.random.default_rng(seed).permutation(num_images)
    order = order[np.argsort(np.isin(order, calibrated_on), kind="stable")]
    return sorted(int(i) for i in order[:NULL_IMAGES])


def _one_by_one(batch: Any):
    for i in range(len(jax.tree.leaves(batch)[0])):
        yield jax.tree.map(lambda x, i=i: x[i : i + 1], batch)


def _note(chosen: Sequence[int], fitted: detectors.Fitted) -> str:
    if any(bool(jnp.any(origin.images < 0)) for origin in fitted.origins):
        return f"null of {len(chosen)} training images, which the atoms are learned from"
    if len(chosen) == 1:
        return "null of the one training image, which the detector has seen"
    known = len(set(chosen) & set(fitted.calibrated_on))
    also = f"; {known} of them calibrated the streams" if known else ""
    return f"null of {len(chosen)} training images, each without the atoms that it gave{also}"
