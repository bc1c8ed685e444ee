import itertools

import numpy as np
import pytest

from sgfr_jax.datasets.geometry import Geometry, Window, filled, windows
from sgfr_jax.detector import places


@pytest.mark.parametrize("grid,shape", [(4, (8, 8)), (3, (10, 7)), (16, (72, 150)), (8, (5, 5))])
def test_boxes_cover_the_image_and_hold_what_lies_in_their_cell(grid, shape):
    covered = np.zeros(shape, int)
    for cell in range(grid**2):
        box = places.cell_box(cell, grid, shape)
        covered[box.top : box.top + box.height, box.left : box.left + box.width] += 1
    assert covered.min() >= 1  # more where the edge of two cells runs through a pixel
    if all(size % grid == 0 for size in shape):
        assert covered.max() == 1
    for row, column in itertools.product(range(shape[0]), range(shape[1])):
        box = places.cell_box(places.cell_at(row, column, grid, shape), grid, shape)
        assert box.top <= row < box.top + box.height
        assert box.left <= column < box.left + box.width


@pytest.mark.parametrize(
    "shape,laid",
    [
        ((60, 100), Geometry("pad")),
        ((100, 37), Geometry("pad")),
        ((60, 100), Geometry("crop", crop=0.5)),
        ((60, 100), Geometry("tile", tile=80)),
        ((130, 101), Geometry("tile", tile=33)),
        ((20, 30), Geometry("tile", tile=40)),
    ],
)
def test_boxes_in_windows_hold_what_lies_in_their_cell(shape, laid):
    grid = 8
    for window in windows(shape, laid):
        top, left, bottom, right = window.box
        # The last patch of a window that is padded may end half a cell before it does.
        cells = [(bottom - top) / window.extent[0] / grid, (right - left) / window.extent[1] / grid]
        slack = [cell / 2 * (share < 1) for cell, share in zip(cells, window.extent, strict=True)]
        for row, column in itertools.product(range(top, bottom), range(left, right)):
            cell = places.cell_at(row, column, grid, shape, window)
            box = places.cell_box(cell, grid, shape, window)
            assert box.top <= row < box.top + box.height + slack[0]
            assert box.left <= column < box.left + box.width + slack[1]
            assert 0 < box.height <= cells[0] + 2 and 0 < box.width <= cells[1] + 2
            assert top <= box.top and box.top + box.height <= bottom
            assert left <= box.left and box.left + box.width <= right
            # A patch that shows the image, as those that score do.
            assert cell // grid < filled(window.extent[0], grid)
            assert cell % grid < filled(window.extent[1], grid)


def test_in_windows_by_hand():
    tile = Window((10, 20, 42, 52))
    assert places.cell_at(26, 28, 4, (90, 90), tile) == 9
    assert places.cell_box(9, 4, (90, 90), tile) == (28, 26, 8, 8)
    assert places.cell_extent(9, 4, (90, 90), tile, around=1) == (20, 18, 44, 42)
    # Five eighths of a square: the third cell shows the image by half, the fourth not at all.
    padded = Window((0, 0, 20, 32), (0.625, 1.0))
    assert places.cell_at(19, 0, 4, (20, 32), padded) == 8
    assert places.cell_box(8, 4, (20, 32), padded) == (0, 16, 8, 4)


def test_by_hand():
    assert places.cell_at(0, 0, 4, (64, 32)) == 0
    assert places.cell_at(63, 31, 4, (64, 32)) == 15
    assert places.cell_at(16, 8, 4, (64, 32)) == 5
    assert places.cell_box(6, 4, (64, 32)) == (16, 16, 8, 16)
    assert places.cell_box(6, 4, (65, 33)) == (16, 16, 9, 17)  # all that it touches
    assert places.cell_extent(6, 4, (65, 33)) == (16.5, 16.25, 24.75, 32.5)
    assert places.cell_extent(3, 4, (64, 32), around=1) == (16, -16, 40, 32)  # beyond the image
