"""Where squares and banks are large, told by the shapes of photographs."""

import numpy as np
import pytest

from sgfr_jax.datasets import Example
from sgfr_jax.datasets.geometry import Geometry
from sgfr_jax.detector import network, resolution, settle, streams
from sgfr_jax.detector.method import Method

NETWORK = network.describe("efficientnet_lite0")
SQUARE = Geometry("square")


def of(shapes, ways=(SQUARE,), seen=NETWORK, **fields):
    method = settle.settle(Method(**fields), seen)
    train = [Example(str(i), np.zeros(s, np.uint8), 0, "", None) for i, s in enumerate(shapes)]
    large = resolution.is_large(method, seen, ways, train)
    return method, resolution.enlarged(method) if large else method


def test_photographs_that_have_the_pixels_are_seen_in_large_squares_by_large_banks():
    for shape in ((576, 576), (640, 640), (480, 700)):  # as many as in a square of 576
        usual, found = of([shape] * 3)
        assert (usual.image_size, usual.large_image_size) == (256, 384)
        assert (found.image_size, found.is_large, usual.is_large) == (384, True, False)
        atoms = [found.num_atoms(patches) for patches in (800, 20_000, 50_000, 100_000, 10**6)]
        assert atoms == [800, 1000, 2000, 4000, 4000]
        assert usual.num_atoms(100_000) == 1000
        assert streams.sizes(streams.plan(found, NETWORK)) == (256, 384, 576)
        assert streams.sizes(streams.plan(usual, NETWORK)) == (256, 384)


def test_others_are_seen_as_ever():
    for shape in ((575, 575), (128, 128), (480, 690)):
        usual, found = of([shape] * 3)
        assert found == usual


def test_the_median_photograph_decides():
    assert of([(900, 900)] * 2 + [(100, 100)])[1].image_size == 384
    assert of([(900, 900)] + [(100, 100)] * 2)[1].image_size == 256


def test_tiles_are_large_already():
    for ways in ((SQUARE, Geometry("tile", tile=400)), (Geometry("pad"),)):
        assert of([(900, 900)], ways)[1].image_size == 256


def test_what_is_asked_for_is_done():
    large = [(900, 900)]
    assert of(large, image_size=320)[1].image_size == 320
    assert of(large, image_size=320, large_image_size=480)[1].image_size == 480
    assert of(large, image_size=256)[0].large_image_size is None
    assert of([(90, 90)], image_size=64, large_image_size=64)[1].is_large
    small = of([(150, 150)], image_size=64, large_image_size=96)[1]
    assert streams.sizes(streams.plan(small, NETWORK)) == (64, 96, 128)
    assert of(large, large_image_size=640)[1].image_size == 256  # 960 pixels are needed
    assert of(large, bank_size=70)[1].num_atoms(10**5) == 70
    assert of(large, bank_ratio=0.1)[1].num_atoms(10**5) == 10**4


def test_other_methods_and_networks_are_as_they_are():
    for fields in ({"layers": ("fast",)}, {"layers": ("block4@1",)}):
        method, found = of([(900, 900)], **fields)
        assert found == method and method.large_image_size is None
    of_patches = network.describe("dinov2_vits14")
    method, found = of([(2000, 2000)], seen=of_patches, backbone="dinov2_vits14")
    assert found == method and (method.image_size, method.large_image_size) == (448, None)


@pytest.mark.parametrize("fields, message", [
    ({"large_image_size": 128}, r"large_image_size=128 must be between image_size=256 and 8192"),
    ({"large_image_size": 9000}, r"large_image_size=9000 must be between image_size=256 and 8192"),
    ({"large_image_size": 384, "layers": ("fast",)}, r"large_image_size=384 must be left out"),
])  # fmt: skip
def test_what_cannot_be_honoured(fields, message):
    with pytest.raises(ValueError, match=message):
        settle.settle(Method(**fields), NETWORK)
