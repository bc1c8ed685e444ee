"""Which image files are read, and how large an image may be.

The one list of formats: a file's suffix says whether it counts as an image, and its content must be
in one of these formats, whatever its suffix. Pillow knows more, and for one of them (PostScript) it
starts another program on the file: it is never asked for those.
"""

import io
from pathlib import Path

from PIL import Image

from sgfr_jax.datasets.types import DatasetError

# Pillow's name of each format, and the suffixes of its files.
FORMATS = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "HEIF": (".heic", ".heif"),  # with an extra: see `heif`
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg"),
    "JPEG2000": (".j2k", ".jp2", ".jpf", ".jpx"),
    "PNG": (".png",),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
SUFFIXES = tuple(sorted(suffix for of_format in FORMATS.values() for suffix in of_format))
# What a pixel may take in the file's own type; 4 bytes are RGBA with 8 bits a channel.
_BYTES_PER_PIXEL = 4


def open_image(source: Path | io.BytesIO) -> Image.Image:
    """Returns the image that `PIL.Image.open` finds in a file of one of the `FORMATS` that it has.

    Raises:
      UnidentifiedImageError, DecompressionBombError, OSError: as of `PIL.Image.open`.
    """
    if not FORMATS.keys() <= Image.OPEN.keys():
        Image.init()  # the plugins that are imported when needed
    return Image.open(source, formats=[name for name in FORMATS if name in Image.OPEN])


def most_pixels() -> int | None:
    """Returns how many pixels an image may have: twice Pillow's limit; `None` without one."""
    return None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


def check_memory(name: Path | str, num_pixels: int, num_bytes: int) -> None:
    """Checks what an image would take, as its header says, before it is decoded.

    Args:
      name: of the file.
      num_pixels: of the image.
      num_bytes: of its pixels in the type that the file stores, or of a part that is decoded at
        once if that is more.

    Raises:
      DatasetError: if that is more than `most_pixels`, or than these take as RGBA.
    """
    most = most_pixels()
    if most is None:
        return
    if num_pixels > most:
        raise DatasetError(
            f"the image file '{name}' has more than {most} pixels; shrink it or cut it into tiles."
        )
    if num_bytes > _BYTES_PER_PIXEL * most:
        raise DatasetError(
            f"the image file '{name}' takes {num_bytes} bytes when decoded, more than"
            f" {_BYTES_PER_PIXEL * most}; save it with 8 or 16 bits per channel, shrink it or cut"
            " it into tiles."
        )
