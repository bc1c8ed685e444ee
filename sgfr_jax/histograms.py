"""Pixel metrics in bounded memory: scores are counted in bins as they come.

Scores in one bin count as tied, so the metrics are exact for scores rounded to the bin width:
`2^20` bins over the range of the scores, from zero unless there are negative ones. A score beyond
either end doubles the range, by merging bins in pairs, so the range need not be known and never
more than halves the resolution in use.
"""

from typing import NamedTuple

import numpy as np

from sgfr_jax import metrics
from sgfr_jax.metrics import Ranking

NUM_BINS = 1 << 20


class Histogram(NamedTuple):
    """Counts of pixels by score; bin `t` holds those in `low + [t, t + 1) * width`."""

    negatives: np.ndarray  # [T] int64: normal pixels
    positives: np.ndarray  # [T] int64: defect pixels
    regions: np.ndarray  # [T] float64: defect pixels, each one over the pixels of its region
    low: float
    width: float  # 0: nothing has been counted


def empty(num_bins: int = NUM_BINS) -> Histogram:
    """A histogram of nothing.

    Args:
      num_bins: `T`, even.
    """
    return Histogram(
        np.zeros(num_bins, np.int64), np.zeros(num_bins, np.int64), np.zeros(num_bins), 0.0, 0.0
    )


def add(histogram: Histogram, maps: np.ndarray, masks: np.ndarray) -> Histogram:
    """The histogram with the pixels of some images added; its arrays are used up.

    Args:
      histogram: from `empty` or `add`; must not be used again, as its arrays are added to.
      maps: `[B, H, W]` anomaly maps, finite.
      masks: `[B, H, W]` bool; True is defect.

    Raises:
      ValueError: on shapes that differ, or scores that are not finite.
    """
    maps, masks = np.asarray(maps), np.asarray(masks, bool)
    if maps.dtype.itemsize < 4:  # whose quotients would overflow
        maps = maps.astype(np.float32)
    if maps.shape != masks.shape:
        raise ValueError(f"maps {maps.shape} and masks {masks.shape} must have one shape")
    lowest, highest = float(maps.min(initial=0.0)), float(maps.max(initial=0.0))
    if not np.isfinite([lowest, highest]).all():
        raise ValueError("scores must be finite")
    num_bins = len(histogram.negatives)
    histogram = _widen(histogram, lowest, highest)
    # What lies within rounding of either end belongs to its bin.
    bins = in_widths(histogram, maps).astype(np.int32)
    np.clip(bins, 0, num_bins - 1, out=bins)
    # All at first: picking out the many normal pixels would cost more than counting them. Counts
    # end at the highest bin, as most scores of most images are low.
    _add(histogram.negatives, np.bincount(bins.ravel()))
    if masks.any():
        defective, weights = bins[masks], metrics.region_weights(masks)
        positives = np.bincount(defective)
        _add(histogram.negatives, -positives)
        _add(histogram.positives, positives)
        _add(histogram.regions, np.bincount(defective, weights))
    return histogram


def in_widths(histogram: Histogram, scores: np.ndarray) -> np.ndarray:
    """How many widths of a bin scores lie above the lowest; whole numbers are borders of bins.

    A score that lies on a border does so in every range that the histogram is widened to: the
    quotient is exact, which a product with the inverse is not. Above another low end than 0, which
    moves, that takes double precision.
    """
    above = scores - np.float64(histogram.low) if histogram.low else scores
    return above / histogram.width


def rankings(histogram: Histogram) -> tuple[Ranking, Ranking]:
    """What `metrics.rank` would give: by pixels, and by regions.

    Raises:
      ValueError: if there are no positives.
    """
    if not histogram.positives.any():
        raise ValueError("there are no positives to rank")
    bins = np.flatnonzero(histogram.positives)[::-1]
    at_or_above = np.cumsum(histogram.negatives[::-1])[::-1]
    true_positives = np.cumsum(histogram.positives[bins])
    regions = np.cumsum(histogram.regions[bins])
    pixels = Ranking(
        thresholds=histogram.low + bins * histogram.width,
        true_positives=true_positives,
        recall=true_positives / true_positives[-1],
        false_positives_above=at_or_above[bins] - histogram.negatives[bins],
        false_positives=at_or_above[bins],
        num_negatives=int(at_or_above[0]),
    )
    return pixels, pixels._replace(recall=regions / regions[-1])


def _add(totals: np.ndarray, counts: np.ndarray) -> None:
    """Adds the counts of the lowest bins, in place."""
    totals[: len(counts)] += counts


def _widen(histogram: Histogram, lowest: float, highest: float) -> Histogram:
    """Doubles the range until it holds the scores; the first is twice as wide as the first ones."""
    num_bins = len(histogram.negatives)
    half = num_bins // 2
    if not histogram.width:
        low = min(0.0, 2.0 * lowest)
        first = max(2.0 * highest, 0.0) - low
        return histogram._replace(low=low, width=(first or 1.0) / num_bins)
    low, width = histogram.low, histogram.width
    while lowest < low or highest >= low + width * num_bins:
        downwards = lowest < low
        for counts in histogram[:3]:
            merged = counts[0::2] + counts[1::2]
            counts[:half], counts[half:] = (0, merged) if downwards else (merged, 0)
        if downwards:
            low -= width * num_bins
        width *= 2
    return histogram._replace(low=low, width=width)
