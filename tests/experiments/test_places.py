import itertools

import numpy as np
import pytest

from experiments import places


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


def test_by_hand():
    assert places.cell_at(0, 0, 4, (64, 32)) == 0
    assert places.cell_at(63, 31, 4, (64, 32)) == 15
    assert places.cell_at(16, 8, 4, (64, 32)) == 5
    assert places.cell_box(6, 4, (64, 32)) == (16, 16, 8, 16)
    assert places.cell_box(6, 4, (65, 33)) == (16, 16, 9, 17)  # all that it touches
    assert places.cell_extent(6, 4, (65, 33)) == (16.5, 16.25, 24.75, 32.5)
    assert places.cell_extent(3, 4, (64, 32), around=1) == (16, -16, 40, 32)  # beyond the image
