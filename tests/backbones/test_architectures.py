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
        ("dinov2_vits14", ("norm11",), (14,), (384,)),
        ("dinov2_vitb14_reg", ("norm11",), (14,), (768,)),
        ("dinov2_vitl14", ("norm23",), (14,), (1024,)),
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
    dinov2 = ARCHITECTURES["dinov2_vits14_reg"]
    assert dinov2.levels[:3] == ("block0", "norm0", "block1") and len(dinov2.levels) == 24
    assert architectures.blocks_needed(dinov2, ("norm3", "block1")) == 4


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


def test_sizes():
    dinov2 = ARCHITECTURES["dinov2_vits14"]
    architectures.check_size(dinov2, 14, 518)
    architectures.check_size(ARCHITECTURES["resnet18"], 1, 257)
    message = "dinov2_vits14 takes .* 14 divides, not 256: the nearest are 252 and 266"
    with pytest.raises(ValueError, match=message):
        architectures.check_size(dinov2, 252, 256)


def test_flags_can_be_checked_without_flax():
    program = "import sgfr_jax.backbones, sys; sys.exit('flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
