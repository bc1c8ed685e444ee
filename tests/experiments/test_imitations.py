import numpy as np
import pytest
from scipy import ndimage

from experiments.imitations import camera, products
from experiments.imitations.products import NUM_GOOD, NUM_PER_KIND, NUM_TRAIN, PRODUCTS
from sgfr_jax import datasets
from sgfr_jax.datasets import images

SHAPES = {"circuit": (256, 256, 3), "plate": (256, 256), "washer": (256, 256, 3),
          "weave": (256, 256)}  # fmt: skip
# The longest extents of masks, in pixels; defects of the demo are 25 to 100 of its 128.
EXTENTS = {"circuit": (3, 25), "plate": (45, 215), "washer": (10, 90), "weave": (8, 165)}
EVERY_KIND = [(name, kind) for name, product in PRODUCTS.items() for kind in product.KINDS]


def _rng(*seed):
    return np.random.default_rng(seed)


def _extent(mask):
    return max(np.ptp(places) + 1 for places in np.nonzero(mask))


def test_every_category_has_its_counts_and_names(monkeypatch):
    # What is drawn is tested below; the bookkeeping needs no pixels.
    seeds = []

    def blank(rng, kind):
        seeds.append(rng.bit_generator.state["state"]["state"])
        mask = None if kind is None else np.ones((4, 4), bool)
        return np.zeros((4, 4), np.uint8), mask

    for product in PRODUCTS.values():
        monkeypatch.setattr(product, "make", blank)
    categories = list(products.draw(0))
    assert [category.name for category in categories] == sorted(PRODUCTS)
    for category in categories:
        kinds = PRODUCTS[category.name].KINDS
        assert len(category.train) == NUM_TRAIN
        assert len(category.test) == NUM_GOOD + NUM_PER_KIND * len(kinds)
        assert {example.kind for example in category.train} == {"good"}
        assert {example.kind for example in category.test} == {"good", *kinds}
        everything = category.train + category.test
        assert len({example.name for example in everything}) == len(everything)
        for example in everything:
            assert example.label == (example.kind != "good") == (example.mask is not None)
    # No two images share a generator, in any category or split.
    list(products.draw(1))
    assert len(set(seeds)) == len(seeds)


def test_they_are_written_as_folders_that_a_run_reads(monkeypatch, tmp_path):
    def tagged(rng, kind):
        mask = None if kind is None else rng.integers(0, 2, (4, 4)) > 0
        return rng.integers(0, 256, (4, 4), dtype=np.uint8), mask

    for product in PRODUCTS.values():
        monkeypatch.setattr(product, "make", tagged)
    products.write(tmp_path / "made", 3)
    found = datasets.load("folder", tmp_path / "made")
    for drawn, read in zip(products.draw(3), found, strict=True):
        assert drawn.name == read.name
        for part in ("train", "test"):
            ours = {f"{drawn.name}/{e.name}.png": e for e in getattr(drawn, part)}
            theirs = {e.name: e for e in getattr(read, part)}
            assert ours.keys() == theirs.keys()
            for name, example in theirs.items():
                native = images.read_native(example)
                np.testing.assert_array_equal(native.image, ours[name].image)
                assert (example.label, example.kind) == (ours[name].label, ours[name].kind)
                if ours[name].mask is not None:
                    np.testing.assert_array_equal(native.mask, ours[name].mask)
    with pytest.raises(FileExistsError):
        products.write(tmp_path / "made", 3)


@pytest.mark.parametrize("name", PRODUCTS)
def test_nominal_images_differ_really(name):
    images = [PRODUCTS[name].make(_rng(seed), None)[0] for seed in range(6)]
    for image in images:
        assert image.dtype == np.uint8 and image.shape == SHAPES[name]
    # More than by noise and brightness: once those are taken out, they still differ.
    flat = np.stack([ndimage.gaussian_filter(i.mean(axis=2) if i.ndim == 3 else i.astype(float), 1)
                     for i in images]).reshape(6, -1)  # fmt: skip
    correlations = np.corrcoef(flat)[np.triu_indices(6, 1)]
    assert correlations.max() < 0.98
    assert np.ptp(flat.mean(axis=1)) > 2


@pytest.mark.parametrize(("name", "kind"), EVERY_KIND)
def test_defects_have_their_size_and_can_be_seen(name, kind):
    low, high = EXTENTS[name]
    for seed in range(3):
        image, mask = PRODUCTS[name].make(_rng(seed), kind)
        again, same_mask = PRODUCTS[name].make(_rng(seed), kind)
        np.testing.assert_array_equal(image, again)
        np.testing.assert_array_equal(mask, same_mask)
        assert image.dtype == np.uint8 and image.shape == SHAPES[name]
        assert mask.dtype == bool and mask.shape == SHAPES[name][:2]
        assert low <= _extent(mask) <= high
        assert ndimage.label(mask)[1] <= 8


@pytest.mark.parametrize("colour", [(), (3,)])
def test_a_mask_is_where_two_renderings_differ(colour):
    clean = np.full((64, 80, *colour), 100.0)
    marked = clean.copy()
    marked[20:40, 30:50] += 30
    marked[60:, 70:] += 2
    options = {"blur": 0.5, "gain": (1.0, 1.0), "gradient": 0.0, "noise": 1.0, "reach": 3}
    image, mask = camera.photograph(_rng(0), clean, marked, **options)
    expected = np.zeros((64, 80), bool)
    expected[20:40, 30:50] = True
    # A pixel of blur, but nothing that is too faint to be seen.
    assert (mask <= ndimage.binary_dilation(expected, np.ones((3, 3)))).all()
    assert (mask >= expected).all()
    assert abs(image[22:38, 32:48].mean() - 130) < 1
    nominal, nothing = camera.photograph(_rng(0), clean, None, **options)
    assert nothing is None
    np.testing.assert_array_equal(nominal[~mask][:500], image[~mask][:500])


@pytest.mark.parametrize("sigma", [0.8, 3.0, 20.0, (0.5, 12.0)])
def test_smooth_noise_is_as_smooth_as_stated(sigma):
    noise = np.stack([camera.smooth_noise(_rng(seed), (200, 220), sigma) for seed in range(8)])
    assert noise.shape == (8, 200, 220)
    np.testing.assert_allclose(noise.std(axis=(1, 2)), 1, rtol=1e-5)
    # White noise blurred by s correlates exp(-(d / 2 s)^2) over a distance of d.
    for axis, s in enumerate(np.broadcast_to(sigma, 2)):
        if s < 1:
            continue
        lag = max(1, round(s))
        moved = np.moveaxis(noise, axis + 1, -1)
        found = np.mean(moved[..., lag:] * moved[..., :-lag]) - noise.mean() ** 2
        assert abs(found - np.exp(-((lag / (2 * s)) ** 2))) < 0.15
