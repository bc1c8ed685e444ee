import numpy as np
import pytest

from sgfr_jax.datasets import images, synthesis
from sgfr_jax.datasets.geometry import Geometry
from sgfr_jax.detector import splits, synthetic
from tests.detector.pretended import split_of


@pytest.fixture
def textures(rng):
    return [rng.integers(0, 255, (96, 80, 3)).astype(np.uint8) for _ in range(5)]


def test_every_kind_at_every_size(textures):
    drawn = synthetic.draw(split_of(textures), 0, 64, copies=2)
    assert len(drawn.masks) == len(drawn.seen.split.examples) == len(drawn.groups)
    assert {g.split()[0] for g in drawn.groups} == set(synthesis.KINDS)
    assert len(set(drawn.groups)) == len(synthesis.KINDS) * len(synthetic.SIZES)
    assert drawn.masks.shape[1:] == (64, 64)
    for example, source in zip(drawn.seen.split.examples, drawn.seen.owners, strict=True):
        changed = (example.image != textures[source]).any(axis=-1)
        assert changed.any() and not (changed & (example.mask == 0)).any()


def test_of_the_sizes_that_are_asked_for(textures, monkeypatch):
    drawn = synthetic.draw(split_of(textures), 0, 64, sizes=(0.1, 0.8), copies=1)
    assert {group.split()[1] for group in drawn.groups} == {"0.1", "0.8"}
    monkeypatch.setattr(synthetic, "SIZES", (0.3,))
    drawn = synthetic.draw(split_of(textures), 0, 64, copies=1)
    assert {group.split()[1] for group in drawn.groups} == {"0.3"}


def test_one_seed_gives_the_same_defects(textures):
    first, again, other = (synthetic.draw(split_of(textures), s, 64, copies=1) for s in (3, 3, 4))
    assert first.seen.split.hashes == again.seen.split.hashes != other.seen.split.hashes
    np.testing.assert_array_equal(first.masks, again.masks)


def test_an_even_surface_shows_what_can_be_drawn_on_it():
    drawn = synthetic.draw(split_of([np.full((64, 64, 3), 128, np.uint8)]), 0, 64, copies=1)
    kinds = {g.split()[0] for g in drawn.groups}
    assert "spot" in kinds and "blur" not in kinds


def test_of_the_windows_of_an_image_the_one_with_the_defect_is_seen(textures):
    geometry = Geometry("tile", tile=48, overlap=0.0)
    train = splits.with_windows(split_of(textures), geometry)
    drawn = synthetic.draw(train, 0, 32, copies=1)
    assert len(drawn.masks) == len(drawn.seen.owners) == len(drawn.groups)
    assert drawn.seen.split.windows is None and drawn.masks.any(axis=(1, 2)).all()
    for example, mask in zip(drawn.seen.split.examples, drawn.masks, strict=True):
        assert example.window.box == (0, 0, *example.image.shape[:2]) == (0, 0, 48, 48)
        read = images.read_example(example, 32)
        np.testing.assert_array_equal(read.mask, mask)


def test_padding_stays_what_it_was(textures):
    train = splits.with_windows(split_of(textures), Geometry("pad"))
    drawn = synthetic.draw(train, 0, 32, copies=1)
    np.testing.assert_allclose(drawn.seen.extents, [[1, 80 / 96]] * len(drawn.masks), rtol=1e-6)
    assert not drawn.masks[:, :, 27:].any()


def test_large_images_are_kept_small(rng):
    large = [rng.integers(0, 255, (400, 520, 3)).astype(np.uint8) for _ in range(3)]
    kept = synthetic.draw(split_of(large), 0, 64, copies=1)
    small = synthetic.draw(split_of(large), 0, 64, copies=1, most_pixels=20_000)
    assert {e.image.shape for e in kept.seen.split.examples} == {(400, 520, 3)}
    # A factor of 4 were enough, but then the sides were shorter than twice what is looked at.
    assert {e.image.shape for e in small.seen.split.examples} == {(134, 174, 3)}
    assert {e.mask.shape for e in small.seen.split.examples} == {(134, 174)}
    larger = synthetic.draw(
        split_of(large), 0, 64, copies=1, most_pixels=20_000, least_side=150
    )  # fmt: skip
    assert {e.image.shape for e in larger.seen.split.examples} == {(200, 260, 3)}
    np.testing.assert_array_equal(kept.masks, small.masks)
    for one, other in zip(kept.seen.split.examples, small.seen.split.examples, strict=True):
        difference = images.read_image(one.image, 64) - images.read_image(other.image, 64).astype(
            float
        )
        assert np.abs(difference).mean() < 4


@pytest.mark.parametrize("grey", [0, 1])
def test_grey_images_among_those_with_colours(textures, grey):
    mixed = [t[..., 0] if i % 2 == grey else t for i, t in enumerate(textures)]
    drawn = synthetic.draw(split_of(mixed), 0, 64, copies=1)
    for example, source in zip(drawn.seen.split.examples, drawn.seen.owners, strict=True):
        assert example.image.shape == mixed[source].shape
    assert {g.split()[0] for g in drawn.groups} == set(synthesis.KINDS)


def test_coarse_masks_keep_every_defect():
    masks = np.zeros((2, 10, 9), bool)
    masks[0, 5, 6] = True
    found = synthetic.coarse(masks, 4)
    assert found.shape == (2, 2, 2)
    assert found[0, 1, 1] and found.sum() == 1
