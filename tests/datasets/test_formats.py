"""Which files are images, and that nothing else is ever opened."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

import sgfr_jax
from sgfr_jax.datasets import checking, decoding, formats, images
from sgfr_jax.datasets.types import Category, DatasetError, Encoded, Example

# What `gs` would be started on.
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


def test_a_suffix_is_of_one_format():
    assert len(set(formats.SUFFIXES)) == len(formats.SUFFIXES)


def test_every_format_that_pillow_has_is_read_whatever_its_suffix(tmp_path, monkeypatch):
    Image.init()
    grey = np.full((40, 40), 100, np.uint8)
    written = [name for name in formats.FORMATS if name in Image.SAVE]
    assert {"BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"} <= set(written)
    monkeypatch.setitem(formats.FORMATS, "NONE", (".none",))  # of an extra that is not installed
    for name in written:
        path = tmp_path / f"{name}.png"
        Image.fromarray(grey).save(path, name)
        assert images.read_native(Example("x", path, 0, "", None)).image.shape[:2] == (40, 40)


def _written(kind):
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [POSTSCRIPT, *map(_written, ("EPS", "PDF", "TGA", "PCX", "ICO", "SGI"))],
    ids=["postscript", "eps", "pdf", "tga", "pcx", "ico", "sgi"],
)
def test_what_pillow_could_open_besides_is_refused(tmp_path, monkeypatch, content):
    def start(*args, **kwargs):
        raise AssertionError("another program was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", start)
    path = tmp_path / "x.png"
    path.write_bytes(content)
    sound = tmp_path / "sound.png"
    Image.new("L", (9, 9)).save(sound)
    for image, mask in ((path, None), (sound, path)):
        with pytest.raises(DatasetError, match=r"x\.png' is not an image, or of an unknown format"):
            images.read_native(Example("x", image, 1, "", mask))
    with pytest.raises(DatasetError, match="unknown format"):
        decoding.shape_of(path)
    with pytest.raises(DatasetError, match="'x' cannot be read"):
        images.read_image(Encoded("x", lambda: content), 8)
    (problem,) = checking.survey([Category("c", (Example("x", path, 0, "", None),), ())]).problems
    assert "unknown format" in problem


def test_images_are_opened_in_one_place():
    """So that no other format comes in by another way."""
    for path in Path(sgfr_jax.__file__).parent.rglob("*.py"):
        calls = re.findall(r"Image\.open\((?!.*formats=)", path.read_text())
        assert not calls, f"{path} opens images of any format"
