import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from sgfr_jax import fusion


@pytest.fixture
def made(rng):
    maps = rng.normal(size=(6, 8, 8)).astype(np.float32)
    masks = np.zeros((6, 8, 8), bool)
    masks[:, 2:4, 3:6] = True
    maps[masks] += 1.5
    return maps, masks, ["b", "a", "b", "a", "c", "a"], rng.normal(size=(5, 8, 8))


def test_precisions_are_those_of_scikit_learn(made):
    maps, masks, groups, nominal = made
    found = fusion.precisions(maps, masks, groups, nominal)
    for group, value in zip("abc", found, strict=True):
        own = [i for i, g in enumerate(groups) if g == group]
        scores = np.concatenate([maps[own].ravel(), nominal.ravel()])
        labels = np.concatenate([masks[own].ravel(), np.zeros(nominal.size, bool)])
        assert value == pytest.approx(average_precision_score(labels, scores), abs=1e-9)


def test_a_group_without_defective_pixels_is_not_counted(made):
    maps, masks, groups, nominal = made
    masks[4] = False
    found = fusion.precisions(maps, masks, groups, nominal)
    assert np.isnan(found[2]) and np.isfinite(found[:2]).all()
    weights = fusion.map_weights(np.stack([found, found / 2]))
    np.testing.assert_allclose(weights, [16 / 17, 1 / 17])


def test_every_group_shares_its_vote_by_relative_precision():
    precision = np.array([[0.9, 0.2], [0.45, 0.4], [0.0, 0.0]])
    # Relative to the best: (1, 0.5), (0.5, 1), (0, 0).
    np.testing.assert_allclose(fusion.map_weights(precision, power=1.0), [0.5, 0.5, 0])
    np.testing.assert_allclose(fusion.map_weights(precision, power=0.0), np.full(3, 1 / 3))
    better = np.array([[0.8, 0.8], [0.4, 0.4]])
    np.testing.assert_allclose(fusion.map_weights(better, power=2.0), [0.8, 0.2])
    # A group that is hard for all has the vote of one that is easy.
    hard = np.array([[0.8, 0.01], [0.4, 0.02]])
    np.testing.assert_allclose(fusion.map_weights(hard), [0.5, 0.5])


def test_what_alone_sees_a_group_keeps_its_vote():
    precision = np.array([[0.8, 0.8, 0.8, 0.0], [0.0, 0.0, 0.0, 0.3]])
    np.testing.assert_allclose(fusion.map_weights(precision), [0.75, 0.25])


@given(
    hnp.arrays(float, (4, 6), elements=st.floats(0, 1)),
    st.floats(0, 16),
    st.permutations(range(4)),
    st.permutations(range(6)),
)
def test_weights_share_one_whatever_the_order(precision, power, detectors, groups):
    weights = fusion.map_weights(precision, power=power)
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    moved = fusion.map_weights(precision[detectors][:, groups], power=power)
    np.testing.assert_allclose(moved, weights[detectors], atol=1e-12)


def test_hopeless_defects_leave_all_alike():
    np.testing.assert_allclose(fusion.map_weights(np.zeros((4, 3))), 0.25)
    np.testing.assert_allclose(fusion.map_weights(np.full((2, 3), np.nan)), 0.5)


def test_image_weights_are_the_excess_of_the_area(rng):
    nominal = rng.normal(size=(3, 30))
    synthetic = rng.normal(size=(3, 20)) + np.array([[2.0], [0.7], [-3.0]])
    labels = np.r_[np.ones(20), np.zeros(30)]
    excess = [
        max(roc_auc_score(labels, np.r_[s, n]) - 0.5, 0) ** 2
        for s, n in zip(synthetic, nominal, strict=True)
    ]
    found = fusion.image_weights(synthetic, nominal)
    np.testing.assert_allclose(found, np.array(excess) / np.sum(excess), atol=1e-9)
    assert found[2] == 0


def test_detectors_that_tell_nothing_count_alike():
    found = fusion.image_weights(np.zeros((3, 4)), np.zeros((3, 5)))
    np.testing.assert_allclose(found, 1 / 3)


def test_shapes_that_do_not_fit(made):
    maps, masks, groups, nominal = made
    with pytest.raises(ValueError, match="must be as many"):
        fusion.precisions(maps, masks[:4], groups, nominal)
    with pytest.raises(ValueError, match="must be as many"):
        fusion.precisions(maps, masks, groups[:4], nominal)
