import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import datasets
from sgfr_jax.commands import run
from sgfr_jax.commands.flags import config
from sgfr_jax.commands.pages import category
from sgfr_jax.detector import (
    fused,
    loading,
    nulls,
    synthetic,
)
from tests.small import write_folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """The automatic detector at its smallest."""
    photographs = write_folder(tmp_path_factory.mktemp("fused"))
    return config.resolve(
        config.Config(dataset="folder", data_dir=str(photographs), image_size=64, bank_size=20,
                      solver="nearest")
    )  # fmt: skip


@pytest.fixture(scope="module")
def detector(settings):
    """Compiled once for all tests."""
    return run.make_detector(settings, run.Resources(Path("unused"), batch_size=4))[0]


@pytest.fixture(scope="module")
def data(settings):
    found = datasets.load(settings.dataset, settings.data_dir)
    hashes = {c.name: loading.hash_images(c.train) for c in found}
    return loading.check(found, settings, hashes, ())[0]


@pytest.fixture(scope="module")
def fitted(detector, data):
    with pytest.MonkeyPatch.context() as patch:
        patch_sizes(patch)
        return detector.fit(data)


def patch_sizes(patch):
    patch.setattr(synthetic, "SIZES", (0.1, 0.4))
    patch.setitem(synthetic.draw.__kwdefaults__, "copies", 1)


@pytest.fixture(autouse=True)
def few_defects(monkeypatch):
    patch_sizes(monkeypatch)


def score(detector, fitted, split):
    batch = next(detector.batches(split))
    return jax.device_get(detector.scorers["nearest"](fitted.states["nearest"], batch))


def test_a_run_finds_defects_and_says_how_it_weighed(settings, detector, data, tmp_path):
    outcome = category.run(data, detector, settings, category.Output(tmp_path, 0, False))
    assert outcome["results"]["image_auroc"] is not None
    assert outcome["results"]["pixel_ap"] is not None
    (note,) = (note for note in outcome["notes"] if "synthetic defects" in note)
    assert "block4@96" in note


def test_squares_that_are_no_whole_number_of_cells(settings, data, tmp_path):
    shallow = {"layers": ("block2@1", "block4@1.5"), "image_size": 67, "grid": None}
    odd = config.resolve(dataclasses.replace(settings, **shallow))
    detector, _ = run.make_detector(odd, run.Resources(tmp_path, batch_size=4))
    outcome = category.run(data, detector, odd, category.Output(tmp_path, 0, False))
    assert outcome["results"]["pixel_ap"] is not None


def test_weights_and_scores_are_finite_and_the_same_each_time(detector, data, fitted):
    state = fitted.states["nearest"]
    for weights in (state.map_weights, state.image_weights):
        assert np.isclose(np.sum(weights), 1) and (np.asarray(weights) >= 0).all()
    maps, scores = score(detector, fitted, data.test)
    assert maps.shape[1:] == (64, 64) and np.isfinite(maps).all() and np.isfinite(scores).all()
    again = score(detector, detector.fit(data), data.test)
    np.testing.assert_array_equal(maps, again[0])
    np.testing.assert_array_equal(scores, again[1])


def test_named_streams_are_the_automatic_ones_in_any_order(settings, detector, data, fitted):
    names = ("block14@1.5", "block4@1.5", "block10@1", "block2@1.5", "block14@1", "block10@1.5")
    named = config.resolve(dataclasses.replace(settings, layers=names, grid=None))
    other, _ = run.make_detector(named, run.Resources(Path("unused"), batch_size=4))
    found = other.fit(data)
    jax.tree.map(np.testing.assert_array_equal, found.states, fitted.states)
    expected = score(detector, fitted, data.test)
    jax.tree.map(np.testing.assert_array_equal, score(other, found, data.test), expected)


@pytest.fixture(scope="module")
def unsparing(settings):
    """The detector that leaves maps as they are."""
    plain = dataclasses.replace(settings, halo=0.0, breadth=0.0, image_prior=0.0)
    return run.make_detector(plain, run.Resources(Path("unused"), batch_size=4))[0]


def parts_of(detector, fitted, split):
    """What each stream adds to the maps, halos included."""
    batch = next(detector.batches(split))
    return np.asarray(detector.parts["nearest"](fitted.states["nearest"], batch), np.float64)


def credit(state, scores):
    """What an image's score adds to its map where it is looked at in one way."""
    return 0.4 * np.asarray(state.score_spread[0]) * np.minimum(scores, 1)


def test_defects_lose_their_halos_and_nominal_images_more(detector, unsparing, data, fitted):
    maps, scores = score(detector, fitted, data.test)
    plain, same = score(unsparing, fitted, data.test)
    np.testing.assert_array_equal(scores, same)
    state = jax.device_get(fitted.states["nearest"])
    highest = np.sort(plain.reshape(len(plain), -1))[:, -4:].mean(axis=1)
    nominal = state.score_mean[0] + 2 * state.score_spread[0]
    assert state.halo_above == pytest.approx(nominal, rel=1e-5)
    beyond = np.maximum(highest - nominal, 0)
    assert (beyond > 0).any()
    left = plain.mean(axis=(1, 2)) - 0.2 * beyond
    added = credit(state, scores) + 0.25 * left - 0.2 * beyond
    assert (scores < 1).any() and (scores > 1).any()
    np.testing.assert_allclose(maps, plain + added[:, None, None], atol=1e-3)
    for which in (detector, unsparing):  # of parts no halo is taken off
        np.testing.assert_allclose(parts_of(which, fitted, data.test).sum(axis=0), plain, atol=1e-3)


def test_windows_of_an_image_lose_one_halo(detector, unsparing, data, fitted, rng):
    """Joined from one window an image is what it is as a square; from several, of its own map."""
    scorer, state = detector.scorers["nearest"].__self__, fitted.states["nearest"]
    batch = next(detector.batches(data.test))
    plain, _ = score(unsparing, fitted, data.test)
    windows, both = jax.device_get(scorer.score_windows(state, batch))
    np.testing.assert_allclose(windows, plain, atol=1e-5)
    maps, scores = score(detector, fitted, data.test)
    for i, (whole, of_both) in enumerate(zip(windows, both, strict=True)):
        joined, of_image = scorer.join(state, whole, of_both[None], alone=True)
        np.testing.assert_allclose(joined, maps[i], atol=1e-4)
        assert of_image == pytest.approx(scores[i], abs=1e-4)
    wide = rng.normal(0, 40, (90, 130)).astype(np.float32)
    joined, of_image = scorer.join(state, wide, both[:3], alone=False)
    mean, spread = np.asarray(state.score_mean), np.asarray(state.score_spread)
    # As much as of one window: the more there are, the smaller the share of the whole.
    found = np.sort(wide.ravel())[-4:].mean(), both[:3, 1].max()
    assert of_image == pytest.approx(np.mean((np.array(found) - mean) / spread), rel=1e-4)
    beyond = max(found[0] - (mean[0] + 2 * spread[0]), 0)
    assert beyond > 1
    np.testing.assert_allclose(joined, wide - 0.2 * beyond, atol=1e-3)


def test_image_scores_are_those_of_the_map_and_of_the_streams(unsparing, data, fitted):
    maps, scores = score(unsparing, fitted, data.test)
    parts = parts_of(unsparing, fitted, data.test)
    state = jax.device_get(fitted.states["nearest"])
    streams = parts / state.map_weights[:, None, None, None]

    def highest(found):  # four of 64 x 64 pixels
        return np.sort(found.reshape(*found.shape[:-2], -1))[..., -4:].mean(axis=-1)

    relative = (highest(streams).T - state.image_mean) / state.image_spread
    both = np.stack([highest(maps), relative @ state.image_weights], axis=1)
    expected = ((both - state.score_mean) / state.score_spread).mean(axis=1)
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-3)


def test_nominal_images_score_zero_in_the_mean(detector, data, fitted):
    """Here the test images are taken for nominal ones that no bank has seen."""
    state, batch = fitted.states["nearest"], next(detector.batches(data.test))
    scorer, apart = detector.scorers["nearest"].__self__, np.full(len(batch[0]), -2)
    held = [
        [x.reshape(-1, stream.grid, stream.grid) for x in found]
        for stream, found in zip(
            scorer.streams,
            (
                scorer.held_out(bank, jnp.full(len(bank.atoms), -1), features, apart)
                for bank, features in zip(state.banks, batch, strict=True)
            ),
            strict=True,
        )
    ]
    _, scores = scorer.score(scorer.standard(state, held, None, held_out=True), batch)
    assert np.mean(scores) == pytest.approx(0, abs=1e-3) and np.std(scores) > 0.1


def test_no_test_image_is_looked_at(detector, data, fitted):
    blind = detector.fit(data._replace(test=loading.Split((), (), None)))
    jax.tree.map(np.testing.assert_array_equal, fitted.states, blind.states)


@pytest.mark.slow
def test_one_training_image_is_enough(detector, unsparing, data):
    one = loading.Split(data.train.examples[:1], data.train.hashes[:1], None)
    alone = detector.fit(data._replace(train=one))
    assert any("one training image" in note for note in alone.notes)
    maps, scores = score(detector, alone, data.test)
    assert np.isfinite(maps).all() and np.isfinite(scores).all()
    state = alone.states["nearest"]
    assert np.array_equal(state.score_spread, [1, 1])
    assert state.halo_above == pytest.approx(float(state.score_mean[0]) + 2)
    plain, _ = score(unsparing, alone, data.test)
    highest = np.sort(plain.reshape(len(plain), -1))[:, -4:].mean(axis=1)
    halos = 0.2 * np.maximum(highest - state.halo_above, 0)
    added = credit(state, scores) + 0.25 * (plain.mean(axis=(1, 2)) - halos) - halos
    np.testing.assert_allclose(maps, plain + added[:, None, None], rtol=1e-4, atol=1e-3)
    # In spreads of patches that the banks have not seen: those of atoms themselves are next to 0.
    assert np.abs(scores).max() < 1000
    _, own = score(detector, alone, one)
    assert own < np.median(scores)

    def null(of):  # as the image scores unseen, with one breadth and one prior for all its blocks
        state = alone.states["nearest"]
        seen = nulls.of_looks(of, "nearest", [state], [alone.origins], one, [nulls.BY_BLOCK])
        ((whole,),) = seen
        return whole

    whole, bare = null(detector), null(unsparing)
    assert whole.score == bare.score > own
    added = 0.25 * bare.anomaly_map.mean() + credit(alone.states["nearest"], whole.score)
    assert np.ptp(whole.anomaly_map - bare.anomaly_map) < 1e-3
    assert np.mean(whole.anomaly_map - bare.anomaly_map) == pytest.approx(added, abs=0.01)


def test_training_images_without_any_structure(detector, data):
    flat = tuple(
        datasets.Example(f"{i}", np.full((64, 64, 3), 128, np.uint8), 0, "good", None)
        for i in range(len(data.train.examples))
    )
    split = loading.Split(flat, tuple(loading.content_hash(e.image) for e in flat), None)
    even = detector.fit(data._replace(train=split))
    assert all(np.isfinite(found).all() for found in score(detector, even, data.test))


def test_patches_are_picked_alike_from_every_image():
    picks = fused._pick(jax.random.key(0), np.ones((300, 48**2)))
    assert picks.shape == (300, fused.SAMPLED_PATCHES // 300)
    assert all(len(set(row)) == len(row) for row in picks)
    assert fused._pick(jax.random.key(0), np.ones((2, 16))).shape == (2, 16)


def test_patches_of_padding_are_picked_last(monkeypatch):
    monkeypatch.setattr(fused, "SAMPLED_PATCHES", 30)
    shown = np.tile(np.arange(16) < 12, (3, 1))
    picks = fused._pick(jax.random.key(0), shown)
    assert picks.shape == (3, 10) and picks.max() < 12


@pytest.mark.parametrize(
    "fields,message",
    [
        ({"grid": 4}, "--grid=4 must be left out"),
        ({"sampler": "k_center_stream"}, "--sampler=k_center_stream must be another"),
        ({"layers": ("auto", "block4")}, "--layers=auto,block4 must be auto or fast alone"),
    ],
)
def test_what_does_not_go_together(fields, message):
    with pytest.raises(config.ConfigError, match=message):
        config.resolve(dataclasses.replace(config.Config(), **fields))
