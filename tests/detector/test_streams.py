import random

import pytest

from sgfr_jax.backbones.architectures import ARCHITECTURES
from sgfr_jax.detector import embedding, network, settle, streams
from sgfr_jax.detector.method import Method
from tests.detector import pretended


def settled(**fields):
    method = Method(**fields)
    seen = network.describe(method.backbone)
    return settle.settle(method, seen), seen


def planned(**fields):
    return streams.plan(*settled(**fields))


def test_coarse_levels_at_both_scales_and_fine_ones_at_the_larger():
    found = [(s.name, s.grid) for s in planned()]
    assert found == [
        ("block10@256", 16),
        ("block14@256", 8),
        ("block2@384", 48),
        ("block4@384", 48),
        ("block10@384", 24),
        ("block14@384", 12),
    ]


def test_sizes_suit_the_network():
    for name, architecture in ARCHITECTURES.items():
        found = planned(backbone=name)
        assert {s.levels for s in found} == {(level,) for level in architecture.stream_levels}
        wanted = embedding.wanted_levels(network.describe(name), found)
        assert wanted == architecture.stream_levels  # from shallow to deep
        for stream in found:
            assert stream.image_size % (architecture.size_multiple if "dino" in name else 32) == 0
            (level,) = stream.levels
            assert stream.grid <= -(-stream.image_size // architecture.strides[level])


@pytest.mark.parametrize("size", [32, 40, 224, 250])
def test_any_size_gives_streams_that_differ(size):
    found = planned(image_size=size)
    assert len(set(found)) == len(found) and all(s.grid >= 1 for s in found)


def test_streams_of_one_size_come_together():
    sizes = [s.image_size for s in planned()]
    assert sizes == sorted(sizes)


AUTO_OF_LITE0 = (
    "block10@1", "block14@1", "block2@1.5", "block4@1.5", "block10@1.5", "block14@1.5"
)  # fmt: skip


@pytest.mark.parametrize("size", [64, 224, 250, 256])
def test_the_automatic_plan_by_name_in_any_order(size):
    shuffled = random.Random(size).sample(AUTO_OF_LITE0, len(AUTO_OF_LITE0))
    assert planned(layers=tuple(shuffled), image_size=size) == planned(image_size=size)
    method, _ = settled(layers=tuple(shuffled), image_size=size)
    assert method.layers == AUTO_OF_LITE0 and method.grid == 0


@pytest.mark.parametrize("name,architecture", ARCHITECTURES.items())
def test_any_level_of_a_network_can_be_named(name, architecture):
    layers = tuple(f"{level}@1" for level in reversed(architecture.levels))
    found = planned(backbone=name, layers=layers)
    assert tuple(stream.levels for stream in found) == tuple((x,) for x in architecture.levels)
    assert {stream.width for stream in found} == set(architecture.widths.values())


def test_a_scale_is_of_the_image_size_and_rounded_to_what_the_network_takes():
    names = ("block4@0.5", "block4@1.0", "block4@1.3", "block10@3")
    assert [(s.name, s.grid) for s in planned(layers=names)] == [
        ("block4@128", 16), ("block4@256", 32), ("block4@320", 40), ("block10@768", 48)
    ]  # fmt: skip
    (small,) = planned(backbone="dinov2_vits14", layers=("norm11@0.5",), image_size=70)
    assert (small.image_size, small.grid) == (28, 2)


def test_the_levels_that_some_streams_see():
    layers = ("block14@1", "block2@1.5", "block14@2")
    method, seen = settled(layers=layers)
    assert embedding.wanted_levels(seen, streams.plan(method, seen)) == ("block2", "block14")
    assert settle.largest_stride(method, seen) == 32
    # Those of one bank in the order in which it merges them.
    method, seen = settled(layers=("block4", "block2"))
    assert embedding.wanted_levels(seen, streams.plan(method, seen)) == ("block4", "block2")


def test_one_bank_is_one_stream_of_merged_levels():
    (found,) = planned(layers=("block2", "block4"))
    assert found == streams.Stream(256, ("block2", "block4"), 64, (24, 40), (4, 8))
    assert (found.name, found.width, found.shape) == ("block2+block4@256", 64, (4096, 64))


def test_of_any_network():
    found = streams.plan(pretended.settled(), pretended.NETWORK)
    assert [(s.name, s.shape) for s in found] == [
        ("coarse@64", (16, 7)), ("fine@96", (144, 5)), ("coarse@96", (36, 7))
    ]  # fmt: skip
    assert streams.sizes(found) == (64, 96)
