import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgfr_jax.datasets.defects import DEFECTS, patch

kinds = st.sampled_from(sorted(DEFECTS))


def _texture(seed, shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@given(
    kinds,
    st.integers(0, 2**31),
    st.integers(16, 90),
    st.integers(16, 90),
    st.sampled_from([(), (3,)]),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_nothing_changes_outside_of_the_mask(kind, seed, height, width, channels, flat):
    shape = (height, width, *channels)
    image = np.full(shape, seed % 256, np.uint8) if flat else _texture(seed, shape)
    before = image.copy()
    changed, mask = DEFECTS[kind](np.random.default_rng(seed), image)
    np.testing.assert_array_equal(image, before)
    assert changed.dtype == np.uint8 and changed.shape == image.shape
    assert mask.dtype == bool and mask.shape == (height, width)
    assert mask.any() and not mask.all()
    np.testing.assert_array_equal(changed[~mask], image[~mask])


@pytest.mark.parametrize("kind", sorted(DEFECTS))
@pytest.mark.parametrize("level", [0, 60, 128, 255])
def test_what_the_mask_marks_can_be_seen(kind, level):
    for seed in range(10):
        noise = np.random.default_rng(seed).normal(level, 40, (128, 128))
        image = np.clip(noise, 0, 255).astype(np.uint8)
        changed, mask = DEFECTS[kind](np.random.default_rng(seed), image)
        difference = np.abs(changed[mask].astype(int) - image[mask])
        assert difference.mean() > 8
        assert (difference > 0).mean() > 0.5


@pytest.mark.parametrize("kind", sorted(DEFECTS))
def test_the_generator_decides(kind):
    image = _texture(0, (64, 64))
    first, again, other = (
        DEFECTS[kind](np.random.default_rng(seed), image)[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("kind", sorted(DEFECTS))
def test_a_defect_covers_alike_at_every_size(kind):
    areas = [
        np.mean(
            [
                DEFECTS[kind](np.random.default_rng(seed), _texture(seed, (side, side)))[1].mean()
                for seed in range(20)
            ]
        )
        for side in (128, 320)
    ]
    # Antialiasing at the edge of a thin line weighs more in the smaller image.
    assert 0.6 < areas[1] / areas[0] < 1.2


def test_a_patch_comes_from_its_donor():
    image, donor = np.full((64, 64), 100, np.uint8), _texture(3, (80, 90))
    changed, mask = patch(np.random.default_rng(0), image, donor=donor)
    assert changed[mask].std() > 30
    assert abs(changed[mask].mean() - 100) < 15


def test_unfit_images_are_refused():
    rng = np.random.default_rng(0)
    for image in (np.zeros((15, 40), np.uint8), np.zeros((40, 40)), np.zeros(40, np.uint8)):
        with pytest.raises(ValueError, match="image is"):
            DEFECTS["stain"](rng, image)
    with pytest.raises(ValueError, match="donor"):
        patch(rng, np.zeros((40, 40), np.uint8), donor=np.zeros((39, 90), np.uint8))
