"""What nominal squares and synthetic defects make of the streams; see test_fitting for the rest."""

import jax
import numpy as np
import pytest

from sgfr_jax.detector import state, weighing
from sgfr_jax.detector.weighing import Squares

NOTHING = Squares((), np.zeros(0, int))


def squares_of(small, split, owner):
    return Squares(next(small.stages.batches(split)), np.full(len(split.examples), owner))


def calibrated(small, nominal):
    """As nominal squares have it, streams counting alike."""
    made, streams = small.stages.programs["nearest"], small.stages.streams
    plain = state.plain_look(small.look.banks, small.look.origins)
    look, held = weighing.calibrate(made, streams, plain, nominal)
    return weighing.weigh(made, streams, look, held, NOTHING, np.zeros(0), ()), held


def test_nominal_maps_and_images_have_mean_0_and_spread_1(streams):
    """Here the test images are taken for nominal ones that no bank has seen."""
    test = streams.test.take(range(6))
    nominal = squares_of(streams, test, -2)
    look, held = calibrated(streams, nominal)
    assert held.unseen
    for found in held.found:
        assert found.maps.mean() == pytest.approx(0, abs=1e-4)
        assert found.maps.std() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(look.map_weights, 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(look.image_weights, 1 / 3, rtol=1e-6)
    _, scores = streams.stages.programs["nearest"].score(look, nominal.features)
    assert np.mean(scores) == pytest.approx(0, abs=1e-3) and np.std(scores) > 0.1
    assert look.halo_above == pytest.approx(
        float(look.score_mean[0] + 2 * look.score_spread[0]), rel=1e-5
    )


def test_images_are_scored_without_their_atoms(streams):
    """As if the image were not in the bank."""
    train = streams.train.take([2])
    nominal = squares_of(streams, train, 2)
    _, held = calibrated(streams, nominal)
    others = state.without(streams.look, 2)
    for (scores, owners), bank, features in zip(
        held.scores, others.banks, nominal.features, strict=True
    ):
        atoms = np.asarray(bank.atoms)[np.asarray(bank.weights) > 0].astype(float)
        distances = np.linalg.norm(features[0][:, None].astype(float) - atoms, axis=-1)
        np.testing.assert_allclose(scores.ravel(), distances.min(axis=1), rtol=1e-3, atol=1e-4)
        assert (np.asarray(bank.weights)[owners] > 0).all()


def test_of_learned_atoms_nothing_is_held_out_and_maps_keep_their_halos(streams):
    learned = tuple(state.no_origins(len(bank.atoms)) for bank in streams.look.banks)
    small = streams._replace(
        fitted=streams.fitted._replace(
            states={"nearest": state.alone(streams.look._replace(origins=learned))}
        )
    )
    look, held = calibrated(small, squares_of(small, small.train, 0))
    assert not held.unseen and np.isinf(look.halo_above)


def test_a_stream_that_sees_defects_counts_more(streams):
    """The defects are in one stream's features alone."""
    made, planned = streams.stages.programs["nearest"], streams.stages.streams
    nominal = squares_of(streams, streams.train, -2)
    look, held = calibrated(streams, nominal)
    features = [np.array(x) for x in nominal.features]
    masks = np.zeros((len(nominal.owners), 64, 64), bool)
    masks[:, 16:48, 16:48] = True
    seen = features[1].reshape(len(masks), 12, 12, -1)
    seen[:, 3:9, 3:9] = -seen[:, 3:9, 3:9]
    defective = Squares(features, nominal.owners)
    found = weighing.weigh(made, planned, look, held, defective, masks, ["one"] * len(masks))
    assert np.argmax(found.map_weights) == np.argmax(found.image_weights) == 1
    assert np.sum(found.map_weights) == pytest.approx(1, rel=1e-5)
    jax.tree.map(np.testing.assert_array_equal, found.calibrations, look.calibrations)


def test_deviations_next_to_nothing_are_none():
    scores = np.array([[1.0, 1.0, 1.0 + 1e-8], [1.0, 2.0, 3.0]])
    np.testing.assert_allclose(weighing.spread_of(scores, axis=1), [1, scores[1].std()])
