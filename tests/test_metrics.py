import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn import metrics as sklearn_metrics

from sgfr_jax import metrics


def brute_force_pro(maps, masks, *limits):
    """PRO as it is defined: every threshold, every region, then the area up to each limit."""
    regions = []
    for i, mask in enumerate(masks):
        labelled, num = ndimage.label(mask, np.ones((3, 3)))
        regions += [(i, labelled == r) for r in range(1, num + 1)]
    x, y = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        x.append(found[~masks].mean())
        y.append(np.mean([found[i][region].mean() for i, region in regions]))
    return [area_up_to(limit, np.array(x), np.array(y)) for limit in limits]


def area_up_to(limit, x, y):
    inside = x <= limit
    area = np.trapezoid(y[inside], x[inside])
    if not inside.all():
        i = np.flatnonzero(~inside)[0]
        at_limit = np.interp(limit, x[i - 1 : i + 1], y[i - 1 : i + 1])
        area += (limit - x[i - 1]) * (y[i - 1] + at_limit) / 2
    return area / limit


def make_case(seed, decimals):
    """Maps with many ties when rounded, and masks with a few regions each."""
    rng = np.random.default_rng(seed)
    masks = ndimage.gaussian_filter(rng.normal(size=(4, 24, 30)), (0, 2, 2)) > 0.2
    masks[0] = False
    maps = np.round(rng.normal(size=masks.shape) + 0.8 * masks, decimals).astype(np.float32)
    return maps, masks


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), decimals=st.integers(0, 6))
def test_agrees_with_scikit_learn(seed, decimals):
    maps, masks = make_case(seed, decimals)
    ranking = metrics.rank(maps, masks)
    truth, scores = masks.ravel(), maps.ravel()
    assert metrics.roc_area(ranking) == pytest.approx(sklearn_metrics.roc_auc_score(truth, scores))
    assert metrics.average_precision(ranking) == pytest.approx(
        sklearn_metrics.average_precision_score(truth, scores)
    )
    precision, recall, _ = sklearn_metrics.precision_recall_curve(truth, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best, threshold = metrics.f1_max(ranking)
    assert best == pytest.approx(f1.max())
    assert sklearn_metrics.f1_score(truth, scores >= threshold) == pytest.approx(best)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), decimals=st.integers(0, 3))
def test_aupro_agrees_with_brute_force(seed, decimals):
    maps, masks = make_case(seed, decimals)
    ranking = metrics.rank(maps, masks, metrics.region_weights(masks))
    limits = 1.0, 0.3, 0.05, 1e-3
    found = [metrics.roc_area(ranking, max_fpr=limit) for limit in limits]
    assert found == pytest.approx(brute_force_pro(maps, masks, *limits), abs=1e-9)


def test_evaluate_is_its_parts():
    maps, masks = make_case(0, 2)
    scores, labels = maps.max(axis=(1, 2)), masks.any(axis=(1, 2))
    found = metrics.evaluate(scores, labels, maps, masks)
    images, pixels = metrics.rank(scores, labels), metrics.rank(maps, masks)
    assert found.image_auroc == metrics.roc_area(images)
    assert found.image_f1_max == metrics.f1_max(images)[0]
    assert found.pixel_auroc == pytest.approx(metrics.roc_area(pixels))
    assert found.pixel_ap == pytest.approx(metrics.average_precision(pixels))
    assert found.pixel_f1_max == pytest.approx(metrics.f1_max(pixels)[0])
    pro = brute_force_pro(maps, masks, 0.3, 0.05)
    assert [found.aupro, found.aupro_05] == pytest.approx(pro)


def test_regions_touch_through_corners_and_not_through_images():
    masks = np.zeros((2, 3, 3), bool)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[0, 1, 2] = True
    masks[1, 0, 0] = True
    np.testing.assert_allclose(metrics.region_weights(masks), [1 / 3] * 3 + [1])


def test_perfect_and_constant_scores():
    masks = np.zeros((2, 6, 6), bool)
    masks[1, 2:4, 2:4] = True
    perfect = metrics.evaluate(np.array([0.0, 1.0]), np.array([0, 1]), masks.astype(float), masks)
    assert perfect == metrics.Metrics(*[1.0] * 8)
    constant = metrics.evaluate(np.zeros(2), np.array([0, 1]), np.zeros(masks.shape), masks)
    assert constant.image_auroc == constant.pixel_auroc == 0.5
    assert constant.aupro == pytest.approx(0.15)


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1]])
def test_what_the_test_set_cannot_define_is_none(labels):
    masks = np.zeros((3, 4, 4), bool)
    found = metrics.evaluate(np.arange(3.0), np.array(labels), np.zeros(masks.shape), masks)
    assert found == metrics.Metrics(*[None] * 8)


def test_without_masks_pixel_metrics_are_none():
    found = metrics.evaluate(np.arange(2.0), np.array([0, 1]))
    assert found.image_auroc == 1.0
    assert found.pixel_auroc is found.aupro is None


def test_masks_of_0_and_255_will_do():
    maps, masks = make_case(0, 2)
    labels = masks.any(axis=(1, 2))
    expected = metrics.evaluate(maps.max(axis=(1, 2)), labels, maps, masks)
    found = metrics.evaluate(maps.max(axis=(1, 2)), labels, maps, masks.astype(np.uint8) * 255)
    assert found == expected


def test_inputs_are_left_alone():
    maps, masks = make_case(1, 3)
    before = maps.copy()
    metrics.rank(maps, masks)
    np.testing.assert_array_equal(maps, before)


class TestMistakes:
    def test_nan(self):
        with pytest.raises(ValueError, match="finite"):
            metrics.rank(np.array([0.0, np.nan]), np.array([False, True]))

    def test_shapes(self):
        with pytest.raises(ValueError, match=r"\(3,\) and labels \(2,\)"):
            metrics.rank(np.zeros(3), np.zeros(2, bool))

    def test_weights(self):
        with pytest.raises(ValueError, match=r"weights \(2,\) must be one for each of \(1,\)"):
            metrics.rank(np.zeros(2), np.array([True, False]), np.ones(2))

    @pytest.mark.parametrize("limit", [0, -1, 1.5])
    def test_limits(self, limit):
        with pytest.raises(ValueError, match="max_fpr"):
            metrics.roc_area(metrics.rank(np.zeros(2), np.array([True, False])), max_fpr=limit)

    def test_maps_without_masks(self):
        with pytest.raises(ValueError, match="together"):
            metrics.evaluate(np.zeros(2), np.array([0, 1]), np.zeros((2, 3, 3)))

    def test_one_class(self):
        with pytest.raises(ValueError, match="no positives"):
            metrics.rank(np.zeros(3), np.zeros(3, bool))
        with pytest.raises(ValueError, match="no negatives"):
            metrics.roc_area(metrics.rank(np.zeros(3), np.ones(3, bool)))


def test_arrays_of_jax_are_measured_as_numpys():
    rng = np.random.default_rng(3)
    maps, masks = rng.normal(size=(6, 12, 12)).astype(np.float32), np.zeros((6, 12, 12), bool)
    masks[:3, 2:6, 3:8] = True
    expected = metrics.evaluate(maps.max(axis=(1, 2)), masks.any(axis=(1, 2)), maps, masks)
    scores, labels = jnp.max(maps, axis=(1, 2)), jnp.any(masks, axis=(1, 2))
    assert metrics.evaluate(scores, labels, jnp.asarray(maps), jnp.asarray(masks)) == expected
