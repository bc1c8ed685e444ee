"""Curves of a ranking at a few of its thresholds, small enough to keep and to draw."""

from typing import NamedTuple

import numpy as np

from sgfr_jax import metrics
from sgfr_jax.metrics import Ranking

# Where AUPRO ends, and a curve has its detail.
_DETAIL_FPR = 0.3


class Points(NamedTuple):
    """What is called positive at `P` thresholds, the highest first; every count is exact."""

    thresholds: np.ndarray  # [P] scores; at or above them is positive
    true_positives: np.ndarray  # [P]
    false_positives: np.ndarray  # [P]
    region_recall: np.ndarray  # [P] the mean share found of a region; PRO
    # The same of what is above each threshold, without what lies at it: from there the curves run
    # straight to the point.
    true_positives_above: np.ndarray
    false_positives_above: np.ndarray
    region_recall_above: np.ndarray
    num_positives: int
    num_negatives: int
    best: int  # which of them has the best F1 of all thresholds


def thin(items: Ranking, regions: Ranking | None = None, *, num: int = 200) -> Points:
    """The points of a ranking that a drawing of its ROC, PR and PRO curves needs.

    They are evenly spaced along recall, region recall and false positive rate together, so that no
    curve has a long straight piece that it should not have; the best F1 is among them.

    Args:
      items: with at least one negative, every positive counting alike.
      regions: of the same items, every region counting alike; by default the same.
      num: how many points, at most one more.

    Raises:
      ValueError: if there are no negatives.
    """
    if not items.num_negatives:
        raise ValueError("there are no negatives: the false positive rate is undefined")
    regions = items if regions is None else regions
    rate = items.false_positives / items.num_negatives
    # All of these grow, so their sum is a distance travelled.
    way = items.recall + regions.recall + rate + np.minimum(rate / _DETAIL_FPR, 1)
    even = np.searchsorted(way, np.linspace(way[0], way[-1], num)).clip(max=len(way) - 1)
    _, threshold = metrics.f1_max(items)
    best = np.flatnonzero(items.thresholds == threshold)
    kept = np.union1d(even, best)

    def above(values: np.ndarray) -> np.ndarray:
        return np.append(0, values[:-1])[kept]

    return Points(
        thresholds=items.thresholds[kept],
        true_positives=items.true_positives[kept],
        false_positives=items.false_positives[kept],
        region_recall=regions.recall[kept],
        true_positives_above=above(items.true_positives),
        false_positives_above=items.false_positives_above[kept],
        region_recall_above=above(regions.recall),
        num_positives=int(items.true_positives[-1]),
        num_negatives=items.num_negatives,
        best=int(np.searchsorted(kept, best[0])),
    )
