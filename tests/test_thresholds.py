import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from sgfr_jax import thresholds

finite = st.floats(-1e6, 1e6, width=32)
lists = st.lists(finite, min_size=1, max_size=40)


def counted(maps):
    return thresholds.tally_pixels(thresholds.add_pixels(thresholds.no_pixels(), maps))


def test_p_values_by_hand():
    null = thresholds.tally(np.array([1.0, 2.0, 2.0, 5.0]))
    scores = np.array([[0.0, 1.0, 1.5], [2.0, 5.0, 6.0]])
    expected = np.array([[5, 5, 4], [4, 2, 1]]) / 5
    np.testing.assert_array_equal(thresholds.p_values(null, scores), expected)
    assert np.isnan(thresholds.p_values(null, np.array([np.nan, 1.0]))).tolist() == [True, False]


@settings(max_examples=60, deadline=None)
@given(null=lists, scores=lists)
def test_p_values_are_those_of_a_plain_count_and_fall_with_the_score(null, scores):
    null, scores = np.float32(null), np.sort(np.float32(scores))
    found = thresholds.p_values(thresholds.tally(null), scores)
    expected = [(1 + np.sum(null >= s)) / (len(null) + 1) for s in scores]
    np.testing.assert_array_equal(found, expected)
    assert (np.diff(found) <= 0).all()


@settings(max_examples=60, deadline=None)
@given(scores=st.lists(st.integers(0, 6), min_size=2, max_size=30))
def test_p_values_are_super_uniform(scores):
    """Each of `n + 1` exchangeable scores in turn is the new one: an exact statement, ties too."""
    scores = np.float32(scores)
    found = np.sort([
        float(thresholds.p_values(thresholds.tally(np.delete(scores, i)), scores[i]))
        for i in range(len(scores))
    ])  # fmt: skip
    shares = np.arange(1, len(scores) + 1) / len(scores)
    # At most a share `a` of them is `a` or less.
    assert (np.searchsorted(found, shares + 1e-12, "right") / len(scores) <= shares + 1e-12).all()


@pytest.mark.parametrize("of_scores", [np.float32, np.float64])
@pytest.mark.parametrize("of_null", [np.float32, np.float64])
def test_scores_tie_with_a_null_of_another_precision(of_null, of_scores):
    for value in (0.1, 0.7, -0.7, 1e-42, 1.7e9 + 0.3):
        null = thresholds.tally(np.full(99, value, of_null))
        assert null.scores.dtype == of_null
        assert thresholds.p_values(null, of_scores(value)) == 1
        above = np.nextafter(np.float32(value), np.float32(np.inf))
        assert thresholds.p_values(null, of_scores(above)) == 0.01


@pytest.mark.parametrize("of_null", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 1.7e9])
def test_few_nominal_scores_are_called_rare_whatever_their_offset(rng, of_null, offset):
    """As of timestamps: what float32 would tie stays apart in float64."""
    ps = []
    for _ in range(300):
        drawn = offset + rng.integers(0, 12, 20) / 10.0
        ps.append(thresholds.p_values(thresholds.tally(drawn[1:].astype(of_null)), drawn[0]))
    assert np.mean(np.array(ps) <= 0.05) < 0.09  # three standard deviations above 0.05
    if of_null is np.float64:
        null = thresholds.tally(offset + np.arange(99.0) / 100)
        assert thresholds.p_values(null, offset + 0.985) == 0.01


def test_integers_are_scores_too():
    null = thresholds.tally(np.array([2**24, 2**24 + 1, 3]))
    np.testing.assert_array_equal(thresholds.p_values(null, [2**24 + 1, 4]), [0.5, 0.75])


def test_tallies_of_two_precisions_tie_together():
    null = thresholds.together(
        thresholds.tally(np.float32([0.7, 0.1])), thresholds.tally(np.array([0.7, 0.2]))
    )
    np.testing.assert_array_equal(null.counts, [1, 1, 2])
    assert thresholds.p_values(null, 0.7) == 3 / 5


def test_pixels_of_float64_are_rounded_up_too():
    """To the nearest float32 they could end a bin too low."""
    top = 1 + 2.0**-10
    maps = np.array([top, np.nextafter(top, 2), -top, np.nextafter(-top, 2)])
    rounded = [float(counted(maps[i : i + 1]).scores[0]) for i in range(4)]
    assert (rounded >= maps).all() and rounded[0] == top


@pytest.mark.parametrize("num,rate", [(99, 0.01), (99, 0.05), (300, 0.01), (100, 0.29), (999, 0.1)])
def test_thresholds_follow_the_beta_distribution(rng, num, rate):
    null = rng.normal(size=num).astype(np.float32)
    found = thresholds.at_false_alarm_rate(thresholds.tally(null), rate)
    rank = int(round(rate * (num + 1), 9))
    assert found.score == np.sort(null)[-rank]
    assert found.enough and found.expected == pytest.approx(rank / (num + 1))
    assert found.expected <= rate + 1e-12
    # P(rate <= r) = P(at least `rank` of `num` uniforms lie within r of the top).
    assert stats.binom.sf(rank - 1, num, found.upper) == pytest.approx(0.95)


def test_the_promised_rates_hold_on_average_and_with_confidence(rng):
    nulls = rng.exponential(size=(2000, 59))
    found = [thresholds.at_false_alarm_rate(thresholds.tally(n), 0.05) for n in nulls]
    rates = np.exp([-t.score for t in found])  # of new scores, exactly
    assert rates.mean() == pytest.approx(found[0].expected, abs=0.002)
    assert np.mean(rates <= found[0].upper) == pytest.approx(0.95, abs=0.015)


@settings(max_examples=60, deadline=None)
@given(null=lists, rate=st.sampled_from([0.01, 0.1, 0.25, 0.5, 0.9]))
def test_the_threshold_is_the_rule_of_the_p_values(null, rate):
    null = np.float32(null)
    tally = thresholds.tally(null)
    found = thresholds.at_false_alarm_rate(tally, rate)
    if found.enough:
        np.testing.assert_array_equal(
            null > found.score, thresholds.p_values(tally, null) <= rate + 1e-12
        )
    else:
        assert found.score == null.max() and len(null) < thresholds.images_needed(rate)


def test_a_higher_rate_never_raises_the_threshold(rng):
    tally = thresholds.tally(rng.normal(size=57))
    rates = np.linspace(0.01, 0.99, 40)
    found = [thresholds.at_false_alarm_rate(tally, rate).score for rate in rates]
    assert (np.diff(found) <= 0).all()


def test_how_many_images_a_rate_needs():
    assert [thresholds.images_needed(rate) for rate in (0.5, 0.1, 0.05, 0.01, 0.03)] == [
        1, 9, 19, 99, 33
    ]  # fmt: skip
    for rate in (0.1, 0.01, 0.03):
        num = thresholds.images_needed(rate)
        for size, enough in ((num, True), (num - 1, False)):
            tally = thresholds.tally(np.arange(size, dtype=np.float32))
            assert thresholds.at_false_alarm_rate(tally, rate).enough == enough


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=60))
def test_counted_pixels_are_rounded_up_and_barely(values):
    values = np.sort(np.float32(values))
    found = counted(values)
    rounded = np.repeat(found.scores, found.counts)
    assert len(rounded) == len(values) and (np.diff(found.scores) > 0).all()
    assert (rounded >= values).all()
    assert (rounded - values <= np.maximum(np.abs(values) / 1024, 1e-38)).all()


def test_pixels_of_many_maps_take_no_more_memory_and_come_in_any_order(rng):
    maps = rng.normal(size=(6, 40, 40)).astype(np.float32)
    whole = counted(maps)
    parts = thresholds.no_pixels()
    for part in maps[::-1]:
        assert thresholds.add_pixels(parts, part) is parts
    np.testing.assert_array_equal(whole.scores, thresholds.tally_pixels(parts).scores)
    np.testing.assert_array_equal(whole.counts, thresholds.tally_pixels(parts).counts)


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.1, 0.5])
def test_at_most_the_wanted_share_of_pixels_lies_above(rng, rate):
    maps = rng.normal(size=(5, 30, 30)).astype(np.float32)
    threshold = thresholds.pixel_threshold(counted(maps), rate)
    share = np.mean(maps > threshold)
    assert share <= rate
    # A bin lower would be too many.
    assert np.mean(maps > threshold - np.abs(threshold) / 256) > rate - 1e-9
    exact = np.quantile(maps, 1 - rate, method="inverted_cdf")
    assert threshold == pytest.approx(exact, rel=2e-3)


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.integers(0, 9), min_size=2, max_size=20),
    seed=st.integers(0, 1000),
)
def test_the_f1_threshold_is_the_best_of_all(scores, seed):
    scores = np.array(scores, np.float64)
    labels = np.random.default_rng(seed).random(len(scores)) < 0.5
    labels[0] = True
    threshold, best = thresholds.f1_threshold(scores, labels)
    candidates = np.arange(-1, 10) + 0.5
    f1 = [sklearn_metrics.f1_score(labels, scores > c, zero_division=0) for c in candidates]
    assert best == pytest.approx(max(f1))
    assert sklearn_metrics.f1_score(labels, scores > threshold) == pytest.approx(best)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("lowest", [1.0, 0.1, -0.1, -3e4, 0.0])
def test_the_f1_threshold_is_between_scores_of_any_precision(dtype, lowest):
    lowest = dtype(lowest)
    under = np.nextafter(lowest, dtype(-np.inf))
    for scores, labels in (
        ([lowest, 3], [True, True]),
        ([under, lowest, 3], [False, True, True]),
        ([-6e4, lowest, 6e4], [False, True, True]),
    ):
        scores = np.array(scores, dtype)
        threshold, best = thresholds.f1_threshold(scores, np.array(labels))
        assert best == 1 and isinstance(threshold, float)
        np.testing.assert_array_equal(scores > threshold, labels)
        np.testing.assert_array_equal(scores.astype(float) > threshold, labels)


def test_what_is_refused():
    tally = thresholds.tally(np.arange(3.0))
    for rate in (0.0, 1.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="rate="):
            thresholds.at_false_alarm_rate(tally, rate)
    with pytest.raises(ValueError, match="confidence=1"):
        thresholds.at_false_alarm_rate(tally, 0.1, confidence=1)
    with pytest.raises(ValueError, match="rate=1"):
        thresholds.pixel_threshold(tally, 1)
    for bad in (np.zeros(0), np.array([np.nan]), np.array([np.inf])):
        with pytest.raises(ValueError, match="must be finite"):
            thresholds.tally(bad)
    with pytest.raises(ValueError, match="nothing was counted"):
        thresholds.tally_pixels(thresholds.no_pixels())


def test_two_tallies_together(rng):
    one, other = (
        rng.integers(0, 9, 40).astype(np.float32),
        rng.integers(5, 12, 30).astype(np.float32),
    )
    found = thresholds.together(thresholds.tally(one), thresholds.tally(other))
    expected = thresholds.tally(np.concatenate([one, other]))
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.counts, expected.counts)
    assert found.scores.dtype == np.float32 and found.counts.dtype == np.int64
