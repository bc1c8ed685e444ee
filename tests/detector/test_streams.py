import random

import pytest

from sgfr_jax.backbones.architectures import ARCHITECTURES
from sgfr_jax.commands.flags import config
from sgfr_jax.detector import streams


def planned(**fields):
    return streams.plan(config.resolve(config.Config(**fields)))


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
        assert {s.level for s in found} == set(architecture.stream_levels)
        settings = config.resolve(config.Config(backbone=name))
        assert streams.levels(settings) == architecture.stream_levels  # from shallow to deep
        for stream in found:
            assert stream.image_size % (architecture.size_multiple if "dino" in name else 32) == 0
            assert stream.grid <= -(-stream.image_size // architecture.strides[stream.level])


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
    resolved = config.resolve(config.Config(layers=tuple(shuffled), image_size=size))
    assert resolved.layers == AUTO_OF_LITE0 and resolved.grid == 0


@pytest.mark.parametrize("name,architecture", ARCHITECTURES.items())
def test_any_level_of_a_network_can_be_named(name, architecture):
    layers = tuple(f"{level}@1" for level in reversed(architecture.levels))
    found = planned(backbone=name, layers=layers)
    assert tuple(stream.level for stream in found) == architecture.levels
    assert {stream.width for stream in found} == set(architecture.widths.values())


def test_a_scale_is_of_the_image_size_and_rounded_to_what_the_network_takes():
    names = ("block4@0.5", "block4@1.0", "block4@1.3", "block10@3")
    assert [(s.name, s.grid) for s in planned(layers=names)] == [
        ("block4@128", 16), ("block4@256", 32), ("block4@320", 40), ("block10@768", 48)
    ]  # fmt: skip
    (small,) = planned(backbone="dinov2_vits14", layers=("norm11@0.5",), image_size=70)
    assert (small.image_size, small.grid) == (28, 2)


def test_levels_are_named_once():
    settings = config.resolve(config.Config(layers=("block14@1", "block2@1.5", "block14@2")))
    assert streams.levels(settings) == ("block2", "block14") == config.levels(settings)
    assert config.strides(settings) == [4, 32]
