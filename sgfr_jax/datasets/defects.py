"""Defects drawn on nominal images.

Every kind is a pure function `(rng, image) -> (image, mask)`: `rng` is a `numpy.random.Generator`,
which is consumed; `image` is uint8 `[H, W]` or `[H, W, C]` of at least 16 x 16 pixels and is left
alone; `mask` is bool `[H, W]`. Lengths are fractions of the shorter side, so a defect looks alike
at every size. Edges are blended: each defect has an opacity between 0 and 1, and below
`MIN_OPACITY` nothing is drawn. The mask is where something was drawn, so outside of it the image
is unchanged to the bit.

`smear` and `patch` move texture about; on an image without texture they change nothing.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# How far a defect departs from its surroundings, in grey levels, each drawn between the two. A
# coarse texture hides more than a smooth surface, so TEXTURE_SHARE of the image's own standard
# deviation is added.
SCRATCH_CONTRAST = (70, 100)
CRACK_CONTRAST = (60, 90)
STAIN_CONTRAST = (50, 70)
HOLE_CONTRAST = (45, 75)
TEXTURE_SHARE = 1.2
# How much of the texture below each kind wipes out.
LINE_FLATNESS, STAIN_FLATNESS, HOLE_FLATNESS = 0.9, 0.7, 0.9
# Lengths are fractions of the image's shorter side.
SCRATCH_WIDTH, SCRATCH_LENGTH = (0.03, 0.045), (0.5, 0.8)
CRACK_WIDTH, CRACK_LENGTH = (0.032, 0.048), (0.5, 0.8)
STAIN_RADIUS = (0.12, 0.21)
HOLE_RADIUS = (0.06, 0.11)
SMEAR_RADIUS, SMEAR_LENGTH = (0.14, 0.2), (0.2, 0.27)  # the length of the motion blur
PATCH_RADIUS, PATCH_OPACITY = (0.14, 0.2), (0.9, 1.0)
MIN_OPACITY = 0.2  # a step of this times the contrast is lost in any texture

_MIN_SIDE = 16
_OVERSAMPLING = 4  # of lines, for antialiasing
_MAX_COPIES = 64  # that a smear averages

Defect = Callable[[np.random.Generator, np.ndarray], tuple[np.ndarray, np.ndarray]]


def scratch(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws one thin curved line, lighter or darker than its surroundings, tapering at its ends."""
    _check(image)
    middle = _point(rng, image)
    angle, length, bend = (
        rng.uniform(0, 2 * np.pi),
        rng.uniform(*SCRATCH_LENGTH),
        rng.uniform(-0.6, 0.6),
    )
    t = np.linspace(0, 1, 25)
    headings = angle + bend * (t - 0.5)
    steps = np.stack([np.cos(headings), np.sin(headings)], axis=1) * length / len(t)
    widths = rng.uniform(*SCRATCH_WIDTH) * np.sqrt(np.sin(np.pi * np.clip(t, 0.05, 0.95)))
    line = np.cumsum(steps, axis=0)
    opacity = _draw_lines(image, [(middle + line - line.mean(axis=0), widths)])
    layer = _tinted(rng, image, opacity, SCRATCH_CONTRAST, flatness=LINE_FLATNESS)
    return _blend(image, layer, opacity)


def crack(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws a jagged dark line with branches."""
    _check(image)
    width = rng.uniform(*CRACK_WIDTH)
    angle = rng.uniform(0, 2 * np.pi)
    trunk = _jagged(rng, np.zeros(2), angle, rng.uniform(*CRACK_LENGTH))
    trunk += _point(rng, image) - trunk.mean(axis=0)
    lines = [(trunk, np.linspace(width, 0.5 * width, len(trunk)))]
    for _ in range(rng.integers(1, 4)):
        turn = rng.choice([-1, 1]) * rng.uniform(0.5, 1.1)
        branch = _jagged(rng, trunk[rng.integers(2, len(trunk))], angle + turn, 0.2)
        lines.append((branch, np.linspace(0.7 * width, 0.4 * width, len(branch))))
    opacity = _draw_lines(image, lines)
    layer = _tinted(rng, image, opacity, CRACK_CONTRAST, flatness=LINE_FLATNESS, sign=-1)
    return _blend(image, layer, opacity)


def stain(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tints a soft, mottled region darker or lighter; the texture shows through."""
    _check(image)
    opacity = _blob(rng, image, radius=rng.uniform(*STAIN_RADIUS), softness=0.05)
    mottle = 0.75 + 0.25 * _smooth_noise(rng, image.shape[:2], cells=6)
    layer = _tinted(rng, image, opacity, STAIN_CONTRAST, flatness=STAIN_FLATNESS, scale=mottle)
    return _blend(image, layer, opacity)


def hole(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Replaces a small region by a dark pit that is lit from one side and has little texture."""
    _check(image)
    opacity = _blob(rng, image, radius=rng.uniform(*HOLE_RADIUS), softness=0.02)
    y, x = _grid(image)
    angle = rng.uniform(0, 2 * np.pi)
    light = np.cos(angle) * x + np.sin(angle) * y
    light = light - np.average(light, weights=opacity)
    pit = _tinted(rng, image, opacity, HOLE_CONTRAST, flatness=HOLE_FLATNESS, sign=-1)
    return _blend(image, pit + _like(200 * light, image), opacity)


def smear(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smears the texture of a region in one direction (a motion blur)."""
    _check(image)
    opacity = _blob(rng, image, radius=rng.uniform(*SMEAR_RADIUS), softness=0.03)
    angle = rng.uniform(0, np.pi)
    length = max(3.0, rng.uniform(*SMEAR_LENGTH) * min(image.shape[:2]))
    smeared = np.zeros(image.shape)
    offsets = np.linspace(-0.5, 0.5, min(int(np.ceil(length)) + 1, _MAX_COPIES)) * length
    for offset in offsets:
        smeared += _moved(image, offset * np.cos(angle), offset * np.sin(angle))
    return _blend(image, smeared / len(offsets), opacity)


def patch(
    rng: np.random.Generator, image: np.ndarray, *, donor: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Sets in a piece of another texture, matched in mean brightness.

    Args:
      rng: consumed.
      image: uint8 `[H, W]` or `[H, W, C]`.
      donor: where the piece comes from, with as many channels as `image` and at least as large;
        `None` takes the image itself, turned by 90 degrees and shrunk to half.
    """
    _check(image)
    opacity = _blob(rng, image, radius=rng.uniform(*PATCH_RADIUS), softness=0.03)
    height, width = image.shape[:2]
    if donor is None:
        half = np.rot90(np.asarray(Image.fromarray(image).reduce(2)))
        tiles = (-(-height // half.shape[0]), -(-width // half.shape[1])) + (1,) * (image.ndim - 2)
        donor = np.tile(half, tiles)
    if donor.ndim != image.ndim or any(np.less(donor.shape[:2], image.shape[:2])):
        raise ValueError(
            f"donor {list(donor.shape)} must be as large as image {list(image.shape)} or larger, "
            "with as many channels."
        )
    top = rng.integers(donor.shape[0] - height + 1)
    left = rng.integers(donor.shape[1] - width + 1)
    piece = donor[top : top + height, left : left + width].astype(float)
    piece += _local_mean(image, opacity) - _local_mean(piece, opacity)
    return _blend(image, piece, opacity * rng.uniform(*PATCH_OPACITY))


DEFECTS: dict[str, Defect] = {
    "crack": crack,
    "hole": hole,
    "patch": patch,
    "scratch": scratch,
    "smear": smear,
    "stain": stain,
}


def _check(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or min(image.shape[:2]) < _MIN_SIDE:
        raise ValueError(
            f"image is {image.dtype} {list(image.shape)}; uint8 [H, W] or [H, W, C] of at least "
            f"{_MIN_SIDE} x {_MIN_SIDE} pixels is needed."
        )


def _blend(
    image: np.ndarray, layer: np.ndarray, opacity: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns `layer` over `image` and where it was drawn; layer float `[H, W(, C)]`."""
    mask = opacity >= MIN_OPACITY
    weight = _like(np.where(mask, opacity, 0), image)
    mixed = np.round(image + weight * (np.clip(layer, 0, 255) - image))
    return mixed.astype(np.uint8), mask


def _tinted(rng, image, opacity, contrast, *, flatness, sign=None, scale=1.0):
    """Returns a darker (sign -1) or lighter (1) layer, turned over where the range has no room.

    Args:
      rng: consumed.
      image: what lies below.
      opacity: `[H, W]`, where the layer will be seen.
      contrast: the two grey levels that the departure is drawn between.
      flatness: how much of the texture below is wiped out, 0 to 1.
      sign: of the departure; `None` draws it.
      scale: broadcastable to `[H, W]`, multiplies the departure.
    """
    amount = rng.uniform(*contrast) + TEXTURE_SHARE * image.std(axis=(0, 1)).mean()
    sign = rng.choice([-1, 1]) if sign is None else sign
    mean = _local_mean(image, opacity)
    room = np.mean(255 - mean if sign > 0 else mean)
    if room < 0.75 * amount:
        sign = -sign
    departure = np.broadcast_to(sign * amount * scale, image.shape[:2])
    return mean + (1 - flatness) * (image - mean) + _like(departure, image)


def _local_mean(image: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Returns the mean under `opacity`, a scalar or one value per channel."""
    return np.tensordot(opacity, image, axes=2) / opacity.sum()


def _like(plane: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Returns `plane` `[H, W]` with the axes of `image`."""
    return plane if image.ndim == 2 else plane[:, :, None]


def _grid(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixels' y and x in units of the shorter side, each broadcastable to `[H, W]`."""
    height, width = image.shape[:2]
    y, x = np.ogrid[:height, :width]
    return (y + 0.5) / min(height, width), (x + 0.5) / min(height, width)


def _point(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Returns a random (x, y) away from the border, in units of the shorter side."""
    extent = np.array(image.shape[1::-1]) / min(image.shape[:2])
    return rng.uniform(0.2, 0.8, 2) * extent


def _blob(rng, image, *, radius, softness):
    """Returns the opacity of an irregular region: an ellipse whose outline is waved."""
    x0, y0 = _point(rng, image)
    y, x = _grid(image)
    x, y = x - x0, y - y0
    turn, stretch = rng.uniform(0, np.pi), np.sqrt(rng.uniform(0.55, 1.0))
    u = (np.cos(turn) * x + np.sin(turn) * y) * stretch
    v = (np.cos(turn) * y - np.sin(turn) * x) / stretch
    bearing, distance = np.arctan2(v, u), np.hypot(u, v)
    outline = radius * np.ones_like(distance)
    for waves in range(2, 7):
        depth = rng.normal(0, 0.25 / waves)
        outline += radius * depth * np.cos(waves * bearing + rng.uniform(0, 2 * np.pi))
    # Never vanishing, so that the mask is never empty.
    outline = np.maximum(outline, 0.4 * radius)
    pixel = 1 / min(image.shape[:2])
    softness, outline = max(softness, pixel), np.maximum(outline, 2 * pixel)
    return np.clip((outline - distance) / softness + 0.5, 0, 1)


def _jagged(rng, start, angle, length):
    """Returns the points `[n, 2]` of a random walk that keeps its direction on the whole."""
    count = max(4, int(length / 0.035))
    headings = angle + rng.normal(0, 0.55, count)
    steps = np.stack([np.cos(headings), np.sin(headings)], axis=1) * (length / count)
    return start + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])


def _draw_lines(image, lines):
    """Returns the opacity of lines `(points [n, 2], widths [n])`, slightly blurred."""
    height, width = image.shape[:2]
    unit = min(height, width) * _OVERSAMPLING
    canvas = Image.new("L", (width * _OVERSAMPLING, height * _OVERSAMPLING))
    draw = ImageDraw.Draw(canvas)
    for points, widths in lines:
        points = [tuple(point) for point in points * unit]
        # A line thinner than a pixel would be too faint to see.
        widths = np.maximum(widths * unit, 1.2 * _OVERSAMPLING)
        for (start, end), thickness in zip(pairwise(points), widths[1:], strict=True):
            draw.line([start, end], fill=255, width=round(thickness))
            draw.circle(end, thickness / 2, fill=255)
    canvas = canvas.filter(ImageFilter.GaussianBlur(0.35 * _OVERSAMPLING)).reduce(_OVERSAMPLING)
    return np.asarray(canvas) / 255


def _smooth_noise(rng, shape, *, cells):
    """Returns smooth noise `[H, W]` in [-1, 1]."""
    coarse = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize(shape[::-1], Image.Resampling.BILINEAR))


def _moved(image: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """Returns the pixels at an offset; beyond the border, those of the border's mirror image."""
    rows, columns = (
        _mirror(np.arange(length) + offset, length)
        for length, offset in zip(image.shape[:2], (dy, dx), strict=True)
    )
    return image[rows[:, None], columns]


def _mirror(positions: np.ndarray, length: int) -> np.ndarray:
    positions = np.round(positions).astype(int) % (2 * length)
    return np.where(positions < length, positions, 2 * length - 1 - positions)
