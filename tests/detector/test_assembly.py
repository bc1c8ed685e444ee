import numpy as np
import pytest

from sgfr_jax.datasets import Example
from sgfr_jax.datasets.geometry import Geometry, assemble
from sgfr_jax.detector import assembly, geometries, splits, stages
from sgfr_jax.detector.programs import Programs
from sgfr_jax.detector.services import PLAIN
from tests.detector import pretended

FOUR = PLAIN._replace(batch_size=4)


def split_of(shapes):
    examples = tuple(
        Example(f"{i}", np.zeros((*shape, 3), np.uint8), 0, "good", None)
        for i, shape in enumerate(shapes)
    )
    return splits.Split(examples, tuple(f"hash {e.name}" for e in examples), None)


SHAPES = [(40, 40), (40, 90), (20, 30), (90, 90)]
TILES = Geometry("tile", tile=40, overlap=0.1)


def joined_plainly(look, anomaly_map, scores, *, alone):
    return anomaly_map, scores.max()


def programs(score="whole", score_windows="windows", join=joined_plainly):
    unused = [None] * (len(Programs._fields) - 3)
    return Programs(score, score_windows, join, *unused)


def assembled(split, of=None, *, alone=True, at_once=True):
    return assembly.Assembly(split, of or programs(), "look", alone=alone, at_once=at_once)


def test_full_squares_pass_through(rng):
    whole = assembled(split_of(SHAPES))
    maps, scores = rng.normal(size=(3, 8, 8)), rng.normal(size=3)
    found = whole.add(maps, scores)
    np.testing.assert_array_equal([one.anomaly_map for one in found], maps)
    np.testing.assert_array_equal([one.score for one in found], scores)


@pytest.mark.parametrize("at_a_time", [1, 3, 100])
def test_images_come_as_soon_as_they_are_whole(rng, at_a_time):
    split = splits.with_windows(split_of(SHAPES), TILES)
    num = splits.num_views(split)
    assert [len(own) for own in split.windows] == [1, 3, 1, 9] and num == 14
    maps = rng.normal(size=(num, 16, 16)).astype(np.float32)
    scores = rng.normal(size=num)
    wholes, found = assembled(split), []
    for begin in range(0, num, at_a_time):
        some = slice(begin, begin + at_a_time)
        found += wholes.add(maps[some], scores[some])
    first = 0
    for i, (shape, own) in enumerate(zip(SHAPES, split.windows, strict=True)):
        mine = slice(first, first + len(own))
        assert found[i].score == scores[mine].max()
        expected = assemble(maps[mine], own, shape, overlap=TILES.overlap)
        np.testing.assert_array_equal(found[i].anomaly_map, expected)
        first += len(own)


def test_windows_are_joined_by_the_programs(rng):
    split = splits.with_windows(split_of(SHAPES), TILES)
    seen = []

    def join(look, anomaly_map, scores, *, alone):
        seen.append((look, anomaly_map.shape, scores.shape, alone))
        return anomaly_map + 1, scores.sum()

    whole = assembled(split, programs(join=join))
    assert whole.score == "windows"
    maps, scores = rng.normal(size=(14, 8, 8)).astype(np.float32), rng.normal(size=(14, 2))
    found = whole.add(maps, scores)
    assert [one.score for one in found] == pytest.approx(
        [scores[own].sum() for own in (slice(0, 1), slice(1, 4), slice(4, 5), slice(5, 14))]
    )
    plain = assembled(split).add(maps, scores)
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_array_equal(one.anomaly_map, other.anomaly_map + 1)
    assert seen == [("look", s, (n, 2), True) for s, n in zip(SHAPES, (1, 3, 1, 9), strict=True)]


@pytest.mark.parametrize("alone,at_once", [(False, True), (True, False)])
def test_a_square_is_joined_where_its_map_as_a_whole_decides(rng, alone, at_once):
    seen = []

    def join(look, anomaly_map, scores, *, alone):
        seen.append((look, anomaly_map.shape, scores.shape, alone))
        return anomaly_map, scores.sum()

    whole = assembled(split_of(SHAPES), programs(join=join), alone=alone, at_once=at_once)
    assert whole.score == "windows"
    maps, scores = rng.normal(size=(4, 8, 8)).astype(np.float32), rng.normal(size=(4, 2))
    found = whole.add(maps, scores)  # images that are one square each
    assert [one.score for one in found] == list(scores.sum(axis=1))
    assert seen == [("look", (8, 8), (1, 2), alone)] * 4


def test_a_square_that_is_all_is_scored_at_once():
    assert assembled(split_of(SHAPES)).score == "whole"


def test_batches_are_padded_to_one_shape(rng):
    split = splits.with_windows(split_of(SHAPES), TILES)
    made = stages.make(pretended.settled(layers=("fine",)), pretended.NETWORK, FOUR)
    seen = splits.views(split)
    found = list(assembly.batches(made, seen))
    assert [batch.num for batch in found] == [4, 4, 4, 2]
    assert {batch.patches[0].shape for batch in found} == {(4, 64, 5)}
    extents = np.concatenate([batch.extents[: batch.num] for batch in found])
    np.testing.assert_array_equal(extents, seen.extents)
    assert not found[-1].extents[2:].any() and not np.any(found[-1].patches[0][2:])
    assert not list(assembly.batches(made, splits.views(split.take([]))))


def test_views_know_their_images():
    split = splits.with_windows(split_of(SHAPES), TILES)
    seen = splits.views(split)
    np.testing.assert_array_equal(seen.owners, [0, 1, 1, 1, 2] + [3] * 9)
    assert seen.extents.shape == (14, 2) and (seen.extents[4] == [0.5, 0.75]).all()
    names = [example.name for example in seen.split.examples]
    assert names == [f"{owner}" for owner in seen.owners]
    assert len(set(seen.split.hashes)) == 14  # windows of an image are embedded each
    some = splits.views(split.take([1, 2]))
    np.testing.assert_array_equal(some.owners, [0, 0, 0, 1])


def test_full_views_need_no_extents():
    split = splits.with_windows(split_of([(40, 40), (40, 90)]), TILES)
    assert splits.views(split).extents is None
    plain = splits.views(split_of(SHAPES))
    assert plain.extents is None and plain.split == split_of(SHAPES)._replace(
        examples=plain.split.examples
    )


def test_a_crop_is_an_image_of_its_own():
    split = splits.with_windows(split_of([(40, 90)]), Geometry("crop", crop=0.5))
    assert split.windows is None and split.examples[0].window.box == (10, 35, 30, 55)
    assert split.hashes != split_of([(40, 90)]).hashes


def test_images_are_looked_at_in_every_way_that_differs():
    kinds = [Geometry("square", tile=40), Geometry("tile", tile=40)]
    squares = split_of([(40, 40)] * 3)
    ((kind, train, test),) = geometries.different(kinds, squares, split_of([(40, 40)]))
    assert kind == kinds[0] and train.windows is None and test.windows is None
    found = geometries.different(kinds, squares, split_of([(40, 90)]))
    assert [kind for kind, _, _ in found] == kinds
    (_, _, first), (_, _, second) = found
    assert first.windows is None and len(second.windows[0]) == 3
    laid = splits.laid(split_of([(40, 90)]), kinds)
    assert splits.looks(laid)[1].windows == laid.take([0]).also[0].windows == second.windows
