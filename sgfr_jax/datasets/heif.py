"""HEIC photographs, as phones take them, which Pillow reads with an extra package."""

import importlib
from pathlib import Path

from sgfr_jax.datasets.types import DatasetError

# Of ISO base media files: the brands of still images coded as HEVC (ISO/IEC 23008-12).
_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))


def is_heif(path: Path) -> bool:
    """Whether a file begins as HEIC does; False if it cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head[4:8] == b"ftyp" and head[8:] in _BRANDS


def register(path: Path) -> None:
    """Lets Pillow read HEIC from here on.

    Args:
      path: the file that needs it, for the message.

    Raises:
      DatasetError: the package that decodes it is not installed.
    """
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError:
        raise DatasetError(
            f"'{path}' is HEIC, for which an extra is needed: pip install 'sgfr_jax[heic]', or save"
            " it as PNG or JPEG."
        ) from None
    pillow_heif.register_heif_opener()
