from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

import sgfr_jax as sgfr
from sgfr_jax.detector import blocks

NEAREST = partial(sgfr.local_code, num_neighbors=1, solve=sgfr.nearest)


@given(st.integers(1, 30))
def test_blocks_are_as_large_as_can_be_alike(grid):
    numbers = blocks.numbers(grid)
    assert numbers.shape == (grid**2,) and set(numbers) <= set(range(16))
    assert len(set(numbers)) == min(grid, 4) ** 2
    sides = np.bincount(numbers.reshape(grid, grid)[0], minlength=4)
    assert sides[sides > 0].max() - sides[sides > 0].min() <= 1


@pytest.mark.parametrize("grid", [4, 8, 12])
def test_blocks_are_squares(grid):
    side = grid // 4
    numbers = blocks.numbers(grid).reshape(4, side, 4, side)
    expected = np.broadcast_to(np.arange(16).reshape(4, 1, 4, 1), numbers.shape)
    np.testing.assert_array_equal(numbers, expected)


@pytest.mark.parametrize("grid", [1, 3, 6, 8])
def test_patches_do_not_see_the_atoms_of_their_block(rng, grid):
    num = grid**2
    given, made = rng.normal(size=(2, num, 5)).astype(np.float32)
    bank = sgfr.Bank(jnp.asarray(given), jnp.ones(num), jnp.arange(num))
    numbers = blocks.numbers(grid)
    score = partial(sgfr.score_held_out, bank, jnp.asarray(numbers), code=NEAREST)
    scores, owners = blocks.held_out(score, grid, np.stack([given, made]))
    assert scores.shape == owners.shape == (2, num)
    for patches, of_image, whose in zip((given, made), scores, owners, strict=True):
        apart = np.where(numbers[:, None] == numbers, np.inf, cdist(patches, given))
        if grid == 1:  # nothing is left
            np.testing.assert_allclose(of_image, np.linalg.norm(patches, axis=1), rtol=1e-5)
            continue
        np.testing.assert_allclose(of_image, apart.min(axis=1), rtol=1e-4)
        np.testing.assert_array_equal(whose, apart.argmin(axis=1))
