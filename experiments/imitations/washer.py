"""A turned ring with three holes, lying anywhere on a plain table; medium-sized defects."""

from typing import NamedTuple

import numpy as np

from experiments.imitations import camera

KINDS = ("chip", "dent", "tarnish")

_OUTER, _INNER, _HOLE, _BOLT_CIRCLE = 92.0, 40.0, 9.0, 66.0
_MAX_SHIFT = 22.0
_TABLE, _METAL = np.array([58.0, 62.0, 70.0]), np.array([150.0, 148.0, 142.0])


class _Part(NamedTuple):
    inside: np.ndarray  # [SIDE, SIDE], pixels within the outline, negative outside
    surface: np.ndarray  # [SIDE, SIDE, 3], of the metal
    table: np.ndarray  # [SIDE, SIDE, 3]
    x: np.ndarray  # [SIDE, SIDE], from the middle of the part
    y: np.ndarray
    light: float  # where it comes from, in radians


def make(rng: np.random.Generator, kind: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns a washer and its mask; see `sgfr_jax.datasets.products`."""
    part = _part(rng)
    clean = _render(part)
    marked = None if kind is None else _render(_DEFECTS[kind](rng, part))
    return camera.photograph(
        rng, clean, marked, blur=0.8, gain=(0.85, 1.15), gradient=0.2, noise=2, reach=2
    )


def _part(rng):
    side = camera.SIDE
    y, x = np.mgrid[:side, :side] - side / 2.0
    x, y = x - rng.uniform(-_MAX_SHIFT, _MAX_SHIFT), y - rng.uniform(-_MAX_SHIFT, _MAX_SHIFT)
    radius, bearing = np.hypot(x, y), np.arctan2(y, x)
    inside = np.minimum(_OUTER - radius, radius - _INNER)
    rotation = rng.uniform(0, 2 * np.pi)
    for angle in rotation + np.arange(3) * 2 * np.pi / 3:
        hole = np.hypot(x - _BOLT_CIRCLE * np.cos(angle), y - _BOLT_CIRCLE * np.sin(angle))
        inside = np.minimum(inside, hole - _HOLE)

    # The light is fixed to the table and the grooves run around, so two bright sectors stand still.
    light = np.deg2rad(35) + rng.normal(0, 0.12)
    glint = np.abs(np.cos(bearing - light)) ** 6
    grooves = np.interp(
        radius + 0.4 * np.sin(bearing - rotation),
        np.arange(200) * 0.75,
        camera.smooth_noise(rng, (2, 200), (0.0, 0.8))[0],
    )
    grain = camera.smooth_noise(rng, (side, side), 0.8)
    shading = 0.78 + 0.4 * glint + grooves * (0.035 + 0.05 * glint) + 0.015 * grain
    surface = _METAL * shading[:, :, None]
    mottle = 2.5 * camera.smooth_noise(rng, (side, side), 1.2)[:, :, None]
    table = np.broadcast_to(_TABLE * rng.uniform(0.9, 1.1), (side, side, 3)) + mottle
    return _Part(inside, surface, table, x, y, light)


def _render(part):
    """Returns the part with its chamfers and its shadow on the table, `[SIDE, SIDE, 3]`."""
    down, right = np.gradient(part.inside)
    facing = -(np.cos(part.light) * right + np.sin(part.light) * down)
    chamfer = np.clip(1 - np.abs(part.inside - 1.5) / 2, 0, 1)
    metal = part.surface * (1 + 0.35 * facing * chamfer)[:, :, None]
    shadow = np.clip(1 + part.inside / 7, 0, 1)
    table = part.table * (1 - 0.45 * shadow)[:, :, None]
    share = np.clip(part.inside + 0.5, 0, 1)[:, :, None]
    return table + share * (metal - table)


def _chip(rng, part):
    """Breaks a piece off the outer or the inner edge."""
    angle = rng.uniform(0, 2 * np.pi)
    edge = rng.choice([_OUTER, _INNER], p=[0.7, 0.3])
    radius = rng.uniform(8, 16)
    x, y = part.x - edge * np.cos(angle), part.y - edge * np.sin(angle)
    bearing = np.arctan2(y, x)
    # Broken, not cut: an outline with corners.
    knots = np.linspace(-np.pi, np.pi, 14)
    lengths = radius * rng.uniform(0.65, 1.2, len(knots))
    lengths[-1] = lengths[0]
    outline = np.interp(bearing, knots, lengths)
    return part._replace(inside=np.minimum(part.inside, np.hypot(x, y) - outline))


def _dent(rng, part):
    """Presses a hollow into the surface: dark towards the light and bright away from it."""
    x, y = _on_ring(rng, part, clearance=10)
    radius = rng.uniform(7, 12)
    distance = np.hypot(x, y) / radius
    slope = distance * np.clip(1 - distance**2, 0, 1) ** 1.2 * 2.2
    towards = np.cos(np.arctan2(y, x) - part.light)
    depth = rng.uniform(0.35, 0.7)
    shading = 1 - depth * slope * towards - 0.12 * np.clip(1 - distance**2, 0, 1)
    return part._replace(surface=part.surface * shading[:, :, None])


def _tarnish(rng, part):
    """Discolours a part of the surface: annealed blue or straw, or dull."""
    x, y = _on_ring(rng, part, clearance=4)
    long, short = rng.uniform(18, 32), rng.uniform(12, 22)
    turn = rng.uniform(0, np.pi)
    u, v = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    waves = 0.2 * camera.smooth_noise(rng, x.shape, 8)
    share = np.clip((1.15 - np.hypot(u / long, v / short) - waves) / 0.5, 0, 1)
    tints = ((0.82, 0.9, 1.1), (1.08, 0.92, 0.68), (0.75, 0.74, 0.72))
    tint = np.array(tints[rng.integers(len(tints))])
    strength = share * rng.uniform(0.6, 1)
    return part._replace(surface=part.surface * (1 + strength[:, :, None] * (tint - 1)))


_DEFECTS = {"chip": _chip, "dent": _dent, "tarnish": _tarnish}


def _on_ring(rng, part, *, clearance):
    """Returns the coordinates from a random place on the metal, that far from any edge."""
    places = np.argwhere(part.inside > clearance)
    row, column = places[rng.integers(len(places))]
    return part.x - part.x[row, column], part.y - part.y[row, column]
