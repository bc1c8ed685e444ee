"""What the weight files call the layers of a network, by layout.

Each layout is a function from an architecture to `{layer: Names}`; a layer is the dotted path of
a convolution (or of the classifier) in our own modules, such as `blocks.3.expand`.
"""

from collections.abc import Callable
from typing import NamedTuple

from sgfr_jax.backbones.architectures import Architecture

CLASSIFIER = "classifier"


class Names(NamedTuple):
    """Key prefixes of a layer in a file."""

    weight: str  # the convolution or the linear layer
    norm: str | None  # its batch norm; None: the layer has a bias of its own instead


def _torchvision(architecture):
    names = {"stem": Names("conv1", "bn1"), CLASSIFIER: Names("fc", None)}
    for i, block in enumerate(architecture.blocks):
        ours, theirs = f"blocks.{i}", f"layer{block.stage + 1}.{block.index}"
        for j in range(1, 4 if architecture.bottleneck else 3):
            names[f"{ours}.conv{j}"] = Names(f"{theirs}.conv{j}", f"{theirs}.bn{j}")
        names[f"{ours}.shortcut"] = Names(f"{theirs}.downsample.0", f"{theirs}.downsample.1")
    return names


def _efficientnet_lite_pytorch(architecture):
    names = {
        "stem": Names("_conv_stem", "_bn0"),
        "head": Names("_conv_head", "_bn1"),
        CLASSIFIER: Names("_fc", None),
    }
    for i in range(len(architecture.blocks)):
        for j, layer in enumerate(("expand", "depthwise", "project")):
            theirs = f"_blocks.{i}"
            names[f"blocks.{i}.{layer}"] = Names(f"{theirs}._{layer}_conv", f"{theirs}._bn{j}")
    return names


def _timm_efficientnet(architecture):
    names = {
        "stem": Names("conv_stem", "bn1"),
        "head": Names("conv_head", "bn2"),
        CLASSIFIER: Names("classifier", None),
    }
    for i, block in enumerate(architecture.blocks):
        # timm numbers the norms in order and calls the projection "pwl" only after an expansion.
        convolutions = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
        if block.inner == block.inputs:
            convolutions = {"depthwise": "conv_dw", "project": "conv_pw"}
        theirs = f"blocks.{block.stage}.{block.index}"
        for j, (layer, conv) in enumerate(convolutions.items(), start=1):
            names[f"blocks.{i}.{layer}"] = Names(f"{theirs}.{conv}", f"{theirs}.bn{j}")
    return names


LAYOUTS: dict[str, Callable[[Architecture], dict[str, Names]]] = {
    "torchvision": _torchvision,
    "efficientnet_lite_pytorch": _efficientnet_lite_pytorch,
    "timm_efficientnet": _timm_efficientnet,
}
