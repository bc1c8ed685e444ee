import numpy as np
from PIL import Image

from sgfr_jax.commands.pages import figures


def panel(mask=True):
    image = np.full((20, 30, 3), 100, np.uint8)
    anomaly_map = np.zeros((20, 30), np.float32)
    anomaly_map[5:10, 5:10] = 1
    return figures.Panel("a title", image, anomaly_map > 0 if mask else None, anomaly_map)


def test_colours_run_from_dark_to_bright_and_are_cut_off():
    ramp = figures.colourise(np.linspace(-1, 2, 200), 0.0, 1.0).astype(int).sum(axis=-1)
    assert (np.diff(ramp) >= 0).all()
    assert ramp[0] == figures.COLOURS[0].sum() and ramp[-1] == figures.COLOURS[-1].sum()


def test_a_constant_map_has_a_colour():
    assert figures.colourise(np.zeros((2, 2)), 0.0, 0.0).shape == (2, 2, 3)


def test_the_outline_of_the_mask_is_drawn_on_the_overlay_only():
    pixels = np.asarray(figures.draw(panel(), 0.0, 1.0)).reshape(-1, 3)
    cyan = (pixels == (0, 255, 255)).all(axis=1).sum()
    assert cyan == 16  # the border of a 5 x 5 square
    pixels = np.asarray(figures.draw(panel(mask=False), 0.0, 1.0)).reshape(-1, 3)
    assert not (pixels == (0, 255, 255)).all(axis=1).any()


def test_save_writes_a_png(tmp_path):
    figures.save(tmp_path / "cut_most_1.png", panel(), 0.0, 1.0)
    with Image.open(tmp_path / "cut_most_1.png") as image:
        assert image.width > 4 * 30 and image.height > 20
