import numpy as np
import pytest
from sklearn import metrics as reference

from sgfr_jax import curves, metrics
from tests.test_metrics import make_case


@pytest.fixture
def case():
    return make_case(3, 8)


def rankings(case):
    maps, masks = case
    found = metrics.rankings(maps.max(axis=(1, 2)), masks.any(axis=(1, 2)), maps, masks)
    return found.pixels, found.regions


def test_every_count_is_that_of_its_threshold(case):
    maps, masks = case
    points = curves.thin(*rankings(case), num=30)
    assert 20 < len(points.thresholds) <= 31 and (np.diff(points.thresholds) < 0).all()
    assert points.num_positives == masks.sum() and points.num_negatives == (~masks).sum()
    weights = metrics.region_weights(masks)
    for i, threshold in enumerate(points.thresholds):
        above = maps >= threshold
        assert points.true_positives[i] == (above & masks).sum()
        assert points.false_positives[i] == (above & ~masks).sum()
        wanted = weights[above[masks]].sum() / weights.sum()
        assert points.region_recall[i] == pytest.approx(wanted)
        beyond = maps > threshold
        assert points.true_positives_above[i] == (beyond & masks).sum()
        assert points.false_positives_above[i] == (beyond & ~masks).sum()
        wanted = weights[beyond[masks]].sum() / weights.sum()
        assert points.region_recall_above[i] == pytest.approx(wanted)


def test_the_best_f1_of_all_thresholds_is_among_them(case):
    maps, masks = case
    points = curves.thin(*rankings(case), num=5)
    threshold = points.thresholds[points.best]
    best = metrics.f1_max(rankings(case)[0])
    assert threshold == best[1]
    assert reference.f1_score(masks.ravel(), maps.ravel() >= threshold) == pytest.approx(best[0])


def test_the_areas_under_few_points_are_those_under_all(case):
    pixels, regions = rankings(case)
    points = curves.thin(pixels, regions)
    rate = np.concatenate([[0], points.false_positives / points.num_negatives, [1]])
    recall = np.concatenate([[0], points.true_positives / points.num_positives, [1]])
    assert np.trapezoid(recall, rate) == pytest.approx(metrics.roc_area(pixels), abs=2e-3)
    overlap = np.concatenate([[0], points.region_recall, [1]])
    x = np.linspace(0, 0.3, 3001)
    area = np.trapezoid(np.interp(x, rate, overlap), x) / 0.3
    assert area == pytest.approx(metrics.roc_area(regions, max_fpr=0.3), abs=5e-3)


def test_few_thresholds_are_all_kept():
    scores = np.array([1.0, 1.0, 2.0, 3.0])
    points = curves.thin(metrics.rank(scores, np.array([False, True, True, True])), num=50)
    assert points.thresholds.tolist() == [3.0, 2.0, 1.0]
    assert points.true_positives.tolist() == [1, 2, 3]
    assert points.false_positives.tolist() == [0, 0, 1]
    assert points.region_recall == pytest.approx([1 / 3, 2 / 3, 1]) and points.best == 2


def test_no_negatives():
    with pytest.raises(ValueError, match="no negatives"):
        curves.thin(metrics.rank(np.ones(2), np.ones(2, bool)))
