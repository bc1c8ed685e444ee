"""Synthetic defects of stated kind and size on nominal images of any product.

They serve to choose a detector where no defect is known, so they are many-faceted rather than
pretty: eight kinds, every size, contrasts from barely visible to strong, measured against what the
image itself shows around the place. `draw` is the one entry. (The demo's defects, which are part of
a data set, are in `sgfr_jax.datasets.defects`; nothing is shared.)

A kind is a function `(rng, image, diameter, donor) -> (Window, layer)`: `image` and `donor` are
uint8 `[H, W, C]`, `diameter` is in pixels, and `layer`, float `[h, w, C]`, replaces what the window
shows.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from sgfr_jax import names
from sgfr_jax.datasets import regions

# A pixel is seen to change by so many grey levels in any channel, or by this share of the texture
# around it (see `_texture`), whichever is more: texture hides what a plain surface shows.
JUST_VISIBLE, VISIBLE_SHARE = 5.0, 0.25
# Departures from the surroundings, drawn on a logarithmic scale from so many times their texture to
# so many times their standard deviation, which sees structure as well. Both count as PLAIN_STD at
# least, and no departure is less than twice what is just visible.
SPOT_CONTRAST, LINE_CONTRAST, SHADE_CONTRAST = (0.8, 5.0), (0.8, 5.0), (0.5, 3.0)
PLAIN_STD, MAX_DEPARTURE = 6.0, 160.0
# Widths of lines, in pixels: from one, or this share of the image's shorter side, to that share,
# but never more than a quarter of the length.
LINE_WIDTH = (0.004, 0.02)
BLEND_OPACITY = (0.35, 1.0)  # of another texture
MAX_ATTEMPTS = 16
# The extent of a mask lies within this factor of what was asked, if any of the attempts allows.
EXTENT_FACTOR = 2.0

_MIN_SIDE, _MIN_DIAMETER = 16, 3.0
_MIN_REGION = 0.1  # smaller pieces of a mask, against the largest, are not drawn
_COLOURED = 12  # a grey image differs less than this between its channels


class Window(NamedTuple):
    """The part of an image that a defect touches."""

    rows: slice
    columns: slice
    y: np.ndarray  # [h, 1], offsets from the middle of the defect in pixels
    x: np.ndarray  # [1, w]


Kind = Callable[
    [np.random.Generator, np.ndarray, float, np.ndarray | None], tuple[Window, np.ndarray]
]


def draw(
    rng: np.random.Generator,
    image: np.ndarray,
    kind: str,
    size: float,
    *,
    donor: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the image with one defect, and where it is.

    The mask holds the pixels whose change can be seen (`JUST_VISIBLE`, `VISIBLE_SHARE`), the small
    gaps between them closed and specks dropped; all others keep their bits. Other places are tried,
    `MAX_ATTEMPTS` times, until the mask's extent is within `EXTENT_FACTOR` of what was asked.

    Args:
      rng: consumed.
      image: uint8 `[H, W]` or `[H, W, 3]`, at least 16 x 16; left alone.
      kind: a key of `KINDS`.
      size: length of the defect from end to end over the image's shorter side, in (0, 1]; three
        pixels at least.
      donor: where `cut_paste` and `noise_mask` take their texture from: another nominal image of
        any size, with the channels of `image`; `None` takes the image itself.

    Returns:
      `(image, mask)`, a new array like `image` and bool `[H, W]`. The mask is empty, and the image
      unchanged, only if no attempt could change anything: `blur`, `warp` and the texture kinds
      have nothing to work with on a plain image. Leave such an image out.
    """
    _check(image, "image")
    if kind not in KINDS:
        raise ValueError(names.unknown_name("kind of synthetic defect", kind, KINDS))
    if not 0 < size <= 1:
        raise ValueError(f"size is {size}; it is a share of the shorter side, in (0, 1].")
    if donor is not None:
        _check(donor, "donor")
        if donor.shape[2:] != image.shape[2:]:
            raise ValueError(
                f"donor {list(donor.shape)} and image {list(image.shape)} must have the same "
                "channels."
            )
        donor = np.atleast_3d(donor)
    pixels = np.atleast_3d(image)
    diameter = max(size * min(image.shape[:2]), _MIN_DIAMETER)

    best, best_misfit = None, np.inf
    for _ in range(MAX_ATTEMPTS):
        window, layer = KINDS[kind](rng, pixels, diameter, donor)
        changed = np.round(np.clip(layer, 0, 255)).astype(np.uint8)
        seen = _visible(pixels[window.rows, window.columns], changed, diameter)
        if not seen.any():
            continue
        misfit = abs(np.log(_extent(seen) / diameter))
        if misfit < best_misfit:
            best, best_misfit = (window, changed, seen), misfit
        if misfit <= np.log(EXTENT_FACTOR):
            break

    drawn, mask = pixels.copy(), np.zeros(image.shape[:2], bool)
    if best is not None:
        window, changed, seen = best
        drawn[window.rows, window.columns][seen] = changed[seen]
        mask[window.rows, window.columns] = seen
    return drawn.reshape(image.shape), mask


def spot(rng, image, diameter, donor=None):
    """A blob, sharp or soft, darker, lighter or of another colour: pits, blowholes, dirt."""
    window = _anywhere(rng, image, diameter)
    softness = rng.choice([1.0, rng.uniform(0.1, 0.5) * diameter])
    opacity = regions.blob(rng, window.y, window.x, diameter=diameter, softness=softness)
    flatness = rng.uniform(0, 1)
    return window, _tinted(rng, image, window, opacity, SPOT_CONTRAST, flatness=flatness)


def line(rng, image, diameter, donor=None):
    """A thin line, straight, curved or jagged, darker or lighter: scratches, cracks, fibres."""
    window = _anywhere(rng, image, diameter)
    low, high = (share * min(image.shape[:2]) for share in LINE_WIDTH)
    low, high = max(low, 1.0), max(high, 1.5)
    width = min(np.exp(rng.uniform(np.log(low), np.log(high))), max(diameter / 4, 1.0))
    opacity = regions.line(rng, window.y, window.x, diameter=diameter, width=width)
    flatness = rng.uniform(0, 1)
    return window, _tinted(rng, image, window, opacity, LINE_CONTRAST, flatness=flatness)


def cut_paste(rng, image, diameter, donor=None):
    """A rectangle from elsewhere, as it is, turned or relit (Li et al. 2021, CutPaste)."""
    window = _anywhere(rng, image, diameter)
    turn = rng.choice([0.0, np.pi / 2 * rng.integers(1, 4), rng.uniform(0, 2 * np.pi)])
    layer = _piece(rng, image, donor, window, diameter, turn=turn)
    if rng.uniform() < 0.5:
        layer = layer * rng.uniform(0.75, 1.3) + _direction(rng, image) * rng.uniform(-25, 25)
    softness = rng.choice([1.0, 3.0])
    opacity = regions.rectangle(rng, window.y, window.x, diameter=diameter, softness=softness)
    return window, _blend(image, window, layer, opacity)


def noise_mask(rng, image, diameter, donor=None):
    """A cloud of noise blended with another texture (Zavrtanik et al. 2021, DRAEM).

    No bank of textures ships, so it is the image (or donor) itself: turned and zoomed, and then
    left so, solarised, or with its tiles shuffled.
    """
    window = _anywhere(rng, image, diameter)
    turn, zoom = rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(-0.9, 0.9))
    layer = _piece(rng, image, donor, window, diameter, turn=turn, zoom=zoom)
    change = rng.choice(["none", "solarised", "shuffled"])
    if change == "solarised":
        low, high = np.percentile(layer, [2, 98])
        threshold = rng.uniform(low, high)
        layer = np.where(layer > threshold, low + high - layer, layer)
    elif change == "shuffled":
        layer = _shuffled(rng, layer, tile=max(2, int(diameter / rng.uniform(3, 8))))
    opacity = regions.cloud(rng, window.y, window.x, diameter=diameter, softness=2.0)
    return window, _blend(image, window, layer, opacity * rng.uniform(*BLEND_OPACITY))


def shade(rng, image, diameter, donor=None):
    """A smooth change of brightness or colour; the texture stays: uneven patches, stains."""
    window = _anywhere(rng, image, diameter)
    opacity = regions.bump(rng, window.y, window.x, diameter=diameter)
    return window, _tinted(rng, image, window, opacity, SHADE_CONTRAST, flatness=0)


def blur(rng, image, diameter, donor=None):
    """A region without its texture: blurred, smeared in one direction, or polished flat."""
    window = _anywhere(rng, image, diameter)
    pixels = image[window.rows, window.columns].astype(np.float32)
    extent = np.exp(rng.uniform(np.log(1.5), np.log(max(2.0, diameter / 4))))
    way = rng.choice(["blurred", "smeared"])
    if way == "blurred":
        layer = ndimage.gaussian_filter(pixels, (extent, extent, 0), truncate=2.5)
    else:
        length = max(3, int(3 * extent))
        layer = ndimage.uniform_filter1d(pixels, length, axis=rng.integers(2))
    softness = rng.uniform(0, 0.2) * diameter
    opacity = regions.blob(rng, window.y, window.x, diameter=diameter, softness=softness)
    return window, _blend(image, window, layer, opacity)


def warp(rng, image, diameter, donor=None):
    """Structure out of place: swirled, pushed, bulged or broken off and shifted."""
    window = _anywhere(rng, image, diameter)
    y, x = window.y, window.x
    # Beyond the diameter things are moved too little to be seen.
    distance = np.hypot(y, x) / (0.65 * diameter)
    weight = np.maximum(1 - distance**2, 0) ** 1.5
    way = rng.choice(["swirled", "pushed", "bulged", "broken"])
    angle, sign = rng.uniform(0, 2 * np.pi), rng.choice([-1, 1])
    shift = max(rng.uniform(0.15, 0.4) * diameter, 1.5)
    if way == "swirled":
        turn = sign * rng.uniform(0.6, 2.5) * weight
        moved_y = np.cos(turn) * y + np.sin(turn) * x
        moved_x = np.cos(turn) * x - np.sin(turn) * y
    elif way == "bulged":
        scale = 1 + sign * rng.uniform(0.4, 0.8) * weight
        moved_y, moved_x = scale * y, scale * x
    else:
        if way == "broken":
            beyond = np.sin(angle) * x - np.cos(angle) * y > 0
            weight = beyond * (distance < 0.77)
        moved_y = y + shift * np.sin(angle) * weight
        moved_x = x + shift * np.cos(angle) * weight
    origin_y, origin_x = window.rows.start - y[0, 0], window.columns.start - x[0, 0]
    layer = _sampled(image, moved_y + origin_y, moved_x + origin_x)
    moved = (moved_y != y) | (moved_x != x)
    return window, np.where(moved[:, :, None], layer, image[window.rows, window.columns])


def edge_break(rng, image, diameter, donor=None):
    """A piece broken out at the product's edge: what is behind it shows.

    Where the image's frame is plain, it is the background and the edge is looked for; else the
    image's border is the edge and the background dark or light.
    """
    height, width = image.shape[:2]
    frame = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    plain = frame.std(axis=0).max() < min(20, 0.5 * image.std(axis=(0, 1)).max())
    if plain:
        background = np.median(frame, axis=0)
        places = rng.uniform(0, [height, width], (12, 2)).astype(int)
        around = [image[max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5] for y, x in places]
        middle = places[np.argmax([patch.std() for patch in around])]
    else:
        background = rng.choice([rng.uniform(0, 30), rng.uniform(220, 255)])
        middle = rng.uniform(0, 1, 2)
        middle[rng.integers(2)] = rng.integers(2)
        if rng.uniform() < 0.3:
            middle = np.round(middle)
        middle = middle * [height - 1, width - 1]
    window = _window(image, middle, diameter)
    opacity = regions.cloud(rng, window.y, window.x, diameter=diameter, softness=1.5)
    layer = background + rng.normal(0, 0.7, (*opacity.shape, 1))
    return window, _blend(image, window, layer, opacity)


KINDS: dict[str, Kind] = {
    "blur": blur,
    "cut_paste": cut_paste,
    "edge_break": edge_break,
    "line": line,
    "noise_mask": noise_mask,
    "shade": shade,
    "spot": spot,
    "warp": warp,
}


def _check(image: np.ndarray, name: str) -> None:
    if (
        image.dtype != np.uint8
        or image.ndim not in (2, 3)
        or image.shape[2:] not in ((), (3,))
        or min(image.shape[:2]) < _MIN_SIDE
    ):
        raise ValueError(
            f"{name} is {image.dtype} {list(image.shape)}; uint8 [H, W] or [H, W, 3] of at least "
            f"{_MIN_SIDE} x {_MIN_SIDE} pixels is needed."
        )


def _visible(before: np.ndarray, after: np.ndarray, diameter: float) -> np.ndarray:
    """Returns where the change from `before` to `after` `[h, w, C]` can be seen, bool `[h, w]`."""
    change = np.abs(after.astype(np.int16) - before).max(axis=2)
    threshold = max(JUST_VISIBLE, VISIBLE_SHARE * _texture(before))
    seen = change >= threshold
    # Texture on texture agrees here and there by chance; who marks defects does not see the gaps.
    reach = int(np.clip(diameter / 10, 1, 4))
    padded = np.pad(seen, reach)
    closed = ndimage.minimum_filter(
        ndimage.maximum_filter(padded, 2 * reach + 1), 2 * reach + 1, mode="constant"
    )
    seen |= closed[reach:-reach, reach:-reach] & (change > 0)
    labels, count = ndimage.label(seen, np.ones((3, 3)))
    if count < 2:
        return seen
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    return (areas >= max(2, _MIN_REGION * areas.max()))[labels]


def _texture(pixels: np.ndarray) -> float:
    """Returns the median standard deviation in 5 x 5 pixels of `[h, w, C]`; edges hardly count."""
    grey = pixels.mean(axis=2, dtype=np.float32)
    grey -= grey.mean()
    mean = ndimage.uniform_filter(grey, 5)
    variance = ndimage.uniform_filter(grey * grey, 5) - mean * mean
    return float(np.sqrt(np.median(np.maximum(variance[::2, ::2], 0))))


def _extent(mask: np.ndarray) -> float:
    """Returns the longer side of the box around a mask that is not empty."""
    extents = [np.ptp(np.flatnonzero(mask.any(axis=axis))) + 1 for axis in (0, 1)]
    return float(max(extents))


def _anywhere(rng: np.random.Generator, image: np.ndarray, diameter: float) -> Window:
    """Returns a window at a random place, so that most of a defect lies within the image."""
    margin = 0.35 * diameter
    return _window(image, rng.uniform(margin, np.array(image.shape[:2]) - margin), diameter)


def _window(image: np.ndarray, middle: np.ndarray, diameter: float) -> Window:
    reach = regions.REACH * diameter + 3
    starts = np.maximum(np.floor(middle - reach), 0).astype(int)
    stops = np.minimum(np.ceil(middle + reach) + 1, image.shape[:2]).astype(int)
    y, x = np.ogrid[starts[0] : stops[0], starts[1] : stops[1]]
    y, x = y - middle[0], x - middle[1]
    return Window(slice(starts[0], stops[0]), slice(starts[1], stops[1]), y, x)


def _blend(image, window, layer, opacity):
    """Returns `layer` `[h, w, C]` over what the window shows, float32."""
    pixels = image[window.rows, window.columns].astype(np.float32)
    return pixels + opacity[:, :, None] * (np.clip(layer, 0, 255) - pixels)


def _direction(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Returns how much each channel takes part in a change `[C]`; all alike on grey images."""
    thumbnail = image[::8, ::8]
    if np.ptp(thumbnail, axis=2).max() < _COLOURED or rng.uniform() < 0.5:
        return np.ones(image.shape[2])
    direction = rng.uniform(-0.5, 1, image.shape[2])
    return direction / np.abs(direction).max()


def _tinted(rng, image, window, opacity, contrast, *, flatness):
    """Returns the window with what lies below `opacity` made darker, lighter or coloured.

    Args:
      rng: consumed.
      image: what lies below.
      window: the part of it that is returned.
      opacity: `[h, w]`.
      contrast: the departure from the surroundings is drawn between the first times their texture
        and the second times their standard deviation.
      flatness: how much of the texture below is wiped out, 0 to 1.
    """
    pixels = image[window.rows, window.columns].astype(np.float32)
    texture, std = _texture(pixels), pixels.mean(axis=2).std()
    low, high = np.log(contrast) + np.log(np.maximum([texture, std], PLAIN_STD))
    amount = np.exp(rng.uniform(low, max(low, high)))
    amount = np.clip(amount, 2 * max(JUST_VISIBLE, VISIBLE_SHARE * texture), MAX_DEPARTURE)
    mean = np.tensordot(opacity, pixels, axes=2) / max(opacity.sum(), 1e-6)
    sign = rng.choice([-1, 1])
    if (255 - mean.mean() if sign > 0 else mean.mean()) < 0.75 * amount:
        sign = -sign
    departure = sign * amount * _direction(rng, image)
    if rng.uniform() < 0.5:
        # Light on a surface multiplies: dark structures keep their contrast to the bright ones.
        departure = departure * (0.3 + 0.7 * pixels / np.maximum(mean, 1))
    return _blend(image, window, mean + (1 - flatness) * (pixels - mean) + departure, opacity)


def _piece(rng, image, donor, window, diameter, *, turn=0.0, zoom=1.0):
    """Returns what the donor (or the image, elsewhere) shows in a turned window, `[h, w, C]`."""
    source = image if donor is None else donor
    extent = np.array(source.shape[:2])
    own = np.array([window.rows.start - window.y[0, 0], window.columns.start - window.x[0, 0]])
    # Of a few places the farthest: what lies next to the defect is often the same again.
    places = rng.uniform(0.1, 0.9, (3, 2)) * extent
    place = np.round(places[np.argmax(np.hypot(*(places - own).T))])
    cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
    y, x = np.round(window.y), np.round(window.x)
    return _sampled(source, place[0] + cos * y + sin * x, place[1] + cos * x - sin * y)


def _sampled(image, y, x):
    """Returns the pixels at `y, x`, interpolated, mirrored at the border; `[h, w, C]` float32."""
    channels = [
        ndimage.map_coordinates(image[:, :, c], [y, x], np.float32, order=1, mode="mirror")
        for c in range(image.shape[2])
    ]
    return np.stack(channels, axis=2)


def _shuffled(rng, layer, *, tile):
    """Returns `layer` `[h, w, C]` with its tiles of `tile` pixels in random order.

    What is left over at the far edges stays.
    """
    rows, columns, channels = layer.shape[0] // tile, layer.shape[1] // tile, layer.shape[2]
    whole = layer[: rows * tile, : columns * tile].reshape(rows, tile, columns, tile, channels)
    tiles = whole.swapaxes(1, 2).reshape(-1, tile, tile, channels)
    tiles = rng.permutation(tiles).reshape(rows, columns, tile, tile, channels)
    shuffled = layer.copy()
    shuffled[: rows * tile, : columns * tile] = tiles.swapaxes(1, 2).reshape(
        rows * tile, columns * tile, channels
    )
    return shuffled
