"""Streams: what each bank sees, levels of the network at one size of the image.

`Method.layers` names them. `LEVEL@SCALE` is one level at a scale of the image size, with a bank of
its own; `auto` is a plan of these for each network; names of levels, or `fast`, are one stream of
these levels merged.

Fine levels see what is small and sharp, coarse ones what is large; a larger image shows either more
closely. In `auto` coarse levels see the image at both scales, the others at the larger one only,
where they cost most: at the smaller scale they gained on some products and lost on others
(`docs/results.md`). Where squares are large, coarse levels see the image at a third, smaller scale.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

from sgfr_jax.detector.method import AT, AUTO, Method
from sgfr_jax.detector.network import Network

# Of `AUTO`.
_SCALES = (1.0, 1.5)
# In large squares coarse levels do not see the whole of a product; they see smaller ones too.
_OF_LARGE = 1 / 1.5
# Strides above this are coarse.
_FINE_STRIDE = 8
# Images are resized to a multiple of this, unless the network asks for another.
_SIZE_STEP = 32


@dataclasses.dataclass(frozen=True)
class Stream:
    """What one bank sees."""

    image_size: int  # the side of the square that images are resized to
    levels: tuple[str, ...]  # merged, where there are several
    grid: int  # patches per side
    widths: tuple[int, ...]  # features of a patch that come from each level
    # Of the levels, pixels of the square per feature; none of levels that no network gives.
    strides: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """`D`: the features of a patch."""
        return sum(self.widths)

    @property
    def shape(self) -> tuple[int, int]:
        """Of an image's patches: `[P, D]`."""
        return self.grid**2, self.width

    @property
    def name(self) -> str:
        """Such as `block4@384`, or `block2+block4@256`."""
        return f"{'+'.join(self.levels)}{AT}{self.image_size}"


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


def make(network: Network, image_size: int, level: str, scale: float) -> Stream:
    """The stream of one level that sees images at a scale of an image size."""
    step = network.size_multiple if network.size_multiple > 1 else _SIZE_STEP
    size = max(1, round(scale * image_size / step)) * step
    # A cell finer than eight pixels costs four times as much and shows little more.
    stride = network.strides[level]
    grid = -(-size // max(stride, _FINE_STRIDE))
    return Stream(size, (level,), grid, (network.widths[level],), (stride,))


def plan(method: Method, network: Network) -> tuple[Stream, ...]:
    """The streams of a method, by image size and then by depth, however they were ordered.

    Args:
      method: from `settle.settle`.
      network: that it looks through.
    """
    if not method.has_streams:
        widths = tuple(network.widths[level] for level in method.layers)
        strides = tuple(network.strides[level] for level in method.layers)
        return (Stream(method.image_size, method.layers, method.grid, widths, strides),)
    size = method.image_size
    auto = method.layers == (AUTO,)
    wanted = _automatic(network, large=method.is_large) if auto else map(parse, method.layers)
    # Of a small image several scales may be one.
    found = {make(network, size, *of) for of in wanted}
    depths = {level.name: depth for depth, level in enumerate(network.levels)}
    return tuple(sorted(found, key=lambda stream: (stream.image_size, depths[stream.levels[0]])))


def sizes(streams: tuple[Stream, ...]) -> tuple[int, ...]:
    """The sides of the squares that streams see, from small to large."""
    return tuple(dict.fromkeys(stream.image_size for stream in streams))


def by_size(streams: Sequence[Stream]) -> list[tuple[Stream, ...]]:
    """The streams of each image size, from small to large."""
    grouped = itertools.groupby(streams, lambda stream: stream.image_size)
    return [tuple(group) for _, group in grouped]


def _automatic(network: Network, *, large: bool) -> Iterator[tuple[str, float]]:
    for scale in (_OF_LARGE, *_SCALES) if large else _SCALES:
        for level in network.stream_levels:
            if scale == max(_SCALES) or network.strides[level] > _FINE_STRIDE:
                yield level, scale
