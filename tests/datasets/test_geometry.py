import itertools
import tracemalloc

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sgfr_jax.datasets import geometry
from sgfr_jax.datasets.geometry import Geometry, Window, assemble, to_size, windows

SIDES = st.integers(1, 400)


def test_windows_by_hand():
    assert windows((60, 100), Geometry()) == (Window((0, 0, 60, 100)),)
    assert windows((60, 100), Geometry("pad")) == (Window((0, 0, 60, 100), (0.6, 1.0)),)
    assert windows((60, 100), Geometry("crop", crop=0.5)) == (Window((15, 35, 45, 65)),)
    tiles = windows((60, 100), Geometry("tile", tile=80, overlap=0.25))
    assert tiles == (
        Window((0, 0, 60, 80), (0.75, 1.0)),
        Window((0, 20, 60, 100), (0.75, 1.0)),
    )


@pytest.mark.parametrize("kind", ["square", "pad", "tile"])
@given(height=SIDES, width=SIDES, tile=st.integers(8, 300), overlap=st.floats(0, 0.5))
@settings(max_examples=60, deadline=None)
def test_windows_cover_the_image_and_nothing_else(kind, height, width, tile, overlap):
    given_geometry = Geometry(kind, tile=tile, overlap=overlap)
    found = windows((height, width), given_geometry)
    seen = np.zeros((height, width), bool)
    for window in found:
        top, left, bottom, right = window.box
        assert 0 <= top < bottom <= height and 0 <= left < right <= width
        assert all(0 < share <= 1 for share in window.extent)
        seen[top:bottom, left:right] = True
    assert seen.all()
    if kind != "square":  # one scale along both sides, the same for all windows
        scales = {
            round(share / (w.box[i + 2] - w.box[i]), 12)
            for w in found
            for i, share in enumerate(w.extent)
        }
        assert len(scales) == 1


@given(height=SIDES, width=SIDES, tile=st.integers(8, 300), overlap=st.floats(0, 0.5))
@settings(max_examples=60, deadline=None)
def test_neighbouring_tiles_overlap_as_asked(height, width, tile, overlap):
    found = windows((height, width), Geometry("tile", tile=tile, overlap=overlap))
    rows = sorted({(w.box[0], w.box[2]) for w in found})
    for (_, end), (begin, _) in itertools.pairwise(rows):
        assert end - begin >= int(overlap * tile) - 1
    # And there are no more of them than needed.
    assert len(rows) <= 1 + -(-max(0, height - tile) // max(1, round(tile * (1 - overlap))))


def test_a_crop_is_in_the_middle():
    (window,) = windows((41, 90), Geometry("crop", crop=0.875))
    top, left, bottom, right = window.box
    assert bottom - top == right - left == 36
    assert abs(top - (41 - bottom)) <= 1 and abs(left - (90 - right)) <= 1


@pytest.mark.parametrize(
    "fields,message",
    [
        ({"kind": "round"}, "kind='round' must be one of square, pad, crop, tile"),
        ({"crop": 0.0}, r"crop=0.0 must be in \(0, 1\]"),
        ({"tile": 0}, "tile=0 must be a positive number"),
        ({"overlap": 1.0}, r"overlap=1.0 must be in \[0, 1\)"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        Geometry(**fields)


def test_the_side_of_tiles_must_be_known():
    with pytest.raises(ValueError, match="the side of a tile must be known"):
        windows((4, 4), Geometry("tile"))


def seen_through(whole, window, size):
    """What a window shows of a map: the reference for its way back."""
    top, left, bottom, right = window.box
    rows, columns = (geometry.filled(share, size) for share in window.extent)
    square = np.full((size, size), 1e9, np.float32)  # what is padded must never come back
    square[:rows, :columns] = to_size(whole[top:bottom, left:right], (rows, columns))
    return square


@pytest.mark.parametrize("kind", ["square", "pad", "tile"])
@given(height=st.integers(20, 200), width=st.integers(20, 200), tile=st.integers(20, 120))
@settings(max_examples=30, deadline=None)
def test_a_smooth_map_comes_back_where_it_was(kind, height, width, tile):
    """Exactly but near borders, where bilinear resizing itself is constant."""
    looks_at = Geometry(kind, tile=tile)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    whole = 2 * rows - 3 * columns
    found = windows(whole.shape, looks_at)
    maps = np.stack([seen_through(whole, window, 64) for window in found])
    back = assemble(maps, found, whole.shape, overlap=looks_at.overlap)
    assert back.shape == whole.shape and back.dtype == np.float32
    step = max(max(b[2] - b[0], b[3] - b[1]) / 64 for b, _ in found)
    assert np.abs(back - whole).max() <= 5 * (step + 1)


def test_tiles_of_one_to_one_scale_come_back_exactly(rng):
    whole = rng.normal(size=(150, 90)).astype(np.float32)
    found = windows(whole.shape, Geometry("tile", tile=64))
    maps = np.stack([seen_through(whole, window, 64) for window in found])
    np.testing.assert_allclose(
        assemble(maps, found, whole.shape, overlap=0.25), whole, rtol=1e-5, atol=1e-6
    )


def test_a_seam_is_blended():
    found = windows((64, 112), Geometry("tile", tile=64, overlap=0.25))
    assert len(found) == 2
    maps = np.stack([np.zeros((64, 64)), np.ones((64, 64))]).astype(np.float32)
    row = assemble(maps, found, (64, 112), overlap=0.25)[30]
    assert row[0] == 0 and row[-1] == 1
    assert np.abs(np.diff(row)).max() < 0.1 and (np.diff(row) >= -1e-6).all()


@given(height=SIDES, width=SIDES, tile=st.integers(8, 300), overlap=st.floats(0, 0.5))
@settings(max_examples=40, deadline=None)
def test_a_pixel_is_the_mean_of_the_windows_that_show_it(height, width, tile, overlap):
    shape = (height, width)
    found = windows(shape, Geometry("tile", tile=tile, overlap=overlap))
    rng = np.random.default_rng(height)
    maps = rng.normal(size=(len(found), 8, 8)).astype(np.float32)
    whole = assemble(maps, found, shape, overlap=overlap)
    pixel = int(rng.integers(height)), int(rng.integers(width))
    weights = geometry.weights_at(pixel, found, shape, overlap=overlap)
    value = 0.0
    for weight, own, window in zip(weights, maps, found, strict=True):
        top, left, bottom, right = window.box
        assert (weight > 0) == (top <= pixel[0] < bottom and left <= pixel[1] < right)
        if weight > 0:
            alone = assemble(own[None], [window], shape)
            value += weight / weights.sum() * alone[pixel]
    assert whole[pixel] == pytest.approx(value, abs=1e-4)
    # Of the others nothing is needed there.
    some = np.flatnonzero(weights)
    of_some = assemble(maps[some], [found[i] for i in some], shape, overlap=overlap)
    assert of_some[pixel] == pytest.approx(whole[pixel], abs=1e-5)


def test_what_a_crop_does_not_show_is_never_anomalous(rng):
    found = windows((50, 80), Geometry("crop", crop=0.6))
    values = rng.normal(size=(1, 32, 32)).astype(np.float32)
    whole = assemble(values, found, (50, 80))
    top, left, bottom, right = found[0].box
    inside = whole[top:bottom, left:right]
    np.testing.assert_allclose(inside, to_size(values[0], (30, 30)), rtol=1e-5, atol=1e-6)
    outside = np.ones((50, 80), bool)
    outside[top:bottom, left:right] = False
    assert (whole[outside] == inside.min()).all()


@pytest.mark.parametrize("shape", [(64, 64), (100, 37), (20, 200), (1, 1)])
def test_a_map_goes_back_to_the_size_of_its_image(rng, shape):
    found = rng.normal(size=(64, 64)).astype(np.float32)
    native = to_size(found, shape)
    assert native.shape == shape and native.dtype == np.float32
    expected = jax.image.resize(found, shape, "bilinear")
    np.testing.assert_allclose(native, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (700, 30), (256, 10), (513, 257)])
def test_a_map_is_resized_as_pillow_does_it_at_once(rng, shape):
    values = rng.normal(size=(64, 48)).astype(np.float32)
    at_once = Image.fromarray(values).resize(shape[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(to_size(values, shape), np.asarray(at_once))


def test_a_pixel_takes_few_bytes_while_maps_are_put_together():
    """4 of the map, its weights and what lies between; 24 without care."""
    shape = (1500, 2000)
    found = windows(shape, Geometry("tile", tile=400))
    maps = np.ones((len(found), 64, 64), np.float32)
    tracemalloc.start()
    assemble(maps, found, shape, overlap=0.25)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / np.prod(shape) < 13
