"""What the weight files call the layers of a network, by layout.

Each layout is a function from an architecture to `{layer: names}`; a layer is the dotted path of a
module of ours that has parameters, such as `blocks.3.expand`. The kind of the names says how the
parameters are made from what the file holds: see `conversion`.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

from sgfr_jax.backbones.architectures import Architecture, Layout

CLASSIFIER = "classifier"


class Folded(NamedTuple):
    """Key prefixes of a convolution and of the batch norm behind it."""

    weight: str
    norm: str


class Biased(NamedTuple):
    """A convolution or linear layer with a bias of its own."""

    weights: tuple[str, ...]  # key prefixes; the outputs of several stand side by side
    factor: str | None = None  # the key of a number for every output to multiply it by


class Normalised(NamedTuple):
    """A layer norm."""

    weight: str  # key prefix


class Tokenised(NamedTuple):
    """The learnt part of a transformer's input, by key."""

    first: str  # the class token
    registers: str | None
    positions: str
    position_first: bool  # the positions begin with that of the class token


Names = Folded | Biased | Normalised | Tokenised


def classifier(architecture: Architecture, layout: Layout) -> str | None:
    """Returns the key prefix of the classifier; None: such files have none."""
    names = LAYOUTS[layout.name](architecture).get(CLASSIFIER)
    return names.weights[0] if names else None


def _torchvision(architecture):
    names = {"stem": Folded("conv1", "bn1"), CLASSIFIER: Biased(("fc",))}
    for i, block in enumerate(architecture.blocks):
        ours, theirs = f"blocks.{i}", f"layer{block.stage + 1}.{block.index}"
        for j in range(1, 4 if architecture.bottleneck else 3):
            names[f"{ours}.conv{j}"] = Folded(f"{theirs}.conv{j}", f"{theirs}.bn{j}")
        names[f"{ours}.shortcut"] = Folded(f"{theirs}.downsample.0", f"{theirs}.downsample.1")
    return names


def _efficientnet_lite_pytorch(architecture):
    names = {
        "stem": Folded("_conv_stem", "_bn0"),
        "head": Folded("_conv_head", "_bn1"),
        CLASSIFIER: Biased(("_fc",)),
    }
    for i in range(len(architecture.blocks)):
        for j, layer in enumerate(("expand", "depthwise", "project")):
            theirs = f"_blocks.{i}"
            names[f"blocks.{i}.{layer}"] = Folded(f"{theirs}._{layer}_conv", f"{theirs}._bn{j}")
    return names


def _timm_efficientnet(architecture):
    names = {
        "stem": Folded("conv_stem", "bn1"),
        "head": Folded("conv_head", "bn2"),
        CLASSIFIER: Biased(("classifier",)),
    }
    for i, block in enumerate(architecture.blocks):
        # timm numbers the norms in order and calls the projection "pwl" only after an expansion.
        convolutions = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
        if block.inner == block.inputs:
            convolutions = {"depthwise": "conv_dw", "project": "conv_pw"}
        theirs = f"blocks.{block.stage}.{block.index}"
        for j, (layer, conv) in enumerate(convolutions.items(), start=1):
            names[f"blocks.{i}.{layer}"] = Folded(f"{theirs}.{conv}", f"{theirs}.bn{j}")
    return names


def _dinov2(architecture, *, timm=False):
    """Meta's names, which are timm's too where there are no registers."""
    registers = "reg_token" if timm else "register_tokens"
    names = {
        "tokens": Tokenised(
            "cls_token",
            registers if architecture.tokens.registers else None,
            "pos_embed",
            position_first=not timm,  # timm has added the first to the class token already
        ),
        "stem": Biased(("patch_embed.proj",)),
        "norm": Normalised("norm"),
    }
    for i in range(len(architecture.blocks)):
        block = f"blocks.{i}"
        names |= {
            f"{block}.norm1": Normalised(f"{block}.norm1"),
            f"{block}.mix": Biased((f"{block}.attn.qkv",)),
            f"{block}.merge": Biased((f"{block}.attn.proj",), f"{block}.ls1.gamma"),
            f"{block}.norm2": Normalised(f"{block}.norm2"),
            f"{block}.expand": Biased((f"{block}.mlp.fc1",)),
            f"{block}.project": Biased((f"{block}.mlp.fc2",), f"{block}.ls2.gamma"),
        }
    return names


def _transformers(architecture, *, headed=False):
    """Hugging Face's names; a model that was saved with a head puts its own name first."""
    registers = architecture.tokens.registers
    prefix = ("dinov2_with_registers." if registers else "dinov2.") if headed else ""
    embeddings = f"{prefix}embeddings"
    names = {
        "tokens": Tokenised(
            f"{embeddings}.cls_token",
            f"{embeddings}.register_tokens" if registers else None,
            f"{embeddings}.position_embeddings",
            position_first=True,
        ),
        "stem": Biased((f"{embeddings}.patch_embeddings.projection",)),
        "norm": Normalised(f"{prefix}layernorm"),
    }
    if headed:
        names[CLASSIFIER] = Biased(("classifier",))
    for i in range(len(architecture.blocks)):
        ours, theirs = f"blocks.{i}", f"{prefix}encoder.layer.{i}"
        parts = tuple(f"{theirs}.attention.attention.{x}" for x in ("query", "key", "value"))
        scale1, scale2 = (f"{theirs}.layer_scale{j}.lambda1" for j in (1, 2))
        names |= {
            f"{ours}.norm1": Normalised(f"{theirs}.norm1"),
            f"{ours}.mix": Biased(parts),
            f"{ours}.merge": Biased((f"{theirs}.attention.output.dense",), scale1),
            f"{ours}.norm2": Normalised(f"{theirs}.norm2"),
            f"{ours}.expand": Biased((f"{theirs}.mlp.fc1",)),
            f"{ours}.project": Biased((f"{theirs}.mlp.fc2",), scale2),
        }
    return names


LAYOUTS: dict[str, Callable[[Architecture], dict[str, Names]]] = {
    "torchvision": _torchvision,
    "efficientnet_lite_pytorch": _efficientnet_lite_pytorch,
    "timm_efficientnet": _timm_efficientnet,
    "dinov2": _dinov2,
    "timm_registers": functools.partial(_dinov2, timm=True),
    "transformers": _transformers,
    "transformers_headed": functools.partial(_transformers, headed=True),
}
