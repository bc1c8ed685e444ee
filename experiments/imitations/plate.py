"""A ground metal plate with bright stripes, under many exposures; large, faint defects."""

import numpy as np
from scipy import ndimage

from experiments.imitations import camera

KINDS = ("broken_corner", "rust", "uneven")

_MAX_DEGREES = 3.0
_MARGIN = (5.0, 12.0)  # pixels of background around the plate
_METAL, _BACKGROUND = 105.0, 22.0


def make(rng: np.random.Generator, kind: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns a plate and its mask; see `sgfr_jax.datasets.products`."""
    side = camera.SIDE
    y, x = np.mgrid[:side, :side] - side / 2.0
    angle = np.deg2rad(rng.uniform(-_MAX_DEGREES, _MAX_DEGREES))
    across, along = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    surface = _ground(rng, across, along)
    margins = rng.uniform(*_MARGIN, 4)
    half = side / 2
    inside = np.minimum.reduce(
        [across + half - margins[0], half - margins[1] - across,
         along + half - margins[2], half - margins[3] - along]
    )  # fmt: skip
    background = _BACKGROUND + 3 * camera.smooth_noise(rng, (side, side), 2)

    clean = _render(surface, inside, background)
    marked = None
    if kind == "broken_corner":
        marked = _render(surface, _broken(rng, inside, across, along), background)
    elif kind == "rust":
        marked = _render(_rusted(rng, surface), inside, background)
    elif kind == "uneven":
        marked = _render(_uneven(rng, surface), inside, background)
    return camera.photograph(
        rng, clean, marked, blur=0.6, gain=(0.7, 1.35), gradient=0.3, noise=3, reach=4
    )


def _ground(rng, across, along):
    """Returns grinding marks: fine streaks of random length, and a few bright bands."""
    side = camera.SIDE
    fine = camera.smooth_noise(rng, (2 * side, 2 * side), (18, 0.6))
    coarse = camera.smooth_noise(rng, (2 * side, 2 * side), (60, 2.5))
    rows, columns = along + side, across + side
    surface = _METAL + ndimage.map_coordinates(8 * fine + 5 * coarse, [rows, columns], order=1)
    for _ in range(rng.integers(0, 4)):
        middle, width = rng.uniform(-side / 2, side / 2), rng.uniform(4, 14)
        band = np.exp(-0.5 * ((across - middle) / width) ** 2)
        surface = surface + rng.uniform(10, 28) * band
    return surface + 3 * camera.smooth_noise(rng, across.shape, 45)


def _render(surface, inside, background):
    edge = 0.25 * np.clip(1 - np.abs(inside - 1.5) / 2, 0, 1)
    share = np.clip(inside + 0.5, 0, 1)
    return background + share * (surface * (1 + edge) - background)


def _broken(rng, inside, across, along):
    """Returns the outline without one of the corners."""
    signs = rng.choice([-1, 1], 2)
    reach = rng.uniform(45, 95)
    slope = rng.uniform(0.6, 1.6)
    half = camera.SIDE / 2 - 8
    distance = (half - signs[0] * across) * slope + (half - signs[1] * along) / slope
    roughness = 5 * camera.smooth_noise(rng, inside.shape, 6)
    crack = (distance - reach) / np.hypot(slope, 1 / slope) + roughness
    return np.minimum(inside, crack)


def _rusted(rng, surface):
    """Returns the surface with a mottled patch of rust on it."""
    spread = _patch(rng, radii=(32, 58), softness=0.35, waves=0.3)
    mottle = camera.smooth_noise(rng, surface.shape, 2.5) + camera.smooth_noise(
        rng, surface.shape, 7
    )
    cover = spread * np.clip(0.6 + 0.35 * mottle, 0, 1)
    rust = 62 + 9 * camera.smooth_noise(rng, surface.shape, 1)
    return surface + rng.uniform(0.25, 0.55) * cover * (rust - surface)


def _uneven(rng, surface):
    """Returns the surface ground too much or too little over a large part."""
    spread = _patch(rng, radii=(40, 68), softness=0.7, waves=0.15)
    smooth = ndimage.gaussian_filter(surface, (2, 4))
    departure = rng.choice([-1, 1]) * rng.uniform(10, 20)
    return surface + spread * (0.3 * (smooth - surface) + departure)


def _patch(rng, *, radii, softness, waves):
    """Returns how much each pixel belongs to a large irregular region, 0 to 1."""
    side = camera.SIDE
    y, x = np.mgrid[:side, :side]
    x0, y0 = rng.uniform(60, side - 60, 2)
    distance = np.hypot((x - x0) / rng.uniform(*radii), (y - y0) / rng.uniform(*radii))
    distance = distance + waves * camera.smooth_noise(rng, (side, side), 14)
    return np.clip((1 - distance) / softness + 0.5, 0, 1)
