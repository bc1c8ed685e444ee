import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax.datasets import DatasetError, Example
from sgfr_jax.datasets.geometry import Geometry, to_size
from sgfr_jax.detector import looks, splits
from sgfr_jax.detector.assembly import Whole
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.programs import Programs
from sgfr_jax.detector.services import PLAIN
from sgfr_jax.detector.stages import Stages
from sgfr_jax.detector.state import Nominal, State

SHAPES = [(40, 90), (40, 40), (30, 50)]
SQUARE, TILE = Geometry(), Geometry("tile", tile=40)
SIDE = 8  # of a square's map
PLAINLY = Method(breadth=0.0, image_prior=0.0)
WHOLE = jnp.array([True, True])  # both looks show the image whole


def split_of(shapes):
    examples = tuple(
        Example(f"{i}", np.full(shape, 10 * i, np.uint8), 0, "good", None)
        for i, shape in enumerate(shapes)
    )
    return splits.Split(examples, tuple(f"hash {e.name}" for e in examples), None)


class Numbered(NamedTuple):
    """Gives every square its number for features."""

    def batches(self, split):
        done = 0
        while done < len(split.examples):
            num = min(4, len(split.examples) - done)
            yield [np.arange(done, done + num, dtype=np.float32)]
            done += num


class Factor(NamedTuple):
    """What stands for a look."""

    by: float
    calibrations: tuple = ()


def joined(look, anomaly_map, scores, *, alone):
    return anomaly_map, scores.max()


def of_numbers(score):
    """Stages whose programs score squares by their numbers."""
    programs = Programs(score, score, joined, *[None] * (len(Programs._fields) - 3))
    services = PLAIN._replace(batch_size=4)
    return Stages(PLAINLY, None, (), (Numbered(),), {"own": programs}, services)


def multiples(look, batch, extents):
    del extents
    (numbers,) = batch
    maps = (look.by * numbers)[:, None, None] + jnp.arange(SIDE * SIDE).reshape(1, SIDE, SIDE)
    return maps, look.by * numbers


def alone(factor):
    return State((Factor(factor),), None, jnp.array([True]))


def some(rng, shapes, num=6):
    """What two looks find in some images."""
    return [
        [Whole(rng.normal(3 * i, 1 + i, s).astype(np.float32), np.float32(rng.normal(i, 1 + i)))
         for i, s in enumerate(shapes)] for _ in range(num)
    ]  # fmt: skip


def test_one_look_is_left_as_it_is():
    split, spent = splits.laid(split_of(SHAPES), [SQUARE]), []

    def tell(solver, seconds):
        spent.append((solver, seconds))

    found = list(looks.whole_images(split, of_numbers(multiples), {"own": alone(2)}, tell))
    assert [one.score for (one,) in found] == [0, 2, 4]
    assert [solver for solver, _ in spent] == ["own"] and spent[0][1] > 0
    for i, (one,) in enumerate(found):
        wanted, _ = multiples(Factor(2), [np.array([i])], None)
        np.testing.assert_array_equal(one.anomaly_map, wanted[0])
    assert looks.scales(alone(2)) == [(0.0, 1.0)]


def test_several_looks_are_standardized_and_averaged(rng):
    split = splits.laid(split_of(SHAPES), [SQUARE, TILE])
    nominal = Nominal(*(jnp.asarray(rng.uniform(1, 2, 2), jnp.float32) for _ in range(4)))
    state = State((Factor(2.0), Factor(-1.0)), nominal, WHOLE)
    stages = of_numbers(multiples)
    found = list(looks.whole_images(split, stages, {"own": state}))
    each = [
        [one for (one,) in looks.whole_images(look, stages, {"own": alone(of_look.by)})]
        for look, of_look in zip(splits.looks(split), state.looks, strict=True)
    ]
    assert len(found) == 3
    mean, spread, score_mean, score_spread = (np.asarray(x, float) for x in nominal)
    for shape, (whole,), *parts in zip(SHAPES, found, *each, strict=True):
        assert parts[0].anomaly_map.shape == (SIDE, SIDE) and whole.anomaly_map.shape == shape
        maps = [
            (to_size(part.anomaly_map, shape).astype(float) - mean[i]) / spread[i]
            for i, part in enumerate(parts)
        ]
        np.testing.assert_allclose(whole.anomaly_map, sum(maps) / 2, atol=1e-4)
        scores = [(p.score - score_mean[i]) / score_spread[i] for i, p in enumerate(parts)]
        assert whole.score == pytest.approx(sum(scores) / 2, abs=1e-5)
    np.testing.assert_allclose(looks.scales(state), np.stack([mean, 2 * spread], axis=1), rtol=1e-6)


@pytest.mark.parametrize(
    "scores,expected",
    [((1.0, 0.5, 2.9), 0.75), ((1.0, 0.5, 7.0), 4.75), ((-3.0, 1.0, -9.0), -1.0)],
)
def test_tiles_have_a_say_in_scores_where_they_are_far_from_nominal(scores, expected):
    nominal = Nominal(jnp.zeros(3), jnp.ones(3), jnp.array([0, 2, 1.0]), jnp.array([1, 2, 4]))
    state = State((None,) * 3, nominal, jnp.array([True, True, False]))
    own = np.array(scores, np.float32) * nominal.score_spread + nominal.score_mean
    found = [Whole(np.zeros((4, 4), np.float32), score) for score in own]
    assert looks.together(PLAINLY, state, found).score == pytest.approx(expected, abs=1e-6)
    found[2] = found[2]._replace(score=np.float32(np.nan))
    assert np.isnan(looks.together(PLAINLY, state, found).score)


def test_a_map_is_lowered_where_its_image_looks_nominal(rng):
    nominal = Nominal(*(jnp.asarray(rng.uniform(1, 2, 2), jnp.float32) for _ in range(4)))
    state, prior = (
        State((None, None), nominal, WHOLE),
        dataclasses.replace(PLAINLY, image_prior=0.4),
    )
    for found in some(rng, [(8, 8), (8, 8)]):
        plain, lowered = looks.together(PLAINLY, state, found), looks.together(prior, state, found)
        added = 0.4 * min(plain.score, 1)
        assert lowered.score == plain.score
        np.testing.assert_allclose(lowered.anomaly_map, plain.anomaly_map + added, atol=1e-5)
    (one, _), *_ = some(rng, [(8, 8), (8, 8)])
    lone = looks.together(prior, alone(1), [one])  # nothing is known of nominal maps
    np.testing.assert_array_equal(lone.anomaly_map, one.anomaly_map)


def test_a_map_that_is_high_all_over_is_raised_once_for_all_looks(rng):
    nominal = Nominal(*(jnp.asarray(rng.uniform(1, 2, 2), jnp.float32) for _ in range(4)))
    state, broad = State((None, None), nominal, WHOLE), dataclasses.replace(PLAINLY, breadth=0.25)
    for found in some(rng, [(8, 8), (16, 24)]):
        plain, raised = looks.together(PLAINLY, state, found), looks.together(broad, state, found)
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
    state = State((None, None), nominal, WHOLE)
    scores = [looks.together(PLAINLY, state, one).score for one in found]
    assert np.mean(scores) == pytest.approx(0, abs=1e-5)


def test_scores_alone_come_together_as_with_their_maps(rng):
    found = some(rng, [(8, 8), (16, 24)])
    nominal = looks.nominal(np.array([looks.summary(one) for one in found]))
    state = State((None, None), nominal, WHOLE)
    scores = np.array([[one.score for one in of_image] for of_image in found], np.float32)
    expected = [looks.together(PLAINLY, state, of_image).score for of_image in found]
    np.testing.assert_array_equal(looks.score_together(state, scores), expected)
    np.testing.assert_array_equal(looks.score_together(alone(1), scores[:, :1]), scores[:, 0])


def test_looks_count_alike_whatever_their_scale(rng):
    found = some(rng, [(8, 8), (8, 8)])
    scaled = [
        [one[0], Whole(100 * one[1].anomaly_map + 7, 100 * one[1].score + 7)] for one in found
    ]
    wholes = []
    for images in (found, scaled):
        nominal = looks.nominal(np.array([looks.summary(one) for one in images]))
        state = State((None, None), nominal, WHOLE)
        wholes.append([looks.together(PLAINLY, state, one) for one in images])
    for plain, other in zip(*wholes, strict=True):
        np.testing.assert_allclose(plain.anomaly_map, other.anomaly_map, atol=1e-3)
        assert plain.score == pytest.approx(other.score, abs=1e-3)


@pytest.mark.parametrize("num", [1, 3])
def test_images_without_a_difference_leave_deviations_as_they_are(num):
    alike = [Whole(np.full((4, 4), 5.0, np.float32), np.float32(2))] * 2
    nominal = looks.nominal(np.array([looks.summary(alike)] * num))
    np.testing.assert_array_equal(nominal.map_spread, 1)
    np.testing.assert_array_equal(nominal.score_spread, 1)
    whole = looks.together(PLAINLY, State((None, None), nominal, WHOLE), alike)
    assert whole.score == 0 and not whole.anomaly_map.any()


def test_a_score_that_is_not_finite_names_its_image():
    def bad(look, batch, extents):
        maps, scores = multiples(look, batch, extents)
        return maps, jnp.where(batch[0] == 2, jnp.nan, scores)

    split = splits.laid(split_of(SHAPES), [SQUARE])
    found = list(looks.whole_images(split, of_numbers(bad), {"own": alone(1)}))
    for example, of_image in zip(split.examples[:2], found, strict=False):
        looks.check_finite(example, of_image)
    with pytest.raises(DatasetError, match="2: its score is not finite"):
        looks.check_finite(split.examples[2], found[2])


def test_no_images_have_no_wholes():
    state = State((Factor(0.0),) * 2, Nominal(*[jnp.zeros(2)] * 4), WHOLE)
    split = splits.laid(split_of([]), [SQUARE, TILE])
    assert not list(looks.whole_images(split, of_numbers(multiples), {"own": state}))
