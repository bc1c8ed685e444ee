import pytest

from experiments import config, streams
from sgfr_jax.backbones.architectures import ARCHITECTURES


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
