import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax.datasets import DatasetError, Example
from sgfr_jax.datasets.geometry import Geometry, to_size
from sgfr_jax.detector import detectors, loading, looks
from sgfr_jax.detector.assembly import Whole

SHAPES = [(40, 90), (40, 40), (30, 50)]
SQUARE, TILE = Geometry(), Geometry("tile", tile=40)
SIDE = 8  # of a square's map
DETECTOR = detectors.Detector(None, None, {}, 4)
WHOLE = jnp.array([True, True])  # both looks show the image whole


def split_of(shapes):
    examples = tuple(
        Example(f"{i}", np.full(shape, 10 * i, np.uint8), 0, "good", None)
        for i, shape in enumerate(shapes)
    )
    return loading.Split(examples, tuple(f"hash {e.name}" for e in examples), None)


def of_numbers(score):
    """A detector that gives every square its number for features."""

    def batches(split):
        done = 0
        while done < len(split.examples):
            num = min(4, len(split.examples) - done)
            yield np.arange(done, done + num, dtype=np.float32)
            done += num

    return detectors.Detector(lambda category: None, batches, {"own": score}, 4)


def multiples(state, batch, extents):
    del extents
    maps = (state * batch)[:, None, None] + jnp.arange(SIDE * SIDE).reshape(1, SIDE, SIDE)
    return maps, state * batch


def some(rng, shapes, num=6):
    """What two looks find in some images."""
    return [
        [Whole(rng.normal(3 * i, 1 + i, s).astype(np.float32), np.float32(rng.normal(i, 1 + i)))
         for i, s in enumerate(shapes)] for _ in range(num)
    ]  # fmt: skip


def test_one_look_is_left_as_it_is():
    split, state = loading.laid(split_of(SHAPES), [SQUARE]), jnp.float32(2)
    seconds = [0.0]
    found = list(looks.whole_images(split, of_numbers(multiples), {"own": state}, seconds))
    assert [one.score for (one,) in found] == [0, 2, 4] and seconds[0] > 0
    for i, (one,) in enumerate(found):
        np.testing.assert_array_equal(one.anomaly_map, multiples(2, np.array([i]), None)[0][0])
    assert looks.states(state) == (state,)


def test_several_looks_are_standardized_and_averaged(rng):
    split = loading.laid(split_of(SHAPES), [SQUARE, TILE])
    nominal = looks.Nominal(*(jnp.asarray(rng.uniform(1, 2, 2), jnp.float32) for _ in range(4)))
    state = looks.Several((jnp.float32(2), jnp.float32(-1)), nominal, WHOLE)
    detector = of_numbers(multiples)
    found = list(looks.whole_images(split, detector, {"own": state}, [0.0]))
    each = [
        [one for (one,) in looks.whole_images(look, detector, {"own": of_look}, [0.0])]
        for look, of_look in zip(loading.looks(split), state.looks, strict=True)
    ]
    assert len(found) == 3
    for shape, (whole,), *parts in zip(SHAPES, found, *each, strict=True):
        assert parts[0].anomaly_map.shape == (SIDE, SIDE) and whole.anomaly_map.shape == shape
        mean, spread, score_mean, score_spread = (np.asarray(x, float) for x in nominal)
        maps = [
            (to_size(part.anomaly_map, shape).astype(float) - mean[i]) / spread[i]
            for i, part in enumerate(parts)
        ]
        np.testing.assert_allclose(whole.anomaly_map, sum(maps) / 2, atol=1e-4)
        scores = [(p.score - score_mean[i]) / score_spread[i] for i, p in enumerate(parts)]
        assert whole.score == pytest.approx(sum(scores) / 2, abs=1e-5)


@pytest.mark.parametrize(
    "scores,expected",
    [((1.0, 0.5, 2.9), 0.75), ((1.0, 0.5, 7.0), 4.75), ((-3.0, 1.0, -9.0), -1.0)],
)
def test_tiles_have_a_say_in_scores_where_they_are_far_from_nominal(scores, expected):
    nominal = looks.Nominal(jnp.zeros(3), jnp.ones(3), jnp.array([0, 2, 1.0]), jnp.array([1, 2, 4]))
    state = looks.Several((0,) * 3, nominal, jnp.array([True, True, False]))
    own = np.array(scores, np.float32) * nominal.score_spread + nominal.score_mean
    found = [Whole(np.zeros((4, 4), np.float32), score) for score in own]
    assert looks.together(DETECTOR, state, found).score == pytest.approx(expected, abs=1e-6)
    found[2] = found[2]._replace(score=np.float32(np.nan))
    assert np.isnan(looks.together(DETECTOR, state, found).score)


def test_a_map_is_lowered_where_its_image_looks_nominal(rng):
    nominal = looks.Nominal(*(jnp.asarray(rng.uniform(1, 2, 2), jnp.float32) for _ in range(4)))
    state, prior = looks.Several((0, 0), nominal, WHOLE), DETECTOR._replace(image_prior=0.4)
    for found in some(rng, [(8, 8), (8, 8)]):
        plain, lowered = looks.together(DETECTOR, state, found), looks.together(prior, state, found)
        added = 0.4 * min(plain.score, 1)
        assert lowered.score == plain.score
        np.testing.assert_allclose(lowered.anomaly_map, plain.anomaly_map + added, atol=1e-5)
    (one, _), *_ = some(rng, [(8, 8), (8, 8)])
    alone = looks.together(prior, jnp.float32(1), [one])  # nothing is known of nominal maps
    np.testing.assert_array_equal(alone.anomaly_map, one.anomaly_map)


def test_a_map_that_is_high_all_over_is_raised_once_for_all_looks(rng):
    nominal = looks.Nominal(*(jnp.asarray(rng.uniform(1, 2, 2), jnp.float32) for _ in range(4)))
    state, broad = looks.Several((0, 0), nominal, WHOLE), DETECTOR._replace(breadth=0.25)
    for found in some(rng, [(8, 8), (16, 24)]):
        plain, raised = looks.together(DETECTOR, state, found), looks.together(broad, state, found)
        assert raised.score == plain.score
        added = 0.25 * plain.anomaly_map.mean(dtype=float)
        np.testing.assert_allclose(raised.anomaly_map, plain.anomaly_map + added, atol=1e-5)


def test_nominal_images_have_mean_0_and_spread_1_in_every_look(rng):
    found = some(rng, [(8, 8), (16, 24)])
    nominal = looks.nominal(np.array([looks.summary(one) for one in found]))
    for i in range(2):
        maps = np.stack([one[i].anomaly_map for one in found]).astype(float)
        assert nominal.map_mean[i] == pytest.approx(maps.mean(), rel=1e-5)
        assert nominal.map_spread[i] == pytest.approx(maps.std(), rel=1e-5)
        scores = np.array([one[i].score for one in found], float)
        assert nominal.score_mean[i] == pytest.approx(scores.mean(), rel=1e-5)
        assert nominal.score_spread[i] == pytest.approx(scores.std(), rel=1e-5)
    state = looks.Several((None, None), nominal, WHOLE)
    scores = [looks.together(DETECTOR, state, one).score for one in found]
    assert np.mean(scores) == pytest.approx(0, abs=1e-5)


def test_scores_alone_come_together_as_with_their_maps(rng):
    found = some(rng, [(8, 8), (16, 24)])
    nominal = looks.nominal(np.array([looks.summary(one) for one in found]))
    state = looks.Several((0, 0), nominal, WHOLE)
    scores = np.array([[one.score for one in of_image] for of_image in found], np.float32)
    expected = [looks.together(DETECTOR, state, of_image).score for of_image in found]
    np.testing.assert_array_equal(looks.score_together(state, scores), expected)
    np.testing.assert_array_equal(looks.score_together(0, scores[:, :1]), scores[:, 0])


def test_looks_count_alike_whatever_their_scale(rng):
    found = some(rng, [(8, 8), (8, 8)])
    scaled = [
        [one[0], Whole(100 * one[1].anomaly_map + 7, 100 * one[1].score + 7)] for one in found
    ]
    wholes = []
    for images in (found, scaled):
        nominal = looks.nominal(np.array([looks.summary(one) for one in images]))
        state = looks.Several((0, 0), nominal, WHOLE)
        wholes.append([looks.together(DETECTOR, state, one) for one in images])
    for plain, other in zip(*wholes, strict=True):
        np.testing.assert_allclose(plain.anomaly_map, other.anomaly_map, atol=1e-3)
        assert plain.score == pytest.approx(other.score, abs=1e-3)


@pytest.mark.parametrize("num", [1, 3])
def test_images_without_a_difference_leave_deviations_as_they_are(num):
    alike = [Whole(np.full((4, 4), 5.0, np.float32), np.float32(2))] * 2
    nominal = looks.nominal(np.array([looks.summary(alike)] * num))
    np.testing.assert_array_equal(nominal.map_spread, 1)
    np.testing.assert_array_equal(nominal.score_spread, 1)
    whole = looks.together(DETECTOR, looks.Several((0, 0), nominal, WHOLE), alike)
    assert whole.score == 0 and not whole.anomaly_map.any()


def test_a_score_that_is_not_finite_names_its_image():
    def bad(state, batch, extents):
        maps, scores = multiples(state, batch, extents)
        return maps, jnp.where(batch == 2, jnp.nan, scores)

    split = loading.laid(split_of(SHAPES), [SQUARE])
    found = list(looks.whole_images(split, of_numbers(bad), {"own": jnp.float32(1)}, [0.0]))
    for example, of_image in zip(split.examples[:2], found, strict=False):
        looks.check_finite(example, of_image)
    with pytest.raises(DatasetError, match="2: its score is not finite"):
        looks.check_finite(split.examples[2], found[2])


def test_no_images_have_no_wholes():
    state = looks.Several((0, 0), looks.Nominal(*[jnp.zeros(2)] * 4), WHOLE)
    split = loading.laid(split_of([]), [SQUARE, TILE])
    assert not list(looks.whole_images(split, of_numbers(multiples), {"own": state}, [0.0]))


def test_a_state_is_placed_look_by_look():
    nominal = looks.Nominal(*[jnp.zeros(2)] * 4)
    placed = looks.each(lambda state: state + 1, looks.Several((1, 2), nominal, WHOLE))
    assert placed.looks == (2, 3) and placed.nominal is nominal
    assert looks.each(lambda state: state + 1, 1) == 2
