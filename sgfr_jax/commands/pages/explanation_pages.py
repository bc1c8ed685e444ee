"""A page for each explained image: the image, its map, and the patches that tried to mimic it."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sgfr_jax.commands.pages import figures
from sgfr_jax.commands.pages.figures import MARGIN, OUTLINE, Scale
from sgfr_jax.datasets.geometry import Window, to_size
from sgfr_jax.detector import explaining, places
from sgfr_jax.detector.explaining import Atom, Place, View

# Of a place the banks that are drawn, and of a bank its levels: those with the largest parts.
NUM_VIEWS, NUM_LEVELS = 3, 5
_PICTURE, _CROP, _TEXT, _LINE = 340, 96, 190, 15
# A crop shows so much around its patch that about half as many would fit across the image.
_CROPS_ACROSS = 12
_GREY, _INK, _EMPTY = (90, 90, 90), (0, 0, 0), (228, 228, 228)
_MARKED = (255, 0, 255)
# The side of the box that marks a patch in the picture, if its own sides are all shorter.
_LEAST_MARK = 7


class Page(NamedTuple):
    """What a page shows."""

    title: str
    image: np.ndarray  # uint8 [H, W] or [H, W, 3]
    anomaly_map: np.ndarray  # [h, w], of the whole image at any size
    places: Sequence[Place]


def draw(
    page: Page, scale: Scale, train: Sequence[str], read: Callable[[int], np.ndarray | None]
) -> Image.Image:
    """Draws a page.

    Args:
      page: what it shows.
      scale: of the map.
      train: names of the training images.
      read: of `training_images.make_reader`; where it gives None atoms are named only.
    """
    rows = [view for place in page.places for view in place.views[:NUM_VIEWS]]
    row_height = _CROP + 2 * _LINE + MARGIN
    height = 2 * _LINE + _PICTURE + MARGIN + len(page.places) * 2 * _LINE + len(rows) * row_height
    num_atoms = max((len(view.atoms) for view in rows), default=0)
    width = 3 * MARGIN + 2 * _PICTURE
    width = max(width, 2 * MARGIN + (1 + num_atoms) * (_CROP + MARGIN) + _TEXT)
    canvas = Image.new("RGB", (width, height + 2 * MARGIN), "white")
    pen = _Pen(canvas)
    pen.write(MARGIN, MARGIN, page.title)
    top = MARGIN + 2 * _LINE
    for i, picture in enumerate(_pictures(page, scale)):
        canvas.paste(picture, (MARGIN + i * (_PICTURE + MARGIN), top))
    top += _PICTURE + MARGIN
    for number, place in enumerate(page.places, 1):
        pen.write(MARGIN, top + _LINE // 2, f"{number}: the map is {place.value:.4g} here")
        top += 2 * _LINE
        for view in place.views[:NUM_VIEWS]:
            _draw_view(pen, top, page.image, view, train, read)
            top += row_height
    return canvas


class _Pen:
    """Writes and pastes on a canvas."""

    def __init__(self, canvas: Image.Image):
        self.canvas, self.draw = canvas, ImageDraw.Draw(canvas)
        self.font = ImageFont.load_default(11)

    def write(self, left: int, top: int, text: str, colour=_INK) -> None:
        self.draw.text((left, top), text, fill=colour, font=self.font)

    def write_within(self, left: int, top: int, width: int, text: str) -> None:
        """The end of a text, as much as there is room for: of a path its most telling part."""
        shown = text
        while self.draw.textlength(shown, font=self.font) > width:
            shown = "…" + shown.lstrip("…")[1:]
        self.write(left, top, shown, _GREY)


def _pictures(page: Page, scale: Scale) -> list[Image.Image]:
    """The image with what is above the threshold outlined and the places numbered, and its map."""
    shape = page.image.shape[:2]
    share = _PICTURE / max(shape)
    size = tuple(max(1, round(n * share)) for n in shape[::-1])
    image = figures.to_rgb(np.asarray(Image.fromarray(page.image).resize(size)))
    heat = figures.colourise(to_size(page.anomaly_map, size[::-1]), scale.low, scale.high)
    # Enlarged before the outline is drawn, so that it is thin on small images and seen on large.
    fine = to_size(page.anomaly_map, tuple(map(max, page.anomaly_map.shape, size[::-1])))
    above = Image.fromarray(fine > scale.threshold).resize(size)
    outline = figures.outline(np.asarray(above))
    found = []
    for picture in (image.copy(), heat):
        picture[outline] = OUTLINE
        found.append(Image.fromarray(picture))
        pen = _Pen(found[-1])
        for number, place in enumerate(page.places, 1):
            box = _box_in_picture(place.views[0], shape, size[::-1])
            pen.draw.rectangle(_corners(box), outline=_MARKED)
            beside = min(box.left + box.width + 2, size[0] - 9)
            at = (beside, max(0, min(box.top, size[1] - 11)))
            pen.draw.text(
                at, str(number), fill=_MARKED, font=pen.font, stroke_width=1, stroke_fill="white"
            )
    return found


def _draw_view(pen: _Pen, top: int, image, view: View, train, read) -> None:
    """One line: the patch, what the bank says of it, and the atoms that tried to mimic it."""
    left = MARGIN
    pen.canvas.paste(_crop(image, view.cell, view.grid, view.window), (left, top))
    left += _CROP + MARGIN
    pen.write_within(left, top, _TEXT - MARGIN, view.stream)
    pen.write(left, top + _LINE, f"adds {view.part:.4g} to the map", _GREY)
    pen.write(left, top + 2 * _LINE, f"residual {view.score:.4g}", _GREY)
    levels = sorted(view.levels.items(), key=lambda level: -level[1])
    for i, (level, share) in enumerate(levels[:NUM_LEVELS] if len(levels) > 1 else ()):
        below = top + (3 + i) * _LINE
        pen.write(left, below, f"{level} {share:.0%}", _GREY)
        pen.draw.rectangle(
            (left + 92, below + 3, left + 92 + round(80 * share), below + 11), fill=_GREY
        )
    left += _TEXT
    for atom in view.atoms:
        pen.canvas.paste(_atom_crop(atom, view, read), (left, top))
        pen.write(left, top + _CROP + 1, f"{atom.weight:+.3g}")
        name = "learned" if atom.image < 0 else train[atom.image]
        pen.write_within(left, top + _CROP + _LINE, _CROP, name)
        left += _CROP + MARGIN


def _box_in_picture(view: View, shape: tuple[int, int], size: tuple[int, int]) -> places.Box:
    """A view's patch of an image `[H, W]` in a picture of another size; large enough to be seen."""
    down, across = (new / old for new, old in zip(size, shape, strict=True))
    top, left, bottom, right = view.window.box
    scaled = (top * down, left * across, bottom * down, right * across)
    window = view.window._replace(box=tuple(map(round, scaled)))
    box = places.cell_box(view.cell, view.grid, size, window)
    if max(box.width, box.height) >= _LEAST_MARK:
        return box
    middle = (box.left + box.width // 2, box.top + box.height // 2)
    left, top = (place - _LEAST_MARK // 2 for place in middle)
    return places.Box(left, top, _LEAST_MARK, _LEAST_MARK)


def _atom_crop(atom: Atom, view: View, read: Callable) -> Image.Image:
    """The patch that an atom is; an empty tile if it is none, or its image is not to be had."""
    image = read(atom.image) if atom.image >= 0 else None
    if image is None:
        return Image.new("RGB", (_CROP, _CROP), _EMPTY)
    window = explaining.atom_window(view, atom, image.shape[:2])
    return _crop(image, atom.cell, view.grid, window)


def _crop(image: np.ndarray, cell: int, grid: int, window: Window) -> Image.Image:
    """A patch, marked, in the middle of a tile with what the image has around it."""
    shape = image.shape[:2]
    around = max(1, grid // _CROPS_ACROSS)
    outer = places.cell_extent(cell, grid, shape, window, around=around)
    share = _CROP / max(outer[2] - outer[0], outer[3] - outer[1])
    seen = (*np.maximum(outer[:2], 0), *np.minimum(outer[2:], shape[::-1]))
    place = [round((x - outer[i % 2]) * share) for i, x in enumerate(seen)]
    size = (max(1, place[2] - place[0]), max(1, place[3] - place[1]))
    tile = Image.new("RGB", (_CROP, _CROP), _EMPTY)
    tile.paste(_resized_part(image, seen, size), tuple(place[:2]))
    inner = places.cell_extent(cell, grid, shape, window)
    inner = (*inner[:2], *np.minimum(inner[2:], shape[::-1]))  # no padding
    marked = [round((x - outer[i % 2]) * share) for i, x in enumerate(inner)]
    box = places.Box(*marked[:2], marked[2] - marked[0], marked[3] - marked[1])
    ImageDraw.Draw(tile).rectangle(_corners(box), outline=_MARKED)
    return tile


def _resized_part(image: np.ndarray, box: Sequence[float], size: tuple[int, int]) -> Image.Image:
    """A part of an image in another size, made of that part alone: photographs are large."""
    left, top, right, bottom = box
    # The bicubic filter reaches two pixels of the coarser grid beyond the box.
    reach = 2 * max(1.0, (right - left) / size[0], (bottom - top) / size[1]) + 1
    first, above = max(0, math.floor(left - reach)), max(0, math.floor(top - reach))
    part = image[above : math.ceil(bottom + reach), first : math.ceil(right + reach)]
    moved = (left - first, top - above, right - first, bottom - above)
    return Image.fromarray(part).resize(size, Image.Resampling.BICUBIC, box=moved)


def _corners(box: places.Box) -> tuple[int, int, int, int]:
    """As Pillow takes them: the last pixels belong to the box; of narrow images a line is left."""
    return (
        box.left, box.top,
        box.left + max(0, box.width - 1), box.top + max(0, box.height - 1),
    )  # fmt: skip
