"""A plain weave of fine threads that differ a little; small and elongated defects."""

import numpy as np
from scipy import ndimage

from experiments.imitations import camera

KINDS = ("knot", "missing_thread", "oil", "slub")

_PERIOD = 8.0  # pixels from thread to thread
_MAX_DEGREES = 4.0
_GROUND, _THREAD, _CROSSING = 62.0, 105.0, 0.3


def make(rng: np.random.Generator, kind: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns a piece of cloth and its mask; see `sgfr_jax.datasets.products`."""
    side = camera.SIDE
    y, x = np.mgrid[:side, :side] - side / 2.0
    angle = np.deg2rad(rng.uniform(-_MAX_DEGREES, _MAX_DEGREES))
    stretch = rng.uniform(0.96, 1.04, 2)
    shifts = rng.uniform(0, 2 * _PERIOD, 2)
    # Threads wander: by much where they are long, as a whole and slowly.
    drift = [0.8 * camera.smooth_noise(rng, (side, side), 22) for _ in range(2)]
    u = (np.cos(angle) * x + np.sin(angle) * y) * stretch[0] + shifts[0] + drift[0]
    v = (np.cos(angle) * y - np.sin(angle) * x) * stretch[1] + shifts[1] + drift[1]
    count = int(2 * side / _PERIOD) + 8
    brightness = rng.normal(1, 0.05, (2, count))
    widths = rng.normal(0.82, 0.035, (2, count))
    # Fibres run along their thread.
    fibres = np.stack([camera.smooth_noise(rng, (side, side), s) for s in ((3, 0.7), (0.7, 3))])

    strands = np.ones((2, side, side))
    clean = _render(u, v, brightness, widths, fibres, strands)
    marked = None
    if kind == "missing_thread":
        marked = _render(u, v, brightness, widths, fibres, _torn(rng, u, v))
    elif kind == "slub":
        marked = _render(u, v, brightness, widths, fibres, _thickened(rng, u, v))
    elif kind == "oil":
        marked = _oiled(rng, clean, x, y)
    elif kind == "knot":
        marked = _knotted(rng, clean, x, y)
    return camera.photograph(
        rng, clean, marked, blur=0.8, gain=(0.88, 1.12), gradient=0.15, noise=3, reach=3
    )


def _render(u, v, brightness, widths, fibres, strands):
    """Returns the cloth, `[SIDE, SIDE]`.

    Args:
      u, v: where a pixel lies across the warp and across the weft, in pixels.
      brightness, widths: `[2, threads]`, of warp and weft.
      fibres: `[2, SIDE, SIDE]`, their texture.
      strands: `[2, SIDE, SIDE]`, the thickness of the threads here: 1 is usual, 0 is none.
    """
    heights, values = [], []
    for axis, (across, along) in enumerate(((u, v), (v, u))):
        thread = np.floor(across / _PERIOD).astype(int)
        offset = np.abs(across / _PERIOD - thread - 0.5) * 2
        other = np.floor(along / _PERIOD)
        # Over and under the other system's threads in turn.
        over = np.where((thread + other + axis) % 2 == 0, 1, -1)
        arch = np.sin(np.pi * (along / _PERIOD - other))
        width = widths[axis][thread] * strands[axis]
        inside = np.clip((width - offset) * _PERIOD / 2 + 0.5, 0, 1)
        roundness = np.sqrt(np.clip(1 - (offset / np.maximum(width, 1e-3)) ** 2, 0, 1))
        height = np.where(inside > 0, over * arch * 0.5 + 0.5 * roundness, -2)
        value = _THREAD * brightness[axis][thread] * (0.45 + 0.55 * roundness)
        value = value * (1 + _CROSSING * over * arch) + 6 * fibres[axis]
        heights.append(height)
        values.append((value, inside))
    warp_on_top = heights[0] >= heights[1]
    surface = np.full(u.shape, _GROUND * 0.7)
    for first in (False, True):
        for axis, (value, inside) in enumerate(values):
            on_top = warp_on_top if axis == 0 else ~warp_on_top
            share = inside * (on_top == first)
            surface = surface + share * (value - surface)
    return surface + 20


def _torn(rng, u, v):
    """Returns the strands without one thread, over a part of its length."""
    strands, here = _along_one_thread(rng, u, v, lengths=(45, 150), softness=2)
    return strands * (1 - here)


def _thickened(rng, u, v):
    """Returns the strands with one thread thick for a while."""
    strands, here = _along_one_thread(rng, u, v, lengths=(25, 60), softness=8)
    return strands * (1 + 0.55 * here)


def _along_one_thread(rng, u, v, *, lengths, softness):
    axis = rng.integers(2)
    across, along = ((u, v), (v, u))[axis]
    place = rng.integers(40, camera.SIDE - 40, 2)
    thread = np.floor(across / _PERIOD)
    distance = np.abs(along - along[tuple(place)])
    half = rng.uniform(*lengths) / 2
    here = (thread == thread[tuple(place)]) * np.clip((half - distance) / softness + 0.5, 0, 1)
    both = np.zeros((2, *u.shape))
    both[axis] = here
    return np.ones_like(both), both


def _oiled(rng, clean, x, y):
    """Returns the cloth with a drop of oil that spread along the threads."""
    x0, y0 = rng.uniform(-95, 95, 2)
    long, short = rng.uniform(12, 26), rng.uniform(6, 11)
    if rng.uniform() < 0.5:
        long, short = short, long
    waves = 0.18 * camera.smooth_noise(rng, clean.shape, 5)
    distance = np.hypot((x - x0) / long, (y - y0) / short) + waves
    spread = np.clip((1.1 - distance) / 0.3, 0, 1)
    tint = rng.uniform(0.5, 0.75)
    return clean * (1 - (1 - tint) * spread)


def _knotted(rng, clean, x, y):
    """Returns the cloth with a lump of thread on it that throws a shadow."""
    x0, y0 = rng.uniform(-105, 105, 2)
    radius = rng.uniform(4.5, 7.5)
    waves = 0.15 * camera.smooth_noise(rng, clean.shape, 2.5)
    distance = np.hypot(x - x0, y - y0) / radius + waves
    shadow = np.clip((1.25 - np.hypot(x - x0 - 2.5, y - y0 - 2.5) / radius) / 0.4, 0, 1)
    lump = np.clip((1 - distance) / 0.2, 0, 1)
    turn = rng.uniform(0, np.pi)
    winding = np.sin((np.cos(turn) * x + np.sin(turn) * y) * 2 * np.pi / 5)
    value = rng.uniform(125, 160) * (1 - 0.35 * np.clip(distance, 0, 1) ** 2) + 12 * winding
    value = ndimage.gaussian_filter(value, 0.5)
    shaded = clean * (1 - 0.4 * shadow)
    return shaded + lump * (value - shaded)
