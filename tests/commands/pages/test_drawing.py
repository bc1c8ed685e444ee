"""Pictures at a limited size: what they show, and what they take."""

import contextlib
import json
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sgfr_jax import thresholds
from sgfr_jax.commands.files import prediction, written
from sgfr_jax.commands.pages import (
    contours,
    drawing,
    figures,
    predictions,
)
from sgfr_jax.datasets.geometry import to_size
from sgfr_jax.detector import state as nulls

SCALE = figures.Scale(0.0, 2.0, 1.0)


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(2) as found:
        yield found


def blob(height, width):
    """A map of one round defect, 3 at its middle, right of the middle and above it."""
    rows, columns = np.ogrid[:height, :width]
    distance = np.hypot((rows + 0.5) / height - 0.3, (columns + 0.5) / width - 0.6)
    return (3 - 15 * distance).astype(np.float32)


def photograph(height, width, channels, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (40, 40, channels), dtype=np.uint8)
    large = Image.fromarray(small.squeeze()).resize((width, height))
    return np.asarray(large)


@pytest.mark.parametrize(
    "image, scale, expected",
    [
        ((1080, 1920), None, (1080, 1920)),
        ((3000, 4000), 1.0, (3000, 4000)),
        ((3000, 4000), 0.25, (750, 1000)),
        ((5, 5), 0.01, (1, 1)),
    ],
)
def test_the_size_of_pictures(image, scale, expected):
    assert drawing.shape_of(image, scale) == expected


@pytest.mark.parametrize("image", [(3000, 4000), (5000, 5000), (1, 3_000_000), (1081, 1941)])
def test_large_images_are_drawn_smaller(image):
    shape = drawing.shape_of(image)
    assert np.prod(shape) == pytest.approx(drawing.PIXELS_OF_LARGE, rel=0.01) or 1 in shape
    assert np.divide(*shape) == pytest.approx(np.divide(*image), rel=0.01) or 1 in shape


@pytest.mark.parametrize("shape", [(300, 400), (131, 97), (128, 50), (1, 7), (600, 7)])
@pytest.mark.parametrize("channels", [1, 3])
def test_strips_make_the_picture_that_one_piece_would(pool, shape, channels):
    """Pillow's whole resizing, and the blend in float64, are the reference."""
    image, anomaly_map = photograph(600, 800, channels), blob(*shape)
    drawn = np.asarray(drawing.overlay(image, anomaly_map, SCALE, pool), int)
    whole = Image.fromarray(image).convert("RGB").resize(shape[::-1], Image.Resampling.BOX)
    share = np.clip(anomaly_map.astype(float) / 2, 0, 1)[..., None]
    heat = figures.colourise(anomaly_map, 0.0, 2.0)
    expected = np.asarray(whole) * (1 - 0.6 * share) + heat * (0.6 * share)
    outlined = figures.outline(anomaly_map > 1.0)
    assert (drawn[outlined] == figures.OUTLINE).all()
    difference = np.abs(drawn - expected)[~outlined]
    assert difference.max() <= 2.5  # 256 levels of the map, and rounding


def test_an_image_of_the_maps_size_is_not_resized(pool):
    image, nothing = photograph(200, 300, 3), np.zeros((200, 300), np.float32)
    np.testing.assert_array_equal(drawing.overlay(image, nothing, SCALE, pool), image)


def test_outlines_are_given_in_pixels_of_the_image():
    large, small = (1200, 900), (400, 300)
    (exact,) = contours.regions(blob(*large), 1.0)
    (found,) = contours.regions(blob(*small), 1.0)
    found = contours.enlarged(found, small, large)
    assert found.area == pytest.approx(exact.area, rel=0.02)
    np.testing.assert_allclose(found.box, exact.box, atol=6)
    left, top, width, height = found.box
    x, y = found.polygon.T
    assert left <= x.min() and x.max() <= left + width <= large[1]
    assert top <= y.min() and y.max() <= top + height <= large[0]
    assert contours.enlarged(found, large, large) is found


@contextlib.contextmanager
def writer(directory, **values):
    tally = thresholds.tally(np.arange(5.0))
    asked = {"maps": "png", "overlays": True, "outlines": True} | values
    decisions = predictions.Decisions(3.0, 1.0)
    with written.opened(directory, "--output_dir", "predict") as output:
        made = predictions.Writer(output, nulls.Nulls(tally, tally), decisions, **asked)
        yield made
        made.finish({})


def predicted(tmp_path, image, anomaly_map):
    source = prediction.Source(tmp_path / "a.png", "a.png")
    return prediction.Predicted(source, image, anomaly_map, 9.0)


@pytest.mark.parametrize("output_scale, shape", [(None, (991, 1322)), (1.0, (1800, 2400))])
def test_what_is_written_of_a_large_image(tmp_path, output_scale, shape):
    """Maps and overlays at the size of pictures, outlines in pixels of the image."""
    image, anomaly_map = photograph(1800, 2400, 3), blob(64, 64)
    with writer(tmp_path / "out", output_scale=output_scale) as made:
        made.add(predicted(tmp_path, image, anomaly_map))
    found = predictions.read_png(tmp_path / "out" / "maps" / "a.png.png")
    np.testing.assert_allclose(found, to_size(anomaly_map, shape), atol=1e-3)
    with Image.open(tmp_path / "out" / "overlays" / "a.png.png") as overlay:
        assert overlay.size == shape[::-1]
    told = json.loads((tmp_path / "out" / "contours.json").read_text())
    assert (told["images"][0]["height"], told["images"][0]["width"]) == (1800, 2400)
    left, top, width, height = told["annotations"][0]["bbox"]
    assert left + width / 2 == pytest.approx(0.6 * 2400, rel=0.02)
    assert top + height / 2 == pytest.approx(0.3 * 1800, rel=0.02)


@pytest.mark.parametrize("maps", ["png", "tiff"])
@pytest.mark.parametrize("anomaly_map", [blob(64, 64), np.full((64, 64), 2, np.float32)])
def test_a_pixel_takes_less_than_twenty_bytes(tmp_path, maps, anomaly_map):
    """At the image's own size, also where all of it is one region; as NumPy counts them."""
    image = photograph(1500, 2000, 1)
    with writer(tmp_path / "out", maps=maps, output_scale=1.0) as made:
        tracemalloc.start()
        made.add(predicted(tmp_path, image, anomaly_map))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    # Not counted are Pillow's images; there are none while regions are found, which takes most.
    assert peak / image.size < 19


def test_nothing_is_drawn_where_nothing_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "drawing", SimpleNamespace())
    with writer(tmp_path / "out", maps="none", overlays=False, outlines=False) as made:
        made.add(predicted(tmp_path, photograph(30, 40, 1), blob(8, 8)))
