"""The second byte of 16-bit colours, of which Pillow gives the first alone.

It unpacks values of either byte order, and takes of each the byte that is high in that order. Asked
for the other order it takes the low one.
"""

import sys
from pathlib import Path

from PIL import Image

from sgfr_jax.datasets.formats import open_image

_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def low_bytes(image: Image.Image) -> Image.Image | None:
    """The image with the low byte of every value, or None if it has no 16-bit colours.

    Args:
      image: from a file, opened and not yet loaded.
    """
    if image.mode not in ("RGB", "RGBA") or not getattr(image, "filename", ""):
        return None
    tiles = [_swapped(tile) for tile in getattr(image, "tile", [])]
    if not tiles or None in tiles:
        return None
    low = open_image(Path(image.filename))
    low.tile = tiles
    return low


def _swapped(tile):
    """The tile with its values in the other byte order; None if they have one byte."""
    raw, *more = (tile.args,) if isinstance(tile.args, str) else tile.args or ("",)
    if not isinstance(raw, str) or not raw.endswith((";16B", ";16L", ";16N")):
        return None
    raw = raw[:-1] + _OTHER_ORDER[raw[-1]]
    return tile._replace(args=raw if isinstance(tile.args, str) else (raw, *more))
