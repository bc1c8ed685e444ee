import jax
import numpy as np
import pytest

from sgfr_jax import maps, pipeline, thresholds
from sgfr_jax.detector import alternatives, fitting, held_out, state


def test_images_that_calibrate_are_taken_last():
    assert held_out.choose(6, (0, 1, 2), 0, at_most=300) == [0, 1, 2, 3, 4, 5]
    chosen = held_out.choose(6, (0, 1, 2), 0, at_most=4)
    assert chosen == sorted(chosen) and len(chosen) == 4 and {3, 4, 5} < set(chosen)
    assert held_out.choose(6, (0, 1, 2), 0, at_most=4) == chosen


def test_the_only_image_is_held_out_block_by_block():
    assert held_out.givers([0], 1) == [held_out.BY_BLOCK]
    assert held_out.givers([2, 4], 5) == [2, 4]


def test_the_null_is_of_scores_without_the_own_atoms(one_bank):
    """Against the library's own way of holding out, for one bank."""
    made, (grid, num) = one_bank.stages, (8, 5)
    fitted = one_bank.fitted.states["nearest"]
    nulls, note = held_out.nulls(made, fitted, one_bank.train, (), 0)
    (batch,) = next(made.batches(one_bank.train))
    (bank,) = jax.tree.map(jax.numpy.asarray, one_bank.look.banks)
    code = alternatives.make_coder("nearest", made.method)
    scores, _ = pipeline.score_held_out(
        bank, bank.indices // grid**2, jax.numpy.asarray(batch), jax.numpy.arange(num), code=code
    )
    found = maps.anomaly_map(scores.reshape(num, grid, grid), (64, 64), sigma=made.method.sigma)
    expected = np.sort(np.asarray(maps.image_score(found)))
    null = np.repeat(nulls.images.scores, nulls.images.counts)
    np.testing.assert_allclose(null, expected, rtol=1e-4)
    seen = pipeline.score(bank, batch.reshape(-1, batch.shape[-1]), code=code)
    assert np.median(expected) > np.median(np.max(np.asarray(seen).reshape(num, -1), axis=1))
    highest = thresholds.pixel_threshold(nulls.pixels, 0.0)
    assert highest == pytest.approx(float(found.max()), rel=2e-3)
    assert nulls.pixels.counts.sum() == found.size
    assert note == "null of 5 training images, each without the atoms that it gave"


def test_origins_name_the_patches_that_the_atoms_are(streams):
    """What is left out of a bank are the patches of the image itself."""
    batch = next(streams.stages.batches(streams.train))
    for bank, origin, patches in zip(streams.look.banks, streams.look.origins, batch, strict=True):
        np.testing.assert_array_equal(bank.atoms, patches[origin.images, origin.cells])


def test_images_are_chosen_counted_and_shown(streams, monkeypatch):
    monkeypatch.setattr(held_out, "NULL_IMAGES", 3)
    titles = []

    def progress(title, total, unit):
        titles.append((title, total, unit))
        return streams.stages.services.progress(title, total, unit)

    services = streams.stages.services._replace(progress=progress)
    made, fitted = streams.stages._replace(services=services), streams.fitted.states["nearest"]
    nulls, note = held_out.nulls(made, fitted, streams.train, (0, 1, 2), 0, "a title")
    assert nulls.images.counts.sum() == 3 and nulls.pixels.counts.sum() == 3 * 64**2
    assert note.startswith("null of 3 training images, each without") and "1 of them cali" in note
    assert titles == [("a title", 3, "images")]


def test_of_learned_atoms_nothing_can_be_left_out(one_bank):
    (origin,) = one_bank.look.origins
    learned = one_bank.look._replace(origins=(state.no_origins(len(origin.images)),))
    fitted = state.alone(learned)
    nulls, note = held_out.nulls(one_bank.stages, fitted, one_bank.train, (), 0)
    assert note == "null of 5 training images, which the atoms are learned from"
    scored, _ = held_out.nulls(
        one_bank.stages, one_bank.fitted.states["nearest"], one_bank.train, (), 0
    )
    assert nulls.images.scores.max() < scored.images.scores.max()


def test_one_training_image_scores_as_if_unseen(one_bank):
    made, one = one_bank.stages, one_bank.train.take([0])
    fitted = fitting.fit(made, jax.random.key(0), one).states["nearest"]
    nulls, note = held_out.nulls(made, fitted, one, (), 0)
    assert "the one training image, each of its parts" in note
    assert nulls.images.counts.sum() == 1
    (look,) = fitted.looks
    seen, score = jax.device_get(made.programs["nearest"].score(look, next(made.batches(one))))
    assert nulls.images.scores[0] > score[0]
    assert thresholds.pixel_threshold(nulls.pixels, 0.5) > np.median(seen)
