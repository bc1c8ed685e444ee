"""Streams: levels of the network at scales of the image size, each with a bank of its own.

`--layers` names them as `LEVEL@SCALE`, in any order; `auto` is a plan of them for each network.

Fine levels see what is small and sharp, coarse ones what is large; a larger image shows either more
closely. In `auto` coarse levels see the image at both scales, the others at the larger one only,
where they cost most: at the smaller scale they gained on some products and lost on others
(`docs/results.md`).
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from sgfr_jax.backbones.architectures import ARCHITECTURES, Architecture

AUTO = "auto"
# Between the level and the scale of a stream that is named.
AT = "@"
# Of `AUTO`.
_SCALES = (1.0, 1.5)
# Strides above this are coarse.
_FINE_STRIDE = 8
# Images are resized to a multiple of this, unless the network asks for another.
_SIZE_STEP = 32


@dataclasses.dataclass(frozen=True)
class Stream:
    """One level at one scale."""

    image_size: int  # the side of the square that images are resized to
    level: str
    grid: int  # patches per side
    width: int  # features of a patch

    @property
    def shape(self) -> tuple[int, int]:
        """Of an image's patches: `[P, D]`."""
        return self.grid**2, self.width

    @property
    def name(self) -> str:
        """Such as `block4@384`."""
        return f"{self.level}@{self.image_size}"


def parse(name: str) -> tuple[str, float]:
    """The level and the scale that a name such as `block4@1.5` asks for.

    Raises:
      ValueError: unless the scale is a positive number.
    """
    level, _, text = name.partition(AT)
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not 0 < scale < math.inf:
        raise ValueError(f"LEVEL{AT}SCALE takes a positive number as its scale, not '{text}'")
    return level, scale


def make(config: Any, level: str, scale: float) -> Stream:
    """The stream of a level that sees images at a scale of the configuration's `image_size`."""
    architecture = ARCHITECTURES[config.backbone]
    step = architecture.size_multiple if architecture.size_multiple > 1 else _SIZE_STEP
    size = max(1, round(scale * config.image_size / step)) * step
    # A cell finer than eight pixels costs four times as much and shows little more.
    grid = -(-size // max(architecture.strides[level], _FINE_STRIDE))
    return Stream(size, level, grid, architecture.widths[level])


def plan(config: Any) -> tuple[Stream, ...]:
    """The streams of a configuration, by image size and then by depth, however they were ordered.

    Args:
      config: whose `backbone` and `image_size` are known, and whose `layers` are `AUTO` or names.
    """
    architecture = ARCHITECTURES[config.backbone]
    automatic = config.layers == (AUTO,)
    wanted = _automatic(architecture) if automatic else map(parse, config.layers)
    found = {make(config, *of) for of in wanted}  # of a small image several scales may be one
    return tuple(sorted(found, key=lambda s: (s.image_size, architecture.levels.index(s.level))))


def levels(config: Any) -> tuple[str, ...]:
    """The levels that the streams of a configuration see, each once, from shallow to deep."""
    seen = {stream.level for stream in plan(config)}
    return tuple(level for level in ARCHITECTURES[config.backbone].levels if level in seen)


def _automatic(architecture: Architecture) -> Iterator[tuple[str, float]]:
    for scale in _SCALES:
        for level in architecture.stream_levels:
            if scale == max(_SCALES) or architecture.strides[level] > _FINE_STRIDE:
                yield level, scale
