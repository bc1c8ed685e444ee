"""The shapes of drawn defects: opacities between 0 and 1 over a window.

`y` `[h, 1]` and `x` `[1, w]` are the offsets of the window's pixels from the middle of the defect,
in pixels, as are all lengths. Every function draws one shape; `rng`, a `numpy.random.Generator`, is
consumed. Nothing lies farther than `REACH` diameters from the middle.
"""

from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

REACH = 0.75
_MAX_STRETCH = 1.6  # of an ellipse's axes, as a quotient
_NOISE_SHARE = 0.45  # how far noise moves the outline of a cloud, as a share of its radius
_OVERSAMPLING = 3  # of lines, for antialiasing


def blob(
    rng: np.random.Generator, y: np.ndarray, x: np.ndarray, *, diameter: float, softness: float
) -> np.ndarray:
    """Returns an ellipse with a wavy outline whose edge is `softness` wide, `[h, w]`."""
    u, v = _ellipse_axes(rng, y, x)
    bearing, distance = np.arctan2(v, u), np.hypot(u, v)
    outline = np.ones_like(distance)
    for waves in range(2, 6):
        depth = rng.uniform(-0.3, 0.3) / waves
        outline += depth * np.cos(waves * bearing + rng.uniform(0, 2 * np.pi))
    return _edge(0.5 * diameter * outline - distance, softness)


def rectangle(
    rng: np.random.Generator, y: np.ndarray, x: np.ndarray, *, diameter: float, softness: float
) -> np.ndarray:
    """Returns a turned rectangle, `diameter` long and at least a sixth of it wide, `[h, w]`."""
    turn, aspect = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(1 / 6), 0))
    u, v = _turned(y, x, turn)
    inside = np.minimum(0.5 * diameter - np.abs(u), 0.5 * diameter * aspect - np.abs(v))
    return _edge(inside, softness)


def cloud(
    rng: np.random.Generator, y: np.ndarray, x: np.ndarray, *, diameter: float, softness: float
) -> np.ndarray:
    """Returns fractal noise above a threshold that rises from the middle outwards, `[h, w]`.

    The threshold makes one region of the stated size of what would else fill the image (compare
    Zavrtanik et al. 2021, DRAEM, section 3.1).
    """
    noise = fractal_noise(rng, (y.shape[0], x.shape[1]), cells=rng.integers(2, 7))
    distance = np.hypot(*_ellipse_axes(rng, y, x))
    return _edge(0.5 * diameter * (1 + _NOISE_SHARE * noise) - distance, softness)


def bump(rng: np.random.Generator, y: np.ndarray, x: np.ndarray, *, diameter: float) -> np.ndarray:
    """Returns a mottled elliptic hill without an edge, 1 in the middle or somewhat less, `[h, w]`.

    At half its height it is `diameter` across, on average.
    """
    distance = np.hypot(*_ellipse_axes(rng, y, x)) / (REACH * diameter)
    hill = 0.5 + 0.5 * np.cos(np.pi * np.minimum(distance, 1))
    noise = fractal_noise(rng, hill.shape, cells=3)
    return hill**0.6 * (0.85 + 0.15 * noise)


def line(
    rng: np.random.Generator, y: np.ndarray, x: np.ndarray, *, diameter: float, width: float
) -> np.ndarray:
    """Returns a line from end to end of `diameter`: straight, curved or jagged, `[h, w]`."""
    count = 24
    shape = rng.choice(["straight", "curved", "jagged"])
    if shape == "straight":
        headings = np.zeros(count)
    elif shape == "curved":
        headings = rng.uniform(0.5, 2.5) * np.linspace(-0.5, 0.5, count)
    else:
        # Few corners where the line is short: steps below its width would only thicken it.
        corners = int(np.clip(diameter / (2 * width), 2, count))
        headings = np.repeat(rng.normal(0, 0.7, corners), -(-count // corners))[:count]
    headings = headings + rng.uniform(0, 2 * np.pi)
    points = np.cumsum(np.stack([np.cos(headings), np.sin(headings)], axis=1), axis=0)
    low, high = points.min(axis=0), points.max(axis=0)
    points = (points - (low + high) / 2) * (diameter / np.hypot(*(high - low)))
    taper = np.sin(np.linspace(0.15, np.pi - 0.15, count)) ** rng.choice([0.0, 0.5])

    canvas = Image.new("L", (_OVERSAMPLING * x.shape[1], _OVERSAMPLING * y.shape[0]))
    drawing = ImageDraw.Draw(canvas)
    points = _OVERSAMPLING * (points - [x[0, 0] - 0.5, y[0, 0] - 0.5])
    widths = np.maximum(np.round(_OVERSAMPLING * width * taper), 2).astype(int)
    for (start, end), thickness in zip(pairwise(points), widths[1:], strict=True):
        drawing.line([tuple(start), tuple(end)], fill=255, width=int(thickness))
        if thickness > _OVERSAMPLING:
            drawing.circle(tuple(end), thickness / 2, fill=255)
    return np.asarray(canvas.reduce(_OVERSAMPLING), np.float32) / 255


def fractal_noise(rng: np.random.Generator, shape: tuple[int, int], *, cells: int) -> np.ndarray:
    """Returns three octaves of smooth noise over `cells` cells, `[h, w]` in -1 .. 1."""
    noise = np.zeros(shape, np.float32)
    for octave in range(3):
        side = int(cells) * 2**octave + 1
        coarse = Image.fromarray(rng.uniform(-1, 1, (side, side)).astype(np.float32))
        fine = coarse.resize(shape[::-1], Image.Resampling.BICUBIC)
        noise += np.asarray(fine) * 0.5**octave
    return noise / max(np.abs(noise).max(), 1e-6)


def _edge(inside: np.ndarray, softness: float) -> np.ndarray:
    """Returns the opacity at depth `inside` within the outline: 0.5 on it."""
    return np.clip(inside / max(softness, 1.0) + 0.5, 0, 1).astype(np.float32)


def _turned(y: np.ndarray, x: np.ndarray, turn: float) -> tuple[np.ndarray, np.ndarray]:
    return np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x


def _ellipse_axes(rng, y, x):
    """Returns coordinates in which a randomly turned ellipse of the same area is a circle."""
    stretch = np.sqrt(rng.uniform(1, _MAX_STRETCH))
    u, v = _turned(y, x, rng.uniform(0, np.pi))
    return u / stretch, v * stretch
