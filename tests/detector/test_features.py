"""The method for features of one's own, against the detector's own way to the same."""

from typing import NamedTuple

import jax
import numpy as np
import pytest

from sgfr_jax import merge_levels, types, unit_norm
from sgfr_jax.detector import features, fitting, splits, synthetic
from sgfr_jax.detector import state as states
from sgfr_jax.detector.method import Method
from sgfr_jax.errors import ArgumentError
from tests.detector import pretended


def levels_of(streams, split):
    """The network's cells as patches, not yet of unit norm, `[B, h, w, D]` for each stream."""
    loaded, found = pretended.NETWORK.load(()), {}
    for size in {stream.image_size for stream in streams}:
        squares = np.stack([one.image for one in splits.iterate(split, size, 16)])
        found[size] = jax.jit(loaded.embed)(loaded.state, squares)
    cells = [found[stream.image_size][stream.levels[0]] for stream in streams]
    return [merge_levels({"level": level}, level.shape[1:3]) for level in cells]


class Embedded(NamedTuple):
    """An embedder that makes the very same patches, of all squares at once."""

    streams: tuple

    @property
    def image_size(self):
        return self.streams[0].image_size

    def batches(self, split):
        found = []
        for stream, level in zip(self.streams, levels_of(self.streams, split), strict=True):
            found.append(np.asarray(unit_norm(level)).reshape(len(level), *stream.shape))
        yield found


@pytest.fixture(scope="module")
def stages(streams):
    embedders = tuple(Embedded(own.streams) for own in streams.stages.embedders)
    return streams.stages._replace(embedders=embedders)


@pytest.fixture(scope="module")
def method(stages):
    return stages.method


@pytest.fixture(scope="module")
def plain(streams, method):
    nominal = levels_of(streams.stages.streams, streams.train)
    return features.fit_banks(jax.random.key(0), nominal, method)


@pytest.fixture(scope="module")
def weighed(streams, method, plain):
    images = np.stack([example.image for example in streams.train.examples])
    with pytest.MonkeyPatch.context() as patch:
        pretended.few_defects(patch)
        drawn = features.draw_defects(jax.random.key(0), images, method)
    nominal, defective = (
        levels_of(streams.stages.streams, split)
        for split in (streams.train, splits.of_arrays(drawn.images))
    )
    look, held = features.calibrate(plain, nominal, method)
    return features.weigh(look, held, defective, drawn.sources, drawn.masks, drawn.groups, method)


def test_it_is_what_a_detector_is_fitted_to(streams, stages, weighed, monkeypatch):
    pretended.few_defects(monkeypatch)
    expected = fitting.fit_one(stages, jax.random.key(0), streams.train, "").looks["nearest"]
    for own, of_detector in zip(jax.tree.leaves(weighed), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(own, of_detector, rtol=1e-6, atol=1e-6)


def test_it_scores_as_the_detector_does(streams, stages, method, weighed):
    score = jax.jit(features.score, static_argnames="method")
    maps, scores = score(weighed, levels_of(stages.streams, streams.test), method=method)
    batch = next(stages.batches(streams.test))
    expected = stages.programs["nearest"].score(weighed, batch)
    np.testing.assert_allclose(maps, expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scores, expected[1], rtol=1e-4, atol=1e-4)
    assert min(scores[3:]) > max(scores[:3])


def test_without_weights_streams_count_alike(streams, method, plain):
    nominal = levels_of(streams.stages.streams, streams.train)
    look, held = features.calibrate(plain, nominal, method)
    np.testing.assert_allclose(look.map_weights, 1 / 3, rtol=1e-6)
    assert len(held.found) == 3 and held.unseen
    jax.tree.map(np.testing.assert_array_equal, look.banks, plain.banks)


def test_the_default_scales_patches_and_takes_a_thousand_atoms_of_each_level(rng):
    levels = [rng.normal(size=(6, side, side, 3)).astype(np.float32) for side in (14, 3)]
    look = features.fit_banks(jax.random.key(0), levels)
    assert [len(bank.atoms) for bank in look.banks] == [1000, 54]
    for bank, origin, level in zip(look.banks, look.origins, levels, strict=True):
        np.testing.assert_allclose(np.linalg.norm(bank.atoms, axis=1), 1, rtol=1e-5)
        patches = unit_norm(level).reshape(6, -1, 3)
        own = patches[np.asarray(origin.images), np.asarray(origin.cells)]
        np.testing.assert_allclose(bank.atoms, own, rtol=1e-5, atol=1e-6)
    assert not look.calibrations


@pytest.mark.parametrize(
    "shapes", [[(2, 4, 3, 5)], [(2, 4, 4)], [(2, 4, 4, 5), (3, 2, 2, 5)]], ids=str
)
def test_levels_that_do_not_fit_are_named_with_their_shapes(shapes):
    levels = [np.zeros(shape, np.float32) for shape in shapes]
    with pytest.raises(ArgumentError, match=r"^levels=\[\(2, 4.* must be \[B, h, w, D\]"):
        features.fit_banks(jax.random.key(0), levels)
    with pytest.raises(ArgumentError, match="of the same images, with h = w"):
        features.score(None, levels, Method())


def test_a_look_is_of_the_levels_and_calibrated():
    levels = [np.zeros((2, 4, 4, 5), np.float32)]
    bank = types.Bank(np.zeros((3, 5), np.float32), np.ones(3, np.float32), np.arange(3))
    look = states.plain_look((bank,), (states.no_origins(3),))
    for call in (features.calibrate, features.score):
        with pytest.raises(ArgumentError, match=r"^levels=\[\] must be one level at least"):
            call(look, [])
        with pytest.raises(ArgumentError, match=r"^`levels` are 2, and `look` has 1 banks"):
            call(look, levels * 2)
        with pytest.raises(ArgumentError, match=r"^look=None must be what `fit_banks`"):
            call(None, levels)
    for call in (features.score, lambda *of: features.weigh(of[0], None, of[1], (), (), ())):
        with pytest.raises(ArgumentError, match=r"^`look` is not calibrated: give what"):
            call(look, levels)
    for call in (features.fit_banks, features.draw_defects):
        with pytest.raises(ArgumentError, match=r"^key=0 must be one random key"):
            call(0, levels)


def test_defects_are_drawn_on_images_of_one_size(rng, monkeypatch):
    pretended.few_defects(monkeypatch)
    grey = np.stack(pretended.images(rng, 3, (40, 48)))
    for images in (grey, np.repeat(grey[..., None], 3, axis=3)):
        drawn = features.draw_defects(jax.random.key(1), images, Method(image_size=32))
        assert drawn.images.shape[1:] == images.shape[1:] and drawn.images.dtype == np.uint8
        assert drawn.masks.shape[1:] == (32, 32) and drawn.masks.any(axis=(1, 2)).all()
        assert 0 < len(drawn.groups) == len(drawn.sources) <= synthetic.num_drawn()
        for image, source in zip(drawn.images, drawn.sources, strict=True):
            assert (image != images[source]).any()
    for wrong in (grey[0], grey.astype(np.float32)):
        with pytest.raises(ArgumentError, match=r"^images=.* must be uint8 \[N, H, W\]"):
            features.draw_defects(jax.random.key(1), wrong)


def test_a_method_of_other_types_is_refused_and_leaves_no_program_to_the_right_one(rng):
    levels = [rng.normal(size=(4, 4, 4, 5)).astype(np.float32)]
    wrong, right = (Method(image_size=16, bank_size=20, num_neighbors=num) for num in (3.0, 3))
    with pytest.raises(ArgumentError, match=r"num_neighbors=3\.0 must be a whole number"):
        features.fit_banks(jax.random.key(0), levels, wrong)
    look = features.fit_banks(jax.random.key(0), levels, right)
    with pytest.raises(ArgumentError, match="num_neighbors"):
        features.calibrate(look, levels, wrong)
    assert features.calibrate(look, levels, right)[0].calibrations
