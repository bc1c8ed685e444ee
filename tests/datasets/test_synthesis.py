import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sgfr_jax.datasets import regions
from sgfr_jax.datasets.synthesis import (
    EXTENT_FACTOR,
    JUST_VISIBLE,
    KINDS,
    MAX_DEPARTURE,
    draw,
)

TINTS = ("line", "shade", "spot")
NEED_TEXTURE = ("blur", "warp")
kinds = st.sampled_from(sorted(KINDS))


def _image(seed, shape, *, std=30.0, grain=2.0):
    """Returns smooth noise, the texture of many a surface."""
    noise = np.random.default_rng(seed).normal(0, 1, shape)
    noise = ndimage.gaussian_filter(noise, (grain, grain, 0)[: len(shape)])
    return np.clip(128 + std * noise / noise.std(), 0, 255).astype(np.uint8)


def _extent(mask):
    return max(np.ptp(places) + 1 for places in np.nonzero(mask))


@given(
    kinds,
    st.integers(0, 2**31),
    st.integers(16, 90),
    st.integers(16, 90),
    st.sampled_from([(), (3,)]),
    st.floats(0.001, 1.0),
    st.sampled_from(["image", "same", "other"]),
)
@settings(max_examples=300, deadline=None)
def test_only_the_mask_changes(kind, seed, height, width, channels, size, source):
    image = _image(seed, (height, width, *channels))
    donor = {"image": None, "same": image, "other": _image(seed + 1, (31, 47, *channels))}[source]
    before = image.copy()
    changed, mask = draw(np.random.default_rng(seed), image, kind, size, donor=donor)
    np.testing.assert_array_equal(image, before)
    assert changed.dtype == np.uint8 and changed.shape == image.shape
    assert not np.shares_memory(changed, image)
    assert mask.dtype == bool and mask.shape == (height, width)
    assert mask.any()
    np.testing.assert_array_equal(changed[~mask], image[~mask])
    difference = np.abs(changed.astype(int) - image).reshape(height, width, -1).max(axis=2)
    assert (difference[mask] > 0).all()
    assert difference[mask].max() >= JUST_VISIBLE


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("size", [0.03, 0.08, 0.2, 0.45])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_extent_is_as_asked(kind, size, channels):
    image = _image(1, (200, 270, *channels))
    for seed in range(8):
        _, mask = draw(np.random.default_rng(seed), image, kind, size)
        assert 1 / EXTENT_FACTOR <= _extent(mask) / (200 * size) <= EXTENT_FACTOR


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_defect_is_in_one_place(kind):
    image = _image(2, (128, 128))
    middles = []
    for seed in range(30):
        _, mask = draw(np.random.default_rng(seed), image, kind, 0.1)
        middles.append(np.mean(np.nonzero(mask), axis=1))
        assert mask.sum() <= (EXTENT_FACTOR * 12.8) ** 2
    # And that place may be anywhere.
    assert (np.ptp(middles, axis=0) > 70).all()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_generator_decides(kind):
    image = _image(0, (64, 64, 3))
    (first, mask), (again, same_mask), (other, _) = (
        draw(np.random.default_rng(seed), image, kind, 0.2) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(mask, same_mask)
    assert (first != other).any()


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("level", [0, 128, 255])
def test_plain_images_get_a_defect_or_an_empty_mask(kind, level):
    image = np.full((40, 50, 3), level, np.uint8)
    for seed in range(5):
        changed, mask = draw(np.random.default_rng(seed), image, kind, 0.3)
        np.testing.assert_array_equal(changed[~mask], image[~mask])
        if kind in NEED_TEXTURE:
            assert not mask.any()
        if kind in TINTS:
            assert mask.any()


@pytest.mark.parametrize("kind", TINTS)
def test_contrasts_range_from_barely_visible_to_strong(kind):
    image = _image(3, (128, 128), std=8)
    departures = []
    for seed in range(80):
        changed, mask = draw(np.random.default_rng(seed), image, kind, 0.2)
        departures.append(np.abs(changed[mask].astype(int) - image[mask]).mean())
    assert min(departures) < 3 * JUST_VISIBLE
    assert max(departures) > 1.8 * min(departures)
    assert max(departures) <= MAX_DEPARTURE + 8 * 4


@pytest.mark.parametrize("kind", TINTS)
def test_coarser_texture_gets_stronger_defects(kind):
    means = []
    for std in (4, 40):
        image = _image(4, (128, 128), std=std, grain=1.0)
        pairs = [draw(np.random.default_rng(seed), image, kind, 0.2) for seed in range(20)]
        means.append(np.mean([np.abs(c[m].astype(int) - image[m]).mean() for c, m in pairs]))
    assert means[1] > 2 * means[0]


def test_grey_products_stay_grey():
    grey = _image(5, (64, 64))
    image = np.stack([grey] * 3, axis=2)
    for kind in KINDS:
        for seed in range(5):
            changed, _ = draw(np.random.default_rng(seed), image, kind, 0.3)
            assert np.ptp(changed.astype(int), axis=2).max() <= 1


def test_a_piece_comes_from_its_donor():
    image = np.full((64, 64), 100, np.uint8)
    donor = np.where(_image(6, (48, 80)) > 128, 200, 180).astype(np.uint8)
    found = [draw(np.random.default_rng(seed), image, "cut_paste", 0.4, donor=donor)
             for seed in range(40)]  # fmt: skip
    # Half of the pieces are relit; the others are the donor's pixels, but for their soft edges.
    exact = [np.isin(changed[mask], [180, 200]).mean() > 0.5 for changed, mask in found]
    assert 5 < sum(exact) < 35


def test_a_product_on_a_plain_background_breaks_off_into_it():
    image = np.full((120, 120, 3), (240, 235, 230), np.uint8)
    image[30:90, 30:90] = (90, 60, 30)
    for seed in range(10):
        changed, mask = draw(np.random.default_rng(seed), image, "edge_break", 0.2)
        assert mask[30:90, 30:90].sum() == mask.sum() > 0
        np.testing.assert_allclose(np.median(changed[mask], axis=0), (240, 235, 230), atol=3)


@pytest.mark.parametrize("shape", [regions.blob, regions.cloud, regions.rectangle])
def test_shapes_have_the_stated_area(shape):
    y, x = np.ogrid[-60:60, -60:60]
    areas = [
        shape(np.random.default_rng(seed), y, x, diameter=60, softness=3).sum()
        for seed in range(30)
    ]
    if shape is regions.rectangle:
        assert min(areas) > 60 * 60 / 7 and max(areas) < 60 * 61
    else:
        np.testing.assert_allclose(np.sqrt(4 / np.pi * np.array(areas)), 60, rtol=0.35)
        assert abs(np.mean(np.sqrt(4 / np.pi * np.array(areas))) - 60) < 4


@pytest.mark.parametrize("width", [1.0, 2.0, 5.0])
def test_lines_have_the_stated_width(width):
    y, x = np.ogrid[-60:60, -60:60]
    for seed in range(15):
        opacity = regions.line(np.random.default_rng(seed), y, x, diameter=80, width=width)
        # The thickest place: of all discs within the line the largest.
        thickest = 2 * ndimage.distance_transform_edt(opacity > 0.5).max() - 1
        assert thickest <= 1.6 * width + 2
        assert opacity.sum() > 0.4 * width * 80 * 0.5


def test_what_cannot_be_drawn_is_refused():
    rng, image = np.random.default_rng(0), _image(0, (32, 32))
    for bad in (np.zeros((15, 40), np.uint8), np.zeros((40, 40)), np.zeros((40, 40, 4), np.uint8)):
        with pytest.raises(ValueError, match="image is"):
            draw(rng, bad, "spot", 0.1)
        with pytest.raises(ValueError, match="donor is"):
            draw(rng, image, "spot", 0.1, donor=bad)
    with pytest.raises(ValueError, match="same channels"):
        draw(rng, image, "spot", 0.1, donor=np.zeros((32, 32, 3), np.uint8))
    for size in (0, -0.1, 1.01, np.nan):
        with pytest.raises(ValueError, match="size"):
            draw(rng, image, "spot", size)
    with pytest.raises(ValueError, match="spot"):
        draw(rng, image, "sopt", 0.1)
