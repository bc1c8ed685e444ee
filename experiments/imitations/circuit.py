"""A printed board: one layout of fine tracks, pads and vias; very small defects."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from experiments.imitations import camera

KINDS = ("missing_hole", "mouse_bite", "open", "short", "spur")

_SCALE = 3  # subpixels per pixel
_PITCH, _NUM_TRACKS, _TRACK = 12.0, 8, 5.0  # pixels
_PAD, _VIA, _HOLE = (6.0, 12.0), 4.5, 2.0
_MAX_SHIFT, _MAX_DEGREES = 4.0, 1.0
_BOARD, _COPPER, _TIN, _DRILLED = (26, 84, 50), (58, 138, 80), (196, 188, 160), (24, 26, 26)
# Where each bundle of tracks starts (x, y), where it heads, and to which side it bends.
_BUNDLES = (
    ((20.0, 18.0), 0, 1),
    ((238.0, 22.0), 90, 1),
    ((236.0, 238.0), 180, 1),
    ((18.0, 234.0), 270, 1),
)


class _Layout(NamedTuple):
    tracks: list[np.ndarray]  # [4, 2] each: pad, two corners, via; (x, y) in pixels
    headings: list[float]  # of each track at its pad, in radians
    widths: list[float]


def make(rng: np.random.Generator, kind: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns a board and its mask; see `sgfr_jax.datasets.products`."""
    layout = _layout(rng)
    shift, angle = rng.uniform(-1, 1, 2) * _MAX_SHIFT, np.deg2rad(rng.uniform(-1, 1) * _MAX_DEGREES)
    fibres = 2 * camera.smooth_noise(rng, (camera.SIDE, camera.SIDE), 1.5)[:, :, None]
    tints = [np.array(c) * rng.uniform(0.94, 1.06) for c in (_BOARD, _COPPER, _TIN, _DRILLED)]

    layers = _layers(layout)
    clean = _render(layers, tints, shift, angle) + fibres
    marked = None
    if kind is not None:
        _DEFECTS[kind](rng, layout, [ImageDraw.Draw(layer) for layer in layers])
        marked = _render(layers, tints, shift, angle) + fibres
    return camera.photograph(
        rng, clean, marked, blur=0.7, gain=(0.85, 1.15), gradient=0.15, noise=2.5, reach=1
    )


def _layout(rng):
    """Returns the one layout; only the tracks' widths and lengths vary from board to board."""
    tracks, headings, widths = [], [], []
    for (x, y), degrees, side in _BUNDLES:
        heading = np.deg2rad(degrees)
        for i in range(_NUM_TRACKS):
            # In the bundle's own frame: across, along. Corners are staggered to keep the spacing.
            across = i * _PITCH
            bend = 34 - side * i * _PITCH * np.tan(np.pi / 8) + 14
            end = (92 if i % 2 else 76) + rng.uniform(-1.5, 1.5)
            path = np.array([[0, 0], [0, bend], [side * 16, bend + 16], [side * 16, end]])
            path[:, 0] += across
            cos, sin = np.cos(heading), np.sin(heading)
            turned = path @ np.array([[cos, sin], [-sin, cos]])
            tracks.append(turned + np.array([x, y]))
            headings.append(heading)
            widths.append(_TRACK * rng.uniform(0.9, 1.1))
    return _Layout(tracks, headings, widths)


def _layers(layout):
    """Returns three canvases: what is copper, what is tinned, and what is drilled."""
    side = camera.SIDE * _SCALE
    copper, tin, drilled = layers = [Image.new("L", (side, side)) for _ in range(3)]
    for path, heading, width in zip(*layout, strict=True):
        _stroke(ImageDraw.Draw(copper), path, width, 255)
        corners = _box(path[0], heading, *_PAD)
        ImageDraw.Draw(tin).polygon([tuple(_SCALE * c) for c in corners], fill=255)
        _disc(ImageDraw.Draw(tin), path[-1], _VIA, 255)
        _disc(ImageDraw.Draw(drilled), path[-1], _HOLE, 255)
    return layers


def _render(layers, tints, shift, angle):
    """Returns the board as the camera stands over it, `[SIDE, SIDE, 3]`."""
    middle, cos, sin = camera.SIDE / 2, np.cos(angle), np.sin(angle)
    dx, dy = shift + middle
    matrix = (cos, -sin, dx - cos * middle + sin * middle,
              sin, cos, dy - sin * middle - cos * middle)  # fmt: skip
    # Canvas coordinates are _SCALE times as large.
    matrix = tuple(v * (_SCALE if i % 3 == 2 else 1) for i, v in enumerate(matrix))
    board, *covers = tints
    surface = np.broadcast_to(board, (camera.SIDE, camera.SIDE, 3))
    for layer, tint in zip(layers, covers, strict=True):
        seen = layer.transform(layer.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)
        share = np.asarray(seen.reduce(_SCALE), float)[:, :, None] / 255
        surface = surface + share * (tint - surface)
    return surface


def _open(rng, layout, drawings):
    """Interrupts a track."""
    width, place, along = _on_track(rng, layout)
    gap = rng.uniform(3.5, 7)
    ends = np.array([place - along * gap / 2, place + along * gap / 2])
    _stroke(drawings[0], ends, width + 3, 0, round_ends=False)


def _short(rng, layout, drawings):
    """Joins two neighbouring tracks."""
    first = rng.integers(len(_BUNDLES)) * _NUM_TRACKS + rng.integers(_NUM_TRACKS - 1)
    near, far = layout.tracks[first], layout.tracks[first + 1]
    # Between their first legs, where they run side by side beyond the pads.
    along = (far[1] - far[0]) * min(
        1, np.hypot(*(near[1] - near[0])) / np.hypot(*(far[1] - far[0]))
    )
    start = near[0] + rng.uniform(0.8, 1.0) * along
    end = start + far[0] - near[0] + rng.uniform(-2, 2, 2)
    _stroke(drawings[0], np.array([start, end]), rng.uniform(2.5, 5), 255)


def _mouse_bite(rng, layout, drawings):
    """Takes a round piece out of a track's edge."""
    width, place, along = _on_track(rng, layout)
    across = rng.choice([-1, 1]) * np.array([-along[1], along[0]])
    _disc(drawings[0], place + across * width / 2, rng.uniform(2.4, 3.6), 0)


def _spur(rng, layout, drawings):
    """Lets copper stick out of a track."""
    width, place, along = _on_track(rng, layout)
    across = rng.choice([-1, 1]) * np.array([-along[1], along[0]])
    base, tip = rng.uniform(2, 3.5), width / 2 + rng.uniform(3, 4.5)
    corners = [place - along * base, place + along * base, place + across * tip]
    corners.insert(2, place + across * tip + along * 0.8)
    drawings[0].polygon([tuple(_SCALE * corner) for corner in corners], fill=255)


def _missing_hole(rng, layout, drawings):
    """Leaves a via undrilled."""
    path = layout.tracks[rng.integers(len(layout.tracks))]
    _disc(drawings[2], path[-1], _HOLE + 1, 0)


_DEFECTS = {
    "missing_hole": _missing_hole,
    "mouse_bite": _mouse_bite,
    "open": _open,
    "short": _short,
    "spur": _spur,
}


def _on_track(rng, layout):
    """Returns a track's width, a place on it that no pad or via covers, and its direction there."""
    i = rng.integers(len(layout.tracks))
    path = layout.tracks[i]
    leg = rng.integers(2)
    low, high = ((10, -2), (2, -2))[leg]
    step = path[leg + 1] - path[leg]
    length = np.hypot(*step)
    place = path[leg] + step / length * rng.uniform(low, length + high)
    return layout.widths[i], place, step / length


def _stroke(drawing, points, width, fill, *, round_ends=True):
    points = [tuple(_SCALE * point) for point in points]
    drawing.line(points, fill=fill, width=round(_SCALE * width), joint="curve")
    if round_ends:
        for point in (points[0], points[-1]):
            drawing.circle(point, _SCALE * width / 2, fill=fill)


def _disc(drawing, middle, radius, fill):
    drawing.circle(tuple(_SCALE * middle), _SCALE * radius, fill=fill)


def _box(middle, heading, width, length):
    along = np.array([-np.sin(heading), np.cos(heading)]) * length / 2
    across = np.array([np.cos(heading), np.sin(heading)]) * width / 2
    return [middle + along + across, middle + along - across,
            middle - along - across, middle - along + across]  # fmt: skip
