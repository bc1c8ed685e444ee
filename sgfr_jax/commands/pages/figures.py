"""Pictures of what a model saw: image, mask, anomaly map, overlay."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN = 8
HEADER = 22
OUTLINE = (0, 255, 255)

# Anchors of a colour scale whose lightness grows evenly, so that it also reads in grey.
COLOURS = np.array(
    [(0, 0, 4), (60, 9, 100), (130, 30, 108), (195, 55, 82), (240, 110, 40), (250, 185, 40),
     (252, 255, 164)], np.float64)  # fmt: skip


class Panel(NamedTuple):
    """One image and what was found in it."""

    title: str
    image: np.ndarray  # [H, W, 3] uint8
    mask: np.ndarray | None  # [H, W] bool; None: not known
    anomaly_map: np.ndarray  # [H, W]


class Scale(NamedTuple):
    """How maps are drawn, alike for all images of one model."""

    low: float  # darkest
    high: float  # brightest
    threshold: float  # what is above it is outlined


def colourise(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values as colours, `low` and below darkest, `high` and above brightest.

    Returns:
      `[..., 3]` uint8.
    """
    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    anchors = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(share, anchors, COLOURS[:, c]) for c in range(3)]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


# Of each level of a map the red, green and blue, and how much they hide of the image, 0 to 255.
_TABLES = colourise(np.linspace(0, 1, 256), 0.0, 1.0).T.tolist()
_OPACITY = [round(0.6 * level) for level in range(256)]


def blend(image: np.ndarray, anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """The image under its map, which shows the more the higher it is; `[H, W, 3]` uint8.

    Args:
      image: uint8 `[H, W]` or `[H, W, 3]`.
      anomaly_map: `[H, W]`, shown in 256 levels.
      low: as of `colourise`.
      high: as of `colourise`.
    """
    levels = (anomaly_map - np.float32(low)) * np.float32(255 / max(high - low, 1e-12))
    levels = np.clip(levels, 0, 255, out=levels)
    shown = Image.fromarray(np.round(levels, out=levels).astype(np.uint8))
    heat = Image.merge("RGB", [shown.point(table) for table in _TABLES])
    under = Image.fromarray(image).convert("RGB")
    return np.array(Image.composite(heat, under, shown.point(_OPACITY)))


def draw(panel: Panel, low: float, high: float) -> Image.Image:
    """Image, mask, map and overlay side by side; the mask's outline is drawn on the overlay.

    Args:
      panel: what to draw.
      low: the map's value that is drawn darkest.
      high: and brightest; the same for a whole category, so that its figures compare.
    """
    height, width = panel.anomaly_map.shape
    heat = colourise(panel.anomaly_map, low, high)
    overlay = blend(panel.image, panel.anomaly_map, low, high)
    mask = np.full((height, width, 3), 90, np.uint8)
    if panel.mask is not None:
        mask = np.repeat(panel.mask[..., None], 3, axis=2).astype(np.uint8) * 255
        overlay[outline(panel.mask)] = OUTLINE

    tiles = {"image": panel.image, "mask": mask, "anomaly map": heat, "overlay": overlay}
    if panel.mask is None:
        tiles = {"mask unknown" if name == "mask" else name: t for name, t in tiles.items()}
    canvas = Image.new(
        "RGB",
        (len(tiles) * (width + MARGIN) + MARGIN, height + 2 * HEADER + MARGIN),
        "white",
    )
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    pen.text((MARGIN, 4), panel.title, fill="black", font=font)
    for i, (name, tile) in enumerate(tiles.items()):
        left = MARGIN + i * (width + MARGIN)
        pen.text((left, HEADER + 2), name, fill=(90, 90, 90), font=font)
        canvas.paste(Image.fromarray(tile), (left, 2 * HEADER))
    return canvas


def save(path: Path, panel: Panel, low: float, high: float) -> None:
    """Draws a panel into a PNG file."""
    draw(panel, low, high).save(path)


def to_rgb(image: np.ndarray) -> np.ndarray:
    """A grey image `[H, W]` in three channels; one `[H, W, 3]` as it is."""
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def outline(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask that touch its outside."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside
