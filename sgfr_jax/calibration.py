"""Residuals read against what is nominal: around each atom, and at each distance from the border.

A bank describes some kinds of nominal patches closely and others, the rare and the rough, only
coarsely; and features near the border of an image, where convolutions meet padding, vary more than
those inside. The residuals of nominal patches that the bank has not seen (`score_held_out`) tell
both. A calibrated score is a number of nominal standard deviations, which makes banks of different
levels and scales comparable, so that their maps can be averaged.

It is this project's own, not the paper's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sgfr_jax import checks, linalg, types
from sgfr_jax import extents as of_squares

# A share of the mean, or of the common scale, below which a spread is taken for rounding.
_LEAST_SPREAD = 1e-3


@types.exportable
class Calibration(NamedTuple):
    """What is nominal for one bank."""

    scales: jax.Array  # [M]: the residual of nominal patches around each atom
    # By distance from the border: `R` cells at 0, 1, ... cells from it, then all those inside.
    mean: jax.Array  # [R + 1]: of nominal scores over their atom's scale
    spread: jax.Array  # [R + 1]: their standard deviation


def calibrate(
    scores: jax.Array,
    owners: jax.Array,
    num_atoms: int,
    *,
    prior: float | jax.Array = 10.0,
    rings: int = 2,
    extents: jax.Array | None = None,
) -> Calibration:
    """The calibration of a bank, from nominal patches that it has not seen.

    The scale of atom `m` is `(sum of its patches' scores + prior s) / (its patches + prior)` with
    `s` the mean score, so that an atom that few patches belong to is given the common one. The
    nominal patches themselves are read against the scale that the others leave their atom.

    Args:
      scores: `[B, h, w]` residual norms of nominal images, as from `pipeline.score_held_out`.
      owners: `[B, h, w]` int32: the atom that each patch belongs to.
      num_atoms: `M`.
      prior: how many patches the common scale weighs; positive.
      rings: `R`: cells within this distance of the border have a mean and a spread for each
        distance; those farther in share one.
      extents: `[B, 2]`: the shares of height and width that images fill, from the top left; what is
        padded does not count, and the border is the image's. None: all.

    Returns:
      A `Calibration` in the precision of the scores, float32 at least; finite even where all scores
      are zero; all NaN if a score that counts is, since the common scale takes part in every other.

    Raises:
      ValueError: if shapes do not fit, `prior` is not positive or `rings` is negative.
    """
    if scores.ndim != 3 or scores.shape != owners.shape or not scores.size:
        raise ValueError(
            f"scores and owners must be [B, h, w] of one shape, got {scores.shape} and"
            f" {owners.shape}"
        )
    checks.positive("such as 10", prior=prior)
    checks.not_negative("such as 2", rings=rings)
    scores = linalg.at_least_float32(scores)
    ring, shown = _rings(scores, rings, extents)
    scores = jnp.where(shown > 0, scores, 0)
    common = jnp.sum(scores) / jnp.sum(shown)
    common = jnp.where(common == 0, 1, common)
    counts = jnp.zeros(num_atoms, scores.dtype).at[owners].add(shown)
    sums = jnp.zeros(num_atoms, scores.dtype).at[owners].add(scores)
    # A patch that alone made its atom's scale would always look ordinary.
    others = (sums[owners] - scores + prior * common) / (counts[owners] - 1 + prior)
    relative = scores / others

    def by_ring(values: jax.Array) -> jax.Array:
        """Means over the cells of each ring; over all where a small grid has none that far in."""
        nothing = jnp.zeros(rings + 1, values.dtype)
        members = nothing.at[ring].add(shown)
        sums = nothing.at[ring].add(values * shown)
        everywhere = jnp.sum(sums) / jnp.sum(members)
        return jnp.where(members > 0, sums / jnp.maximum(members, 1), everywhere)

    means = by_ring(relative)
    spreads = jnp.sqrt(by_ring((relative - means[ring]) ** 2))
    spreads = jnp.maximum(spreads, _LEAST_SPREAD * jnp.maximum(means, 1))
    return Calibration((sums + prior * common) / (counts + prior), means, spreads)


def extend(
    calibration: Calibration,
    fresh: jax.Array,
    scores: jax.Array,
    owners: jax.Array,
    *,
    prior: float | jax.Array = 10.0,
    extents: jax.Array | None = None,
) -> Calibration:
    """The calibration of a bank that has grown, where the images that made it are gone.

    What is known stays: the scales of old atoms, and the mean and spread of the cells. An atom that
    has come gets the scale of the nominal patches that belong to it, drawn to the mean scale of the
    old ones as in `calibrate`.

    Args:
      calibration: of the bank of `M` atoms as it was.
      fresh: `[M']` bool, which atoms have come; `M' >= M`, the others in their old places.
      scores: `[B, h, w]` residual norms of new nominal images, without the atoms that they gave.
      owners: `[B, h, w]` int32, of the bank as it is.
      prior: how many patches the mean scale weighs; positive.
      extents: as of `calibrate`; what is padded does not count.

    Returns:
      A `Calibration` of `M'` scales.

    Raises:
      ValueError: if shapes do not fit or `prior` is not positive.
    """
    missing = len(fresh) - len(calibration.scales)
    if missing < 0 or scores.ndim != 3 or scores.shape != owners.shape:
        raise ValueError(
            f"fresh must be [M'] with M' >= M, and scores and owners [B, h, w] of one shape, got"
            f" {fresh.shape} for {calibration.scales.shape}, {scores.shape} and {owners.shape}"
        )
    checks.positive("such as 10", prior=prior)
    common = jnp.mean(calibration.scales)
    scores = linalg.at_least_float32(scores)
    _, shown = _rings(scores, 0, extents)
    nothing = jnp.zeros(len(fresh), scores.dtype)
    counts = nothing.at[owners].add(shown)
    sums = nothing.at[owners].add(jnp.where(shown > 0, scores, 0))
    old = jnp.concatenate([calibration.scales, jnp.full(missing, common)])
    return calibration._replace(
        scales=jnp.where(fresh, (sums + prior * common) / (counts + prior), old)
    )


def standardize(
    calibration: Calibration,
    scores: jax.Array,
    owners: jax.Array,
    extents: jax.Array | None = None,
) -> jax.Array:
    """Scores in nominal standard deviations above the nominal mean.

    Args:
      calibration: of the bank.
      scores: `[B, h, w]` residual norms.
      owners: `[B, h, w]` int32.
      extents: as of `calibrate`.

    Returns:
      `[B, h, w]`, not clamped.
    """
    ring, _ = _rings(scores, len(calibration.mean) - 1, extents)
    scores = linalg.at_least_float32(scores)
    relative = scores / calibration.scales[owners]
    return (relative - calibration.mean[ring]) / calibration.spread[ring]


def rescale(calibration: Calibration, mean: jax.Array, spread: jax.Array) -> Calibration:
    """The calibration after which standardized scores have `mean` less, and then `spread` less.

    Maps are smoother than scores: `mean` and `spread` are those of the nominal maps that
    standardized scores give.

    Args:
      calibration: to go on from.
      mean: `[]`.
      spread: `[]`; positive.
    """
    return calibration._replace(
        mean=calibration.mean + mean * calibration.spread, spread=calibration.spread * spread
    )


def _rings(scores: jax.Array, rings: int, extents: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Each cell's distance from the border, `rings` for all farther in, and 1.0, or 0.0 in padding.

    Both are `[B, h, w]`, as the scores are, and the second is of their type.
    """
    shape = scores.shape
    if extents is None:
        extents = jnp.ones((1, 2))
    distance = of_squares.border_distance(extents, shape[1:])
    ring = jnp.broadcast_to(jnp.clip(distance, 0, rings), shape)
    return ring, jnp.broadcast_to(distance >= 0, shape).astype(scores.dtype)
