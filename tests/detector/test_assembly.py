import numpy as np
import pytest

from sgfr_jax.commands.flags import config
from sgfr_jax.datasets import Example
from sgfr_jax.datasets.geometry import Geometry, assemble
from sgfr_jax.detector import assembly, detectors, loading


def split_of(shapes):
    examples = tuple(
        Example(f"{i}", np.zeros((*shape, 3), np.uint8), 0, "good", None)
        for i, shape in enumerate(shapes)
    )
    return loading.Split(examples, tuple(f"hash {e.name}" for e in examples), None)


SHAPES = [(40, 40), (40, 90), (20, 30), (90, 90)]
TILES = Geometry("tile", tile=40, overlap=0.1)


def assembled(split, windowed=None, *, alone=True):
    detector = detectors.Detector(None, None, {"own": None}, 4, windowed or {})
    return assembly.Assembly(split, detector, "own", "state", alone=alone)


def test_full_squares_pass_through(rng):
    whole = assembled(split_of(SHAPES))
    maps, scores = rng.normal(size=(3, 8, 8)), rng.normal(size=3)
    found = whole.add(maps, scores)
    np.testing.assert_array_equal([one.anomaly_map for one in found], maps)
    np.testing.assert_array_equal([one.score for one in found], scores)


@pytest.mark.parametrize("at_a_time", [1, 3, 100])
def test_images_come_as_soon_as_they_are_whole(rng, at_a_time):
    split = loading.with_windows(split_of(SHAPES), TILES)
    num = loading.num_views(split)
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


def test_a_detector_may_join_windows_its_own_way(rng):
    split = loading.with_windows(split_of(SHAPES), TILES)
    seen = []

    def join(state, anomaly_map, scores, *, alone):
        seen.append((state, anomaly_map.shape, scores.shape, alone))
        return anomaly_map + 1, scores.sum()

    of_windows = object()
    windowed = {"own": detectors.Windowed(of_windows, join)}
    whole = assembled(split, windowed)
    assert whole.score is of_windows
    maps, scores = rng.normal(size=(14, 8, 8)).astype(np.float32), rng.normal(size=(14, 2))
    found = whole.add(maps, scores)
    assert [one.score for one in found] == pytest.approx(
        [scores[own].sum() for own in (slice(0, 1), slice(1, 4), slice(4, 5), slice(5, 14))]
    )
    plain = assembled(split).add(maps, scores)
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_array_equal(one.anomaly_map, other.anomaly_map + 1)
    assert seen == [("state", s, (n, 2), True) for s, n in zip(SHAPES, (1, 3, 1, 9), strict=True)]
    seen.clear()
    one_of_several = assembled(split_of(SHAPES), windowed, alone=False)
    assert one_of_several.score is of_windows
    found = one_of_several.add(maps[:4], scores[:4])  # images that are one square each
    assert [one.score for one in found] == list(scores[:4].sum(axis=1))
    assert seen == [("state", (8, 8), (1, 2), False)] * 4
    assert assembled(split_of(SHAPES), windowed).score is None  # the detector's own does all


def test_views_know_their_images():
    split = loading.with_windows(split_of(SHAPES), TILES)
    seen = loading.views(split)
    np.testing.assert_array_equal(seen.owners, [0, 1, 1, 1, 2] + [3] * 9)
    assert seen.extents.shape == (14, 2) and (seen.extents[4] == [0.5, 0.75]).all()
    names = [example.name for example in seen.split.examples]
    assert names == [f"{owner}" for owner in seen.owners]
    assert len(set(seen.split.hashes)) == 14  # windows of an image are embedded each
    some = loading.views(split.take([1, 2]))
    np.testing.assert_array_equal(some.owners, [0, 0, 0, 1])


def test_full_views_need_no_extents():
    split = loading.with_windows(split_of([(40, 40), (40, 90)]), TILES)
    assert loading.views(split).extents is None
    plain = loading.views(split_of(SHAPES))
    assert plain.extents is None and plain.split == split_of(SHAPES)._replace(
        examples=plain.split.examples
    )


def test_a_crop_is_an_image_of_its_own():
    split = loading.with_windows(split_of([(40, 90)]), Geometry("crop", crop=0.5))
    assert split.windows is None and split.examples[0].window.box == (10, 35, 30, 55)
    assert split.hashes != split_of([(40, 90)]).hashes


def test_a_category_is_looked_at_in_every_way_that_differs():
    settings = config.Config(geometry="square+tile", tile=40)
    squares = loading.Checked("cap", split_of([(40, 40)] * 3), split_of([(40, 40)]), ())
    seen = loading._with_windows(squares, settings)
    assert seen.geometries == (Geometry("square", tile=40),) and not seen.train.also
    others = squares._replace(test=split_of([(40, 90)]))
    seen = loading._with_windows(others, settings)
    assert [geometry.kind for geometry in seen.geometries] == ["square", "tile"]
    first, second = seen.looks()
    assert first.test.windows is None and len(second.test.windows[0]) == 3
    some = seen.test.take([0])
    assert some.also[0].windows == second.test.windows
