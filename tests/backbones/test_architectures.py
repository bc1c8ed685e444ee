import subprocess
import sys

import pytest

from sgfr_jax.backbones import ARCHITECTURES, architectures


@pytest.mark.parametrize(
    ("name", "levels", "strides", "widths"),
    [
        ("efficientnet_lite0", ("block4", "block10", "block14"), (8, 16, 32), (40, 112, 192)),
        ("efficientnet_lite1", ("block6", "block14", "block19"), (8, 16, 32), (40, 112, 192)),
        ("efficientnet_lite2", ("block6", "block14", "block19"), (8, 16, 32), (48, 120, 208)),
        ("resnet18", ("layer2", "layer3"), (8, 16), (128, 256)),
        ("resnet50", ("layer2", "layer3"), (8, 16), (512, 1024)),
        ("wide_resnet50_2", ("layer2", "layer3"), (8, 16), (512, 1024)),
    ],
)
def test_default_levels(name, levels, strides, widths):
    architecture = ARCHITECTURES[name]
    assert architectures.select_levels(architecture, None) == levels
    assert tuple(architecture.strides[level] for level in levels) == strides
    assert tuple(architecture.widths[level] for level in levels) == widths


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_levels_go_from_shallow_to_deep(architecture):
    levels = architecture.levels
    needed = [architectures.blocks_needed(architecture, [level]) for level in levels]
    assert needed == sorted(needed) and needed[-1] == len(architecture.blocks)
    assert set(levels) == set(architecture.strides) == set(architecture.widths)


def test_level_names():
    lite, resnet = ARCHITECTURES["efficientnet_lite0"], ARCHITECTURES["resnet18"]
    assert lite.levels == ("stem", *(f"block{i}" for i in range(16)), "head")
    assert resnet.levels[:4] == ("stem", "layer1.0", "layer1.1", "layer1")
    assert architectures.block_level_names(resnet)[1] == ("layer1.1", "layer1")
    assert architectures.blocks_needed(resnet, ("layer2", "stem")) == 4


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"'resnet8'\. Did you mean 'resnet18'\? Known: effic"):
        architectures.get("resnet8")
    with pytest.raises(ValueError, match=r"level of resnet18 'layer22'\. Did you mean 'layer2'\?"):
        architectures.select_levels(ARCHITECTURES["resnet18"], ("layer22",))
    with pytest.raises(ValueError, match="no level of resnet18"):
        architectures.select_levels(ARCHITECTURES["resnet18"], ())


def test_levels_keep_their_order_without_repeats():
    resnet = ARCHITECTURES["resnet18"]
    levels = architectures.select_levels(resnet, ["layer3", "layer1", "layer3"])
    assert levels == ("layer3", "layer1")
    assert architectures.select_levels(resnet, "layer1") == ("layer1",)


def test_flags_can_be_checked_without_flax():
    program = "import sgfr_jax.backbones, sys; sys.exit('flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
