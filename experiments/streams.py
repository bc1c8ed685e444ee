"""What `--layers=auto` looks at: levels of the network at two scales, each with a bank of its own.

Fine levels see what is small and sharp, coarse ones what is large; a larger image shows either more
closely. Coarse levels see the image at both scales, the others at the larger one only, where they
cost most: at the smaller scale they gained on some products and lost on others (`docs/results.md`).
"""

import dataclasses
from typing import Any

from sgfr_jax.backbones.architectures import ARCHITECTURES

SCALES = (1.0, 1.5)
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


def plan(config: Any) -> tuple[Stream, ...]:
    """The streams of a configuration, those of one image size together.

    Args:
      config: whose `backbone` and `image_size` are known.
    """
    architecture = ARCHITECTURES[config.backbone]
    step = architecture.size_multiple if architecture.size_multiple > 1 else _SIZE_STEP
    found = []
    for scale in SCALES:
        size = max(1, round(scale * config.image_size / step)) * step
        for level in architecture.stream_levels:
            stride = architecture.strides[level]
            if scale == max(SCALES) or stride > _FINE_STRIDE:
                # A cell finer than eight pixels costs four times as much and shows little more.
                grid = -(-size // max(stride, _FINE_STRIDE))
                found.append(Stream(size, level, grid, architecture.widths[level]))
    return tuple(dict.fromkeys(found))  # of a small image both scales may be one
