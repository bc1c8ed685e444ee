import dataclasses

import jax
import numpy as np
import pytest

from sgfr_jax.detector import fitting, held_out, looks, splits, stages
from sgfr_jax.detector.services import PLAIN
from tests.detector import pretended
from tests.detector.conftest import fit


@pytest.fixture(autouse=True)
def few_defects(monkeypatch):
    pretended.few_defects(monkeypatch)


@pytest.fixture(scope="module")
def unsparing(streams):
    """The same stages, which leave maps as they are."""
    plain = dataclasses.replace(streams.stages.method, halo=0.0, breadth=0.0, image_prior=0.0)
    return stages.make(plain, pretended.NETWORK, streams.stages.services)


def score(made, look, split):
    batch = next(made.batches(split))
    return jax.device_get(made.programs["nearest"].score(look, batch))


def parts_of(made, look, split):
    """What each stream adds to the maps, halos included."""
    batch = next(made.batches(split))
    return np.asarray(made.programs["nearest"].contributions(look, batch), np.float64)


def credit(look, scores):
    """What an image's score adds to its map where it is looked at in one way."""
    return 0.4 * np.asarray(look.score_spread[0]) * np.minimum(scores, 1)


def test_defects_are_found_and_notes_say_how_streams_were_weighed(streams):
    states = streams.fitted.states
    found = [whole for (whole,) in looks.whole_images(streams.test, streams.stages, states)]
    scores = [whole.score for whole in found]
    assert min(scores[3:]) > max(scores[:3])
    for whole in found[3:]:  # of 72 pixels that are seen as 64
        row, column = np.unravel_index(np.argmax(whole.anomaly_map), (64, 64))
        assert 16 <= row < 38 and 25 <= column < 43
    (note,) = streams.fitted.notes
    assert "synthetic defects: coarse@64" in note and "fine@96" in note
    assert streams.fitted.num_atoms == 3 * 20
    assert streams.fitted.calibrated_on == (0, 1, 2, 3, 4)
    assert all(seconds > 0 for seconds in streams.fitted.seconds)


def test_squares_that_are_no_whole_number_of_cells():
    odd = fit(layers=("fine@1",), image_size=67)
    maps, scores = score(odd.stages, odd.look, odd.test)
    assert maps.shape == (6, 67, 67) and np.isfinite(maps).all() and np.isfinite(scores).all()


def test_weights_and_scores_are_finite_and_the_same_each_time(streams):
    look = streams.look
    for weights in (look.map_weights, look.image_weights):
        assert np.isclose(np.sum(weights), 1) and (np.asarray(weights) >= 0).all()
    maps, scores = score(streams.stages, look, streams.test)
    assert maps.shape == (6, 64, 64) and np.isfinite(maps).all() and np.isfinite(scores).all()
    again = fitting.fit(streams.stages, jax.random.key(0), streams.train)
    jax.tree.map(np.testing.assert_array_equal, again.states, streams.fitted.states)
    other = fitting.fit(streams.stages, jax.random.key(1), streams.train)
    assert not np.array_equal(
        other.states["nearest"].looks[0].banks[0].indices, look.banks[0].indices
    )


def test_named_streams_are_the_automatic_ones_in_any_order(streams):
    named = fit(layers=("coarse@1.5", "coarse@1", "fine@1.5"))
    assert named.stages.streams == streams.stages.streams
    jax.tree.map(np.testing.assert_array_equal, named.fitted.states, streams.fitted.states)


def test_the_size_of_a_batch_does_not_choose_the_atoms(streams):
    services = PLAIN._replace(batch_size=3)
    small = stages.make(streams.stages.method, pretended.NETWORK, services)
    found = fitting.fit(small, jax.random.key(0), streams.train)
    (look,) = found.states["nearest"].looks
    for one, other in zip(look.banks, streams.look.banks, strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_allclose(one.atoms, other.atoms, rtol=1e-5, atol=1e-6)


def test_defects_lose_their_halos_and_nominal_images_more(streams, unsparing):
    made, look, test = streams.stages, jax.device_get(streams.look), streams.test
    maps, scores = score(made, look, test)
    plain, same = score(unsparing, look, test)
    np.testing.assert_array_equal(scores, same)
    highest = np.sort(plain.reshape(len(plain), -1))[:, -4:].mean(axis=1)
    nominal = look.score_mean[0] + 2 * look.score_spread[0]
    assert look.halo_above == pytest.approx(nominal, rel=1e-5)
    beyond = np.maximum(highest - nominal, 0)
    assert (beyond > 0).any()
    left = plain.mean(axis=(1, 2)) - 0.2 * beyond
    added = credit(look, scores) + 0.25 * left - 0.2 * beyond
    assert (scores < 1).any() and (scores > 1).any()
    np.testing.assert_allclose(maps, plain + added[:, None, None], rtol=1e-5, atol=1e-3)
    for which in (made, unsparing):  # of parts no halo is taken off
        parts = parts_of(which, look, test).sum(axis=0)
        np.testing.assert_allclose(parts, plain, rtol=1e-5, atol=1e-3)


def test_windows_of_an_image_lose_one_halo(streams, unsparing, rng):
    """Joined from one window an image is what it is as a square; from several, of its own map."""
    look, test = jax.device_get(streams.look), streams.test
    programs, batch = streams.stages.programs["nearest"], next(streams.stages.batches(test))
    plain, _ = score(unsparing, look, test)
    windows, both = jax.device_get(programs.score_windows(look, batch))
    np.testing.assert_allclose(windows, plain, rtol=1e-5, atol=1e-5)
    maps, scores = score(streams.stages, look, test)
    for i, (whole, of_both) in enumerate(zip(windows, both, strict=True)):
        joined, of_image = programs.join(look, whole, of_both[None], alone=True)
        np.testing.assert_allclose(joined, maps[i], rtol=1e-5, atol=1e-4)
        assert of_image == pytest.approx(scores[i], rel=1e-5, abs=1e-4)
    wide = rng.normal(0, 40, (90, 130)).astype(np.float32)
    joined, of_image = programs.join(look, wide, both[:3], alone=False)
    mean, spread = look.score_mean, look.score_spread
    # As much as of one window: the more there are, the smaller the share of the whole.
    found = np.sort(wide.ravel())[-4:].mean(), both[:3, 1].max()
    assert of_image == pytest.approx(np.mean((np.array(found) - mean) / spread), rel=1e-4)
    beyond = max(found[0] - (mean[0] + 2 * spread[0]), 0)
    assert beyond > 1
    np.testing.assert_allclose(joined, wide - 0.2 * beyond, atol=1e-3)


def test_image_scores_are_those_of_the_map_and_of_the_streams(streams, unsparing):
    look = jax.device_get(streams.look)
    maps, scores = score(unsparing, look, streams.test)
    parts = parts_of(unsparing, look, streams.test)
    assert (look.map_weights > 0).all()
    each = parts / look.map_weights[:, None, None, None]

    def highest(found):  # four of 64 x 64 pixels
        return np.sort(found.reshape(*found.shape[:-2], -1))[..., -4:].mean(axis=-1)

    relative = (highest(each).T - look.image_mean) / look.image_spread
    both = np.stack([highest(maps), relative @ look.image_weights], axis=1)
    expected = ((both - look.score_mean) / look.score_spread).mean(axis=1)
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_one_training_image_is_enough(streams, unsparing):
    one = streams.train.take([0])
    alone = fitting.fit(streams.stages, jax.random.key(0), one)
    assert any("one training image" in note for note in alone.notes)
    state = jax.device_get(alone.states["nearest"])
    (look,) = state.looks
    maps, scores = score(streams.stages, look, streams.test)
    assert np.isfinite(maps).all() and np.isfinite(scores).all()
    assert np.array_equal(look.score_spread, [1, 1])
    assert look.halo_above == pytest.approx(float(look.score_mean[0]) + 2)
    plain, _ = score(unsparing, look, streams.test)
    highest = np.sort(plain.reshape(len(plain), -1))[:, -4:].mean(axis=1)
    halos = 0.2 * np.maximum(highest - look.halo_above, 0)
    added = credit(look, scores) + 0.25 * (plain.mean(axis=(1, 2)) - halos) - halos
    np.testing.assert_allclose(maps, plain + added[:, None, None], rtol=1e-4, atol=1e-3)
    # In spreads of patches that the banks have not seen: those of atoms themselves are next to 0.
    assert np.abs(scores).max() < 1000
    _, own = score(streams.stages, look, one)
    assert own < np.median(scores)

    def null(of):  # as the image scores unseen, with one breadth and one prior for all its blocks
        ((whole,),) = held_out.of_looks(of, "nearest", [look], one, [held_out.BY_BLOCK])
        return whole

    whole, bare = null(streams.stages), null(unsparing)
    assert whole.score == bare.score > own
    added = 0.25 * bare.anomaly_map.mean() + credit(look, whole.score)
    assert np.ptp(whole.anomaly_map - bare.anomaly_map) < 1e-3
    assert np.mean(whole.anomaly_map - bare.anomaly_map) == pytest.approx(added, abs=0.01)


def test_training_images_without_any_structure(streams):
    flat = pretended.split_of([np.full((64, 64, 3), 128, np.uint8)] * 5)
    even = fitting.fit(streams.stages, jax.random.key(0), flat)
    (look,) = even.states["nearest"].looks
    for found in score(streams.stages, look, streams.test):
        assert np.isfinite(found).all()


@pytest.mark.parametrize(
    "layers", [("fine", "coarse"), pytest.param(("coarse@1",), marks=pytest.mark.slow)]
)
def test_of_several_looks_each_is_what_it_is_alone(layers):
    """And a baseline scores on the same banks."""
    rng = np.random.default_rng(0)
    split = pretended.split_of(pretended.images(rng, 4, (64, 96)))
    key = jax.random.key(0)
    fields = {"solver": "nearest", "bank_size": 20, "geometry": "square+tile", "tile": 64}
    method = pretended.settled(layers=layers, **fields)
    made = stages.make(method, pretended.NETWORK, baselines=("ridge",))
    laid = splits.laid(split, method.geometries)
    fitted = fitting.fit(made, key, laid, "bolt")
    assert list(fitted.states) == ["nearest", "ridge"]
    both, other = (fitted.states[name] for name in fitted.states)
    assert both.whole.tolist() == [True, False]
    for own, own_look in zip(both.looks, splits.looks(laid), strict=True):
        found = fitting.fit_one(made, key, own_look, "")
        jax.tree.map(np.testing.assert_array_equal, own, found.looks["nearest"])
    for one, of_baseline in zip(both.looks, other.looks, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one.banks, of_baseline.banks)
    assert not np.allclose(both.nominal.score_mean, other.nominal.score_mean)
    assert all(note.startswith(("square: ", "tile: ")) for note in fitted.notes)
    assert len(fitted.notes) == (2 if method.has_streams else 0)


def test_the_seed_of_a_key():
    for seed in (0, 7, 2**32 - 1):
        assert fitting.seed_of(jax.random.key(seed)) == seed
    assert fitting.seed_of(jax.random.wrap_key_data(np.array([3, 5], np.uint32))) == (3 << 32) + 5


def test_patches_are_picked_alike_from_every_image(streams):
    picks = fitting._pick(streams.stages, jax.random.key(0), np.ones((300, 48**2)))
    assert picks.shape == (300, fitting.SAMPLED_PATCHES // 300)
    assert all(len(set(row)) == len(row) for row in picks)
    assert fitting._pick(streams.stages, jax.random.key(0), np.ones((2, 16))).shape == (2, 16)


def test_of_the_only_bank_no_patch_is_left_out(one_bank):
    picks = fitting._pick(one_bank.stages, jax.random.key(0), np.ones((3, 16)))
    np.testing.assert_array_equal(picks, [range(16)] * 3)


def test_patches_of_padding_are_picked_last(streams, monkeypatch):
    monkeypatch.setattr(fitting, "SAMPLED_PATCHES", 30)
    shown = np.tile(np.arange(16) < 12, (3, 1))
    picks = fitting._pick(streams.stages, jax.random.key(0), shown)
    assert picks.shape == (3, 10) and picks.max() < 12
