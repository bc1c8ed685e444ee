"""Pixel metrics in bounded memory: scores are counted in bins as they come.

Scores in one bin count as tied, so the metrics are exact for scores rounded to the bin width:
`2^20` bins over the range of the scores. A score beyond the range doubles it, by merging bins in
pairs, so the range need not be known and never more than halves the resolution in use.
"""

from typing import NamedTuple

import numpy as np

from sgfr_jax import metrics
from sgfr_jax.metrics import Ranking

NUM_BINS = 1 << 20


class Histogram(NamedTuple):
    """Counts of pixels by score; bin `t` holds scores in `[t, t + 1) * width`."""

    negatives: np.ndarray  # [T] int64: normal pixels
    positives: np.ndarray  # [T] int64: defect pixels
    regions: np.ndarray  # [T] float64: defect pixels, each one over the pixels of its region
    width: float  # 0: nothing has been counted


def empty(num_bins: int = NUM_BINS) -> Histogram:
    """A histogram of nothing.

    Args:
      num_bins: `T`, even.
    """
    return Histogram(
        np.zeros(num_bins, np.int64), np.zeros(num_bins, np.int64), np.zeros(num_bins), 0.0
    )


def add(histogram: Histogram, maps: np.ndarray, masks: np.ndarray) -> Histogram:
    """The histogram with the pixels of some images added; its arrays are used up.

    Args:
      histogram: from `empty` or `add`; must not be used again, as its arrays are added to.
      maps: `[B, H, W]` anomaly maps, finite and not negative.
      masks: `[B, H, W]` bool; True is defect.

    Raises:
      ValueError: on shapes that differ, or scores that are negative or not finite.
    """
    if maps.shape != masks.shape:
        raise ValueError(f"maps {maps.shape} and masks {masks.shape} must have one shape")
    highest = maps.max(initial=0.0)
    if not (np.isfinite(highest) and maps.min(initial=0.0) >= 0):
        raise ValueError("scores must be finite and not negative")
    num_bins = len(histogram.negatives)
    histogram = _widen(histogram, float(highest))
    # The largest float32 below the range can round up to its end.
    bins = (maps * (1.0 / histogram.width)).astype(np.int32)
    np.minimum(bins, num_bins - 1, out=bins)
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
        thresholds=bins * histogram.width,
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


def _widen(histogram: Histogram, highest: float) -> Histogram:
    """Doubles the range until it holds `highest`; the first range is twice the first highest."""
    num_bins = len(histogram.negatives)
    if not histogram.width:
        first = 2.0 * highest if highest > 0 else 1.0
        return histogram._replace(width=first / num_bins)
    while highest >= histogram.width * num_bins:
        for counts in histogram[:3]:
            counts[: num_bins // 2] = counts[0::2] + counts[1::2]
            counts[num_bins // 2 :] = 0
        histogram = histogram._replace(width=2 * histogram.width)
    return histogram
