"""Detection and localization metrics, exact, on the host.

Every metric is read off one `Ranking`: the positives sorted, and for each of their distinct scores
the number of negatives above it. Only the scores of positives can change recall, so nothing is
lost by leaving the negatives' own thresholds out, and the expensive part is one plain sort of the
negatives. AUPRO is the area under an ROC curve in which a defect pixel weighs
`1 / (regions x pixels of its region)`.

NumPy rather than JAX: its float32 sort is several times faster on a CPU, and counts beyond 2^24
need more than float32.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage


class Ranking(NamedTuple):
    """How positives and negatives interleave at the `T` distinct scores of the positives."""

    thresholds: np.ndarray  # [T] distinct scores of positives, descending
    true_positives: np.ndarray  # [T] positives at or above the threshold
    recall: np.ndarray  # [T] their share, in the given weights; ends at 1
    false_positives_above: np.ndarray  # [T] negatives above the threshold
    false_positives: np.ndarray  # [T] negatives at or above the threshold
    num_negatives: int


class Rankings(NamedTuple):
    """What the metrics of one category are read off; None where its test set defines none."""

    images: Ranking | None  # of image scores
    pixels: Ranking | None  # of anomaly maps, every defect pixel counting alike
    regions: Ranking | None  # of anomaly maps, every region counting alike


class Metrics(NamedTuple):
    """What `evaluate` measures; None where the test set cannot define it."""

    image_auroc: float | None
    image_ap: float | None
    image_f1_max: float | None
    pixel_auroc: float | None
    pixel_ap: float | None
    pixel_f1_max: float | None
    aupro: float | None  # up to a false positive rate of 0.3
    aupro_05: float | None  # up to 0.05


def rank(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> Ranking:
    """Sorts once what all metrics need.

    Args:
      scores: any shape, finite.
      labels: same shape, bool; True is positive (defective).
      weights: how much each positive counts in the recall, in the order of `scores[labels]`;
        equal by default.

    Returns:
      A `Ranking`.

    Raises:
      ValueError: on shapes that do not fit, scores that are not finite, or no positives.
    """
    # JAX's arrays do not sort in place, and maps are JAX's.
    scores, labels = np.asarray(scores), np.asarray(labels)
    weights = None if weights is None else np.asarray(weights)
    if scores.shape != labels.shape:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} must have one shape")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite; there are NaN or infinite ones")
    labels = labels.astype(bool)
    positives = scores[labels]
    if not positives.size:
        raise ValueError("there are no positives to rank")
    if weights is not None and weights.shape != positives.shape:
        raise ValueError(f"weights {weights.shape} must be one for each of {positives.shape}")
    negatives = scores[~labels]
    negatives.sort()

    order = np.argsort(positives)[::-1]
    positives = positives[order]
    # A threshold takes all positives of one score or none: keep the last of each tie.
    last = np.append(positives[1:] != positives[:-1], True)
    thresholds = positives[last]
    if weights is None:
        recall = (np.flatnonzero(last) + 1) / positives.size
    else:
        cumulative = np.cumsum(weights[order], dtype=np.float64)
        recall = cumulative[last] / cumulative[-1]
    return Ranking(
        thresholds=thresholds,
        true_positives=np.flatnonzero(last) + 1,
        recall=recall,
        false_positives_above=negatives.size - np.searchsorted(negatives, thresholds, "right"),
        false_positives=negatives.size - np.searchsorted(negatives, thresholds, "left"),
        num_negatives=negatives.size,
    )


def roc_area(ranking: Ranking, *, max_fpr: float = 1.0) -> float:
    """The area under the ROC curve up to `max_fpr`, divided by `max_fpr`.

    Between thresholds the curve is linear, so ties count half; it is interpolated at the limit.
    With region weights this is AUPRO (Bergmann et al. 2020).

    Args:
      ranking: with at least one negative.
      max_fpr: the limit of integration, in (0, 1].

    Returns:
      The normalised area, 0 to 1.

    Raises:
      ValueError: if there are no negatives, or the limit is not in (0, 1].
    """
    if not 0 < max_fpr <= 1:
        raise ValueError(f"max_fpr={max_fpr}; it must be above 0 and at most 1")
    if not ranking.num_negatives:
        raise ValueError("there are no negatives: the false positive rate is undefined")
    # From one threshold to the next the curve runs level past the negatives in between, then
    # straight through those that share the threshold.
    before = np.append(0.0, ranking.recall[:-1])
    rates = np.stack([ranking.false_positives_above, ranking.false_positives], axis=1)
    x = np.concatenate([[0.0], rates.ravel() / ranking.num_negatives, [1.0]])
    y = np.concatenate([[0.0], np.stack([before, ranking.recall], axis=1).ravel(), [1.0]])

    end = int(np.searchsorted(x, max_fpr))  # the first vertex at or beyond the limit; >= 1
    share = (max_fpr - x[end - 1]) / (x[end] - x[end - 1])
    x = np.append(x[:end], max_fpr)
    y = np.append(y[:end], y[end - 1] + share * (y[end] - y[end - 1]))
    return float(np.trapezoid(y, x) / max_fpr)


def average_precision(ranking: Ranking) -> float:
    """The mean over positives of the precision at their score: `sum (R_t - R_{t-1}) P_t`.

    Args:
      ranking: without weights.

    Returns:
      0 to 1, not interpolated (scikit-learn's definition).
    """
    precision = ranking.true_positives / (ranking.true_positives + ranking.false_positives)
    return float(np.sum(np.diff(ranking.recall, prepend=0.0) * precision))


def f1_max(ranking: Ranking) -> tuple[float, float]:
    """The best F1 of all thresholds, and the threshold that reaches it.

    Args:
      ranking: without weights.

    Returns:
      F1, and the score at or above which an item is called positive.
    """
    num_positives = ranking.true_positives[-1]
    predicted = ranking.true_positives + ranking.false_positives
    f1 = 2 * ranking.true_positives / (predicted + num_positives)
    best = int(np.argmax(f1))
    return float(f1[best]), float(ranking.thresholds[best])


def region_weights(masks: np.ndarray) -> np.ndarray:
    """What each defect pixel weighs when all regions weigh the same.

    Regions are connected through edges and corners, in one image, as in MVTec AD's evaluation.

    Args:
      masks: `[B, H, W]` bool.

    Returns:
      `[P]` float64, for the pixels `masks[masks]` in that order: one over the pixels of its region.
    """
    weights = []
    for mask in masks:
        regions, num_regions = ndimage.label(mask, structure=np.ones((3, 3)))
        if num_regions:
            sizes = np.bincount(regions.ravel())
            weights.append(1.0 / sizes[regions[mask]])
    return np.concatenate(weights) if weights else np.zeros(0)


def evaluate(
    image_scores: np.ndarray,
    image_labels: np.ndarray,
    maps: np.ndarray | None = None,
    masks: np.ndarray | None = None,
) -> Metrics:
    """All metrics of one category; those that its test set cannot define are None.

    Image metrics need nominal and defective images, pixel metrics defective pixels and others.

    Args:
      image_scores: `[B]`.
      image_labels: `[B]` bool; True is defective.
      maps: `[P, H, W]` anomaly maps of the images whose masks are known.
      masks: `[P, H, W]`; what is not zero is defect.

    Returns:
      `Metrics`.

    Raises:
      ValueError: on shapes that differ, scores that are not finite, or maps without masks.
    """
    return measure(*rankings(image_scores, image_labels, maps, masks))


def rankings(
    image_scores: np.ndarray,
    image_labels: np.ndarray,
    maps: np.ndarray | None = None,
    masks: np.ndarray | None = None,
) -> Rankings:
    """The rankings of one category, for `measure`; arguments and errors are those of `evaluate`."""
    image_labels = np.asarray(image_labels, bool)
    if (maps is None) != (masks is None):
        raise ValueError("maps and masks must be given together")
    if masks is not None:
        masks = np.asarray(masks, bool)
    images = pixels = regions = None
    if image_labels.any() and not image_labels.all():
        images = rank(image_scores, image_labels)
    if masks is not None and masks.any() and not masks.all():
        # Ranked once by region; recall over pixels follows from the same sort.
        regions = rank(maps, masks, region_weights(masks))
        pixels = regions._replace(recall=regions.true_positives / regions.true_positives[-1])
    return Rankings(images, pixels, regions)


def measure(images: Ranking | None, pixels: Ranking | None, regions: Ranking | None) -> Metrics:
    """All metrics, from the rankings that they are read off.

    Args:
      images: of image scores.
      pixels: of anomaly maps, every defect pixel counting alike.
      regions: of anomaly maps, every region counting alike.

    Returns:
      `Metrics`; those of an absent ranking are None.
    """
    return Metrics(
        image_auroc=None if images is None else roc_area(images),
        image_ap=None if images is None else average_precision(images),
        image_f1_max=None if images is None else f1_max(images)[0],
        pixel_auroc=None if pixels is None else roc_area(pixels),
        pixel_ap=None if pixels is None else average_precision(pixels),
        pixel_f1_max=None if pixels is None else f1_max(pixels)[0],
        aupro=None if regions is None else roc_area(regions, max_fpr=0.3),
        aupro_05=None if regions is None else roc_area(regions, max_fpr=0.05),
    )
