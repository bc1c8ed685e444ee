"""How images of any shape become squares of one size, and how maps of squares come back.

A network sees squares. A `Window` is a part of an image and the share of a square that it fills;
what is left of the square is padding. The kinds of geometry differ in the windows that they look
through:

- `square`: one window, the whole image, squeezed; the aspect ratio is not kept.
- `pad`: one window, the whole image at its own aspect ratio; the rest of the square is padded.
- `crop`: one window, the middle of the image; what lies outside is not looked at.
- `tile`: as many windows of one size in the image's pixels as it takes, which overlap. All images
  are seen at one scale, however large they are; one smaller than a tile is padded.

Windows are exact: every border lies between two pixels of the image, so that `assemble` puts each
value where it was seen.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

Box = tuple[int, int, int, int]  # top, left, bottom, right: from the first pixel to behind the last

# Of a resized map, that are copied at a time.
_ROWS = 256


class Window(NamedTuple):
    """A part of an image, and how much of a square it fills."""

    box: Box
    extent: tuple[float, float] = (1.0, 1.0)  # shares of the height and width, from the top left


@dataclass(frozen=True)
class Geometry:
    """What is looked at of every image."""

    kind: str = "square"  # a key of `KINDS`
    crop: float = 0.875  # the side of a crop over the image's shorter side
    tile: int | None = None  # the side of a tile, in pixels of the image
    overlap: float = 0.25  # the least share of a tile's side that the next one also shows

    def __post_init__(self):
        """Checks the fields.

        Raises:
          ValueError: names the field and what it may be.
        """
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} must be one of {', '.join(KINDS)}")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop={self.crop} must be in (0, 1]")
        if self.tile is not None and self.tile < 1:
            raise ValueError(f"tile={self.tile} must be a positive number of pixels")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap={self.overlap} must be in [0, 1)")


def windows(shape: tuple[int, int], geometry: Geometry) -> tuple[Window, ...]:
    """The windows through which an image is seen, row by row.

    Args:
      shape: height and width of the image.
      geometry: of which `tile` must be known if its kind is that.
    """
    return KINDS[geometry.kind](*shape, geometry)


def filled(extent: float, size: int) -> int:
    """How many of `size` rows (or columns) of a square an extent fills; at least one."""
    return max(1, math.floor(extent * size + 0.5))


def assemble(
    maps: np.ndarray, found: Sequence[Window], shape: tuple[int, int], *, overlap: float = 0.0
) -> np.ndarray:
    """The map of an image from those of its windows, each value back where it was seen.

    Where windows overlap their maps are averaged, each with a weight that falls to nothing towards
    those of its borders that lie inside the image: what is near them was seen without its
    surroundings, and a step there would be a seam.

    Args:
      maps: float32 `[n, S, S]`.
      found: the `n` windows.
      shape: height and width of the image.
      overlap: the share of a window's side over which its weight falls.

    Returns:
      float32 `[H, W]`. Pixels that no window shows have the lowest value of all the others.
    """
    if len(found) == 1 and found[0] == Window((0, 0, *shape)):
        return to_size(maps[0], shape)
    total, weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for values, window in zip(maps, found, strict=True):
        top, left, bottom, right = window.box
        seen = values[: filled(window.extent[0], len(values)), :]
        seen = seen[:, : filled(window.extent[1], len(values))]
        own = to_size(seen, (bottom - top, right - left))
        falls = np.outer(
            _falloff(top, bottom, shape[0], overlap), _falloff(left, right, shape[1], overlap)
        )
        total[top:bottom, left:right] += falls * own
        weight[top:bottom, left:right] += falls
    # In place: photographs are large.
    known = weight > 0
    np.divide(total, weight, out=total, where=known)
    total[~known] = total.min(where=known, initial=np.inf)
    return total


def weights_at(
    pixel: tuple[int, int],
    found: Sequence[Window],
    shape: tuple[int, int],
    *,
    overlap: float = 0.0,
) -> np.ndarray:
    """How much each window counts in one pixel of what `assemble` makes of all of them.

    Args:
      pixel: its row and column.
      found: the `n` windows.
      shape: height and width of the image.
      overlap: as of `assemble`.

    Returns:
      float32 `[n]`: 0 of those that do not show the pixel, and the more the deeper it lies in them.
    """
    row, column = pixel
    weights = np.zeros(len(found), np.float32)
    for i, (top, left, bottom, right) in enumerate(window.box for window in found):
        if top <= row < bottom and left <= column < right:
            down = _falloff(top, bottom, shape[0], overlap)[row - top]
            weights[i] = down * _falloff(left, right, shape[1], overlap)[column - left]
    return weights


def to_size(anomaly_map: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map resized bilinearly, the way back from the resizing of an image.

    Args:
      anomaly_map: float32 `[h, w]`.
      shape: height and width to come.

    Returns:
      float32 `[H, W]`; the same array if it has that size.
    """
    if anomaly_map.shape == tuple(shape):
        return anomaly_map
    height, width = shape
    resized = Image.fromarray(np.ascontiguousarray(anomaly_map, np.float32))
    resized = resized.resize((width, height), Image.Resampling.BILINEAR)
    found = np.empty(shape, np.float32)
    for top in range(0, height, _ROWS):  # Pillow copies twice what it hands over
        bottom = min(top + _ROWS, height)
        found[top:bottom] = resized.crop((0, top, width, bottom))
    return found


def _square(height: int, width: int, geometry: Geometry) -> tuple[Window, ...]:
    return (Window((0, 0, height, width)),)


def _pad(height: int, width: int, geometry: Geometry) -> tuple[Window, ...]:
    longer = max(height, width)
    return (Window((0, 0, height, width), (height / longer, width / longer)),)


def _crop(height: int, width: int, geometry: Geometry) -> tuple[Window, ...]:
    side = max(1, round(geometry.crop * min(height, width)))
    top, left = (height - side) // 2, (width - side) // 2
    return (Window((top, left, top + side, left + side)),)


def _tile(height: int, width: int, geometry: Geometry) -> tuple[Window, ...]:
    if geometry.tile is None:
        raise ValueError("the side of a tile must be known: give Geometry(tile=...)")
    rows, columns = (_spread(length, geometry) for length in (height, width))
    return tuple(
        Window((top, left, bottom, right), (tall, wide))
        for top, bottom, tall in rows
        for left, right, wide in columns
    )


def _spread(length: int, geometry: Geometry) -> list[tuple[int, int, float]]:
    """The tiles along one side: begin, end, and the share that is filled."""
    side = geometry.tile
    if length <= side:
        return [(0, length, length / side)]
    step = max(1, round(side * (1 - geometry.overlap)))
    count = 1 + -(-(length - side) // step)
    begins = [round(i * (length - side) / (count - 1)) for i in range(count)]
    return [(begin, begin + side, 1.0) for begin in begins]


KINDS: dict[str, Callable[[int, int, Geometry], tuple[Window, ...]]] = {
    "square": _square,
    "pad": _pad,
    "crop": _crop,
    "tile": _tile,
}


def _falloff(begin: int, end: int, length: int, overlap: float) -> np.ndarray:
    """The weights along one side of a window: 1, but falling towards borders inside the image."""
    places = np.arange(end - begin, dtype=np.float32) + np.float32(0.5)
    reach = max(1.0, overlap * (end - begin))
    found = np.ones(end - begin, np.float32)
    if begin > 0:
        found = np.minimum(found, places / reach)
    if end < length:
        found = np.minimum(found, places[::-1] / reach)
    return found
