import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sgfr_jax import histograms, metrics
from tests.test_metrics import make_case


def fill(maps, masks, batch=1, num_bins=histograms.NUM_BINS):
    histogram = histograms.empty(num_bins)
    for i in range(0, len(maps), batch):
        histogram = histograms.add(histogram, maps[i : i + batch], masks[i : i + batch])
    return histogram


def measured(histogram):
    return metrics.measure(None, *histograms.rankings(histogram))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 4),
    num_bins=st.sampled_from([16, 2**20]),
    shift=st.sampled_from([0.0, 3.0, -0.5, -20.0]),
)
@example(seed=23, batch=1, num_bins=16, shift=-0.5)  # borders once moved with the low end
def test_metrics_are_exact_for_the_bins(seed, batch, num_bins, shift):
    maps, masks = make_case(seed, 6)
    maps = maps - maps.min() + np.float32(shift)
    histogram = fill(maps, masks, batch, num_bins)
    binned = np.floor(histograms.in_widths(histogram, maps))
    assert (histogram.low == 0) == (maps.min() >= 0)
    exact = metrics.evaluate(np.arange(4.0), np.zeros(4), binned, masks)
    assert measured(histogram)[3:] == pytest.approx(exact[3:], abs=1e-9)


def test_metrics_of_many_pixels_are_exact_to_a_millionth(rng):
    masks = np.zeros((8, 400, 400), bool)
    masks[4:, 100:200, 50:150] = True
    maps = np.abs(rng.normal(size=masks.shape)).astype(np.float32) + masks
    exact = metrics.evaluate(np.arange(8.0), np.zeros(8), maps, masks)
    assert measured(fill(maps, masks, 3))[3:] == pytest.approx(exact[3:], abs=2e-6)


def test_few_bins_are_exact_for_rounded_scores():
    maps, masks = make_case(3, 6)
    maps = np.float32((maps - maps.min()) / (2 * np.ptp(maps)))
    rounded = np.floor(maps * 64) / 64
    maps[0, 0, 0] = rounded[0, 0, 0] = 0.5  # the first range is [0, 1)
    exact = metrics.evaluate(np.arange(4.0), np.zeros(4), rounded, masks)
    assert measured(fill(maps, masks, 4, 64))[3:] == pytest.approx(exact[3:])


def test_the_range_doubles_when_scores_grow():
    maps, masks = make_case(5, 6)
    maps = (maps - maps.min()) * np.float32([1e-3, 1, 10, 1e3])[:, None, None]
    histogram = fill(maps, masks)
    assert histogram.negatives.sum() == (~masks).sum()
    assert histogram.positives.sum() == masks.sum()
    assert histogram.width * len(histogram.negatives) <= 4 * maps.max()
    exact = metrics.evaluate(np.arange(4.0), np.zeros(4), maps, masks)
    assert measured(histogram).pixel_auroc == pytest.approx(exact.pixel_auroc, abs=1e-4)


def test_the_range_doubles_to_either_end():
    maps, masks = make_case(5, 6)
    maps *= np.float32([1e-3, 1, 10, 1e3])[:, None, None]
    maps[:2] = -maps[:2]
    histogram = fill(maps, masks)
    assert histogram.negatives.sum() == (~masks).sum()
    assert histogram.positives.sum() == masks.sum()
    assert histogram.low <= maps.min() and histogram.low <= 0
    end = histogram.low + histogram.width * len(histogram.negatives)
    assert maps.max() < end and end - histogram.low <= 8 * np.ptp(maps)
    exact = metrics.evaluate(np.arange(4.0), np.zeros(4), maps, masks)
    assert measured(histogram).pixel_auroc == pytest.approx(exact.pixel_auroc, abs=1e-4)


def test_scores_that_are_all_zero():
    masks = np.zeros((1, 4, 4), bool)
    masks[0, 1, 1] = True
    assert measured(fill(np.zeros((1, 4, 4), np.float32), masks)).pixel_auroc == 0.5


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        histograms.add(histograms.empty(), np.zeros((1, 2, 2)), np.zeros((1, 2, 3), bool))
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="must be finite"):
            histograms.add(histograms.empty(), np.full((1, 2, 2), bad), np.ones((1, 2, 2), bool))
    with pytest.raises(ValueError, match="no positives"):
        histograms.rankings(histograms.empty())


def test_maps_of_jax_and_of_half_precision(rng):
    masks = np.zeros((2, 20, 20), bool)
    masks[:, 4:9, 5:11] = True
    maps = (rng.normal(size=masks.shape) + masks).astype(np.float16)
    expected = measured(fill(maps.astype(np.float32), masks))
    assert measured(fill(maps, masks)) == expected
    assert measured(fill(jnp.asarray(maps), jnp.asarray(masks))) == expected
