"""Pictures of one image and its map at a limited size, drawn by threads, some rows at a time.

A photograph of 25 megapixels shows its defects as well on two; and floats for every pixel of it, at
every step of the drawing, would take gigabytes.
"""

import math
from concurrent.futures import Executor

import numpy as np
from PIL import Image

from sgfr_jax.commands.pages import figures

# Unless a scale is asked for, an image of more pixels than the first (more than Full HD) is drawn
# with as many as the second: writing more of them takes longer than half of scoring.
MOST_PIXELS, PIXELS_OF_LARGE = 1 << 21, 5 << 18
# That are drawn at a time.
_ROWS = 128


def shape_of(image: tuple[int, int], scale: float | None = None) -> tuple[int, int]:
    """Height and width of the pictures of an image `[H, W]`.

    Args:
      image: its height and width.
      scale: their share of the image's; None: 1, or as much as leaves about `PIXELS_OF_LARGE` of
        more than `MOST_PIXELS`.
    """
    num_pixels = math.prod(image)
    if scale is None:
        scale = math.sqrt(PIXELS_OF_LARGE / num_pixels) if num_pixels > MOST_PIXELS else 1.0
    return tuple(max(1, round(scale * side)) for side in image)


def overlay(
    image: np.ndarray, anomaly_map: np.ndarray, scale: figures.Scale, pool: Executor
) -> Image.Image:
    """The image under its map, at the map's size; what is above the threshold is outlined.

    Args:
      image: uint8 `[H, W]` or `[H, W, 3]`, no smaller than the map.
      anomaly_map: float32 `[h, w]`, of the whole image.
      scale: of the map.
      pool: what draws; the caller's threads wait for it.
    """
    height, width = anomaly_map.shape
    canvas = Image.new("RGB", (width, height))

    def draw(top: int) -> None:
        bottom = min(top + _ROWS, height)
        values = anomaly_map[top:bottom]
        under = _rows_of(image, top, bottom, anomaly_map.shape)
        strip = figures.blend(under, values, scale.low, scale.high)
        strip[_outline(anomaly_map, top, bottom, scale.threshold)] = figures.OUTLINE
        canvas.paste(Image.fromarray(strip), (0, top))

    list(pool.map(draw, range(0, height, _ROWS)))
    return canvas


def _rows_of(image: np.ndarray, top: int, bottom: int, shape: tuple[int, int]) -> np.ndarray:
    """Some rows of the image shrunk to a height and width; no other rows are touched."""
    if image.shape[:2] == shape:
        return image[top:bottom]
    height, width = image.shape[:2]
    begin, end = (min(height, row * height / shape[0]) for row in (top, bottom))
    first, last = math.floor(begin), math.ceil(end)
    # The filter that looks at no pixel outside of its own box.
    return np.asarray(
        Image.fromarray(image[first:last]).resize(
            (shape[1], bottom - top), Image.Resampling.BOX, (0, begin - first, width, end - first)
        )
    )


def _outline(anomaly_map: np.ndarray, top: int, bottom: int, threshold: float) -> np.ndarray:
    """Some rows of the outline of what is above the threshold."""
    before, after = max(0, top - 1), bottom + 1  # the outline depends on the neighbours
    found = figures.outline(anomaly_map[before:after] > threshold)
    return found[top - before :][: bottom - top]
