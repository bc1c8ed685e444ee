"""Decisions from scores: p-values and thresholds, told from nominal images alone (NumPy; host).

A detector's scores have no scale of their own. Those of nominal images that it has not seen, the
null, give them one. With `n` null scores and a new nominal image exchangeable with them,
`(1 + #{null >= s}) / (n + 1)` is a p-value whatever the scores' distribution (conformal p-values:
Vovk, Gammerman & Shafer 2005; for outliers Bates et al., Annals of Statistics 51, 2023), and the
false-alarm rate of "above the k-th largest null score" has a known distribution. Scores are never
clamped or rescaled, which would tie some of them and change AUROC.

A null is a `Tally`: exact for images, and for the pixels of any number of maps rounded up to bins
of equal relative width, so that its size is bounded.

A score in float32 and the same one in float64 tie only after rounding: float32(0.7) is less than
0.7. Scores of two precisions are therefore compared in the coarser one. Rounding both sides alike
leaves a new nominal score exchangeable with the null, so that the p-values stay valid.
"""

import math
from typing import NamedTuple

import numpy as np

from sgfr_jax import metrics, types

# Bits of a float32 that a bin leaves out: bins are a 1024th of their scores wide.
_SHIFT = 13
_BINS = 1 << (32 - _SHIFT)


@types.exportable
class Tally(NamedTuple):
    """How often each score occurred."""

    scores: np.ndarray  # [T] floating, ascending, distinct
    counts: np.ndarray  # [T] int64, positive


class Threshold(NamedTuple):
    """Scores above `score` are called anomalous."""

    score: float
    wanted: float  # the false-alarm rate that was asked for
    expected: float  # the one that the threshold has on average over nulls
    upper: float  # which the true one exceeds with probability `1 - confidence`, at most
    confidence: float
    num_null: int
    enough: bool  # whether so many null scores can promise the wanted rate


def tally(scores: np.ndarray) -> Tally:
    """The tally of some scores, exact and in their own precision.

    Args:
      scores: any shape; integers are counted in float64.

    Raises:
      ValueError: if there are none, or some are not finite.
    """
    found, counts = np.unique(_checked(scores), return_counts=True)
    return Tally(found, counts.astype(np.int64))


def together(one: Tally, other: Tally) -> Tally:
    """The tally of the scores of two, in the coarser precision of both."""
    both = np.concatenate(_in_one_precision(one.scores, other.scores))
    scores, where = np.unique(both, return_inverse=True)
    counts = np.zeros(len(scores), np.int64)
    np.add.at(counts, where, np.concatenate([one.counts, other.counts]))
    return Tally(scores, counts)


def no_pixels() -> np.ndarray:
    """`[T]` int64, for `add_pixels` to begin with: nothing counted."""
    return np.zeros(_BINS, np.int64)


def add_pixels(counted: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """The counts with the pixels of some maps added, in the same 4 megabytes.

    Args:
      counted: from `no_pixels` or `add_pixels`; it is added to in place.
      maps: any shape; any sign.

    Raises:
      ValueError: if a pixel is not finite.
    """
    maps = _checked(maps)
    rounded = maps.astype(np.float32)
    # Up, as bins do: nearest would put some scores of higher precision below themselves.
    rounded = np.where(rounded < maps, np.nextafter(rounded, np.float32(np.inf)), rounded)
    counted += np.bincount(_bin(_checked(rounded)), minlength=_BINS)
    return counted


def tally_pixels(counted: np.ndarray) -> Tally:
    """The tally of counted pixels, each rounded up by less than a 1024th of itself.

    Rounding a null up makes p-values larger and thresholds higher, never the other way.

    Args:
      counted: from `add_pixels`.

    Raises:
      ValueError: if nothing was counted.
    """
    bins = np.flatnonzero(counted)
    if not bins.size:
        raise ValueError("there are no null scores: nothing was counted")
    return Tally(_highest(bins), counted[bins])


def p_values(null: Tally, scores: np.ndarray) -> np.ndarray:
    """How probable a nominal score at least as large is: `(1 + #{null >= s}) / (n + 1)`.

    For a nominal image exchangeable with the null, `P(p <= a) <= a` for every `a`.

    Args:
      null: of `n` scores.
      scores: any shape.

    Returns:
      The same shape, float64 in `[1 / (n + 1), 1]`; NaN for NaN.
    """
    of_null, scores = _in_one_precision(null.scores, np.asarray(scores))
    at_least = np.append(np.cumsum(null.counts[::-1])[::-1], 0)
    above = at_least[np.searchsorted(of_null, scores, "left")]
    return np.where(np.isnan(scores), np.nan, (1 + above) / (1 + at_least[0]))


def at_false_alarm_rate(null: Tally, rate: float, *, confidence: float = 0.95) -> Threshold:
    """The threshold that calls a nominal image anomalous with probability `rate` at most.

    It is the `k`-th largest null score with `k = floor(rate (n + 1))`, the rule `p <= rate` of
    `p_values`. Given the null, the false-alarm rate of scores without ties is Beta(k, n - k + 1)
    distributed (order statistics of uniforms; ties make it smaller): its mean is `k / (n + 1)`, its
    quantile the upper bound. Where `n < 1 / rate - 1`, no threshold between null scores keeps the
    promise: the largest is returned, with the rate that it does have.

    Args:
      null: of `n` scores of different images. Pixels of one image are not independent, so that
        the bound would be wrong for them; they have `pixel_threshold`.
      rate: in (0, 1).
      confidence: in (0, 1).

    Raises:
      ValueError: if `rate` or `confidence` is out of range.
    """
    if not 0 < rate < 1 or not 0 < confidence < 1:
        raise ValueError(f"rate={rate} and confidence={confidence} must lie between 0 and 1")
    from scipy import special  # a third of a second

    num = int(null.counts.sum())
    allowed = math.floor(rate * (num + 1) + 1e-9)  # 0.29 * 100 is a little less than 29
    rank = max(1, allowed)
    return Threshold(
        score=_largest(null, rank),
        wanted=rate,
        expected=rank / (num + 1),
        upper=float(special.betaincinv(rank, num - rank + 1, confidence)),
        confidence=confidence,
        num_null=num,
        enough=allowed > 0,
    )


def images_needed(rate: float) -> int:
    """The fewest null scores with which `at_false_alarm_rate` can promise a rate."""
    return math.ceil(1 / rate - 1e-9) - 1


def pixel_threshold(null: Tally, rate: float) -> float:
    """The lowest null score above which lies at most a share `rate` of the nominal pixels.

    Args:
      null: of the pixels of many maps.
      rate: in [0, 1).

    Raises:
      ValueError: if `rate` is out of range.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate={rate} must lie between 0 and 1")
    return _largest(null, math.floor(rate * int(null.counts.sum()) + 1e-9) + 1)


def f1_threshold(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The threshold of the best F1 on labelled scores, and that F1.

    The middle between the lowest score that must be above and the highest that must not, as a
    number of the scores' own precision: NumPy compares float32 scores with a Python number in
    float32, where one between two neighbours would be rounded to either.

    Args:
      scores: `[B]`; integers are taken for float64.
      labels: `[B]` bool; True is defective.

    Raises:
      ValueError: as of `metrics.rank`, such as where no label is True.
    """
    scores = _floating(scores)
    best, lowest = metrics.f1_max(metrics.rank(scores, np.asarray(labels, bool)))
    lowest = scores.dtype.type(lowest)
    below = scores[scores < lowest]
    under = below.max() if below.size else np.nextafter(lowest, scores.dtype.type(-np.inf))
    middle = under / 2 + lowest / 2  # their difference could overflow
    return float(middle if under < middle < lowest else under), best


def _largest(null: Tally, rank: int) -> float:
    """The `rank`-th largest score, counting each as often as it occurred."""
    at_least = np.cumsum(null.counts[::-1])
    return float(null.scores[::-1][np.searchsorted(at_least, rank, "left")])


def _checked(scores: np.ndarray) -> np.ndarray:
    scores = _floating(scores).reshape(-1)
    if not scores.size or not np.isfinite(scores).all():
        raise ValueError("null scores must be finite, and there must be some")
    return scores


def _floating(scores: np.ndarray) -> np.ndarray:
    """The scores in their own precision if that is one of NumPy's, else in float64."""
    scores = np.asarray(scores)
    return scores if np.issubdtype(scores.dtype, np.floating) else scores.astype(np.float64)


def _in_one_precision(*arrays: np.ndarray) -> list[np.ndarray]:
    """The arrays in the coarsest of their precisions; what is too large for it is infinite."""
    arrays = [_floating(array) for array in arrays]
    coarsest = min((array.dtype for array in arrays), key=lambda dtype: np.finfo(dtype).nmant)
    with np.errstate(over="ignore"):
        return [array.astype(coarsest) for array in arrays]


def _bin(scores: np.ndarray) -> np.ndarray:
    """The bin of each float32 score, in their order: its bits rounded up, shifted to start at 0."""
    bits = scores.view(np.int32).astype(np.int64)
    # Of two negative floats the one with the larger magnitude bits is the smaller.
    ordered = np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))
    return -(-ordered >> _SHIFT) + _BINS // 2


def _highest(bins: np.ndarray) -> np.ndarray:
    """The largest float32 of each bin."""
    ordered = (bins - _BINS // 2) << _SHIFT
    bits = np.abs(ordered).astype(np.int32)
    return np.where(ordered < 0, -1, 1).astype(np.float32) * bits.view(np.float32)
