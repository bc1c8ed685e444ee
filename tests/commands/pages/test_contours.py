import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import draw, measure

from sgfr_jax.commands.pages import contours


def rasterised(found, shape):
    """Which pixels' centres the polygons hold, by even-odd crossings: scikit-image's opinion."""
    inside = np.zeros(shape, bool)
    for region in found:
        # A pixel's centre is half a pixel from its index.
        inside |= draw.polygon2mask(shape, region.polygon[:, ::-1] - 0.5)
    return inside


def blobs(seed, shape=(40, 56), smooth=3.0):
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, smooth) * 10


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    threshold=st.sampled_from([-0.5, 0.0, 0.3]),
    smooth=st.sampled_from([0.0, 0.8, 3.0]),
)
def test_polygons_hold_exactly_their_pixels(seed, threshold, smooth):
    """Holes, single pixels and regions at the border included."""
    anomaly_map = blobs(seed, smooth=smooth)
    found = contours.regions(anomaly_map, threshold, tolerance=0)
    np.testing.assert_array_equal(rasterised(found, anomaly_map.shape), anomaly_map > threshold)
    assert sum(region.area for region in found) == (anomaly_map > threshold).sum()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), threshold=st.sampled_from([-0.5, 0.0, 0.3]))
def test_fewer_corners_move_the_border_by_a_pixel_at_most(seed, threshold):
    anomaly_map = blobs(seed)
    found = contours.regions(anomaly_map, threshold)
    above, back = anomaly_map > threshold, rasterised(found, anomaly_map.shape)
    border = above ^ ndimage.binary_erosion(above, np.ones((3, 3)), border_value=0)
    border |= ndimage.binary_dilation(above, np.ones((3, 3))) ^ above
    assert not ((above ^ back) & ~border).any()
    exact = contours.regions(anomaly_map, threshold, tolerance=0)
    assert sum(len(r.polygon) for r in found) < 0.6 * sum(len(r.polygon) for r in exact)


def test_a_ring_keeps_its_hole():
    rows, columns = np.mgrid[:30, :30]
    distance = np.hypot(rows - 15, columns - 15)
    ring = ((distance < 12) & (distance > 5)).astype(float)
    (region,) = contours.regions(ring, 0.5, tolerance=0)
    assert not rasterised([region], ring.shape)[15, 15]
    assert region.area == ring.sum() == rasterised([region], ring.shape).sum()


def test_what_a_region_is():
    anomaly_map = np.zeros((20, 30))
    anomaly_map[3:6, 10:18] = 2.0
    anomaly_map[6, 18] = 3.0  # touches at a corner only
    anomaly_map[4, 12] = 5.0
    first, second = contours.regions(anomaly_map, 1.0)
    assert first.box == (10, 3, 8, 3) and first.area == 24 and first.score == 5.0
    assert second.box == (18, 6, 1, 1) and second.area == 1 and second.score == 3.0
    assert len(first.polygon) <= 12
    for region in (first, second):
        left, top, width, height = region.box
        x, y = region.polygon.T
        assert left <= x.min() and x.max() <= left + width
        assert top <= y.min() and y.max() <= top + height
    assert contours.regions(anomaly_map, 5.0) == []


def test_the_whole_image():
    (region,) = contours.regions(np.ones((4, 6)), 0.5, tolerance=0)
    assert region.box == (0, 0, 6, 4)
    assert rasterised([region], (4, 6)).all()


def test_annotations_are_those_of_coco():
    found = contours.regions(blobs(1), 0.3)
    made = list(contours.annotations(found, image_id=7, first_id=3))
    assert [one["id"] for one in made] == list(range(3, 3 + len(found)))
    json.dumps(made, allow_nan=False)
    for one, region in zip(made, found, strict=True):
        assert one["image_id"] == 7 and one["category_id"] == 1 and one["iscrowd"] == 0
        (flat,) = one["segmentation"]
        np.testing.assert_allclose(np.reshape(flat, (-1, 2)), region.polygon, atol=0.006)
        assert one["area"] == region.area and one["score"] == pytest.approx(region.score)


def test_regions_are_those_that_labelling_finds():
    anomaly_map = blobs(5, smooth=1.0)
    labels = measure.label(anomaly_map > 1.0, connectivity=1)
    sizes = sorted(np.bincount(labels.ravel())[1:])
    assert sorted(region.area for region in contours.regions(anomaly_map, 1.0)) == sizes
