import jax.numpy as jnp
import numpy as np

from sgfr_jax import types
from sgfr_jax.detector import state
from sgfr_jax.detector.state import Origins


def look_of(*images):
    """Of a bank for each list of images that its atoms are of."""
    banks = tuple(
        types.Bank(jnp.ones((len(own), 2)), jnp.ones(len(own)), jnp.arange(len(own)))
        for own in images
    )
    origins = tuple(Origins(*[jnp.asarray(own)] * 3) for own in images)
    return state.plain_look(banks, origins)


def test_origins_by_hand():
    picks = np.array([[0, 2], [1, 3], [0, 1]])
    found = state.origins(np.array([0, 3, 4, 5]), picks, np.array([0, 1, 1]))
    np.testing.assert_array_equal(found.images, [0, 1, 1, 1])
    np.testing.assert_array_equal(found.windows, [0, 0, 1, 1])
    np.testing.assert_array_equal(found.cells, [0, 3, 0, 1])


def test_windows_are_numbered_image_by_image():
    found = state.window_numbers(np.array([0, 0, 1, 3, 3, 3]))
    np.testing.assert_array_equal(found, [0, 1, 0, 0, 1, 2])


def test_without_an_image_its_atoms_weigh_nothing():
    look = look_of([0, 1, 1], [1, 2])
    left = state.without(look, 1)
    assert [bank.weights.tolist() for bank in left.banks] == [[1, 0, 0], [0, 1]]
    assert state.num_atoms(look) == 5 and state.num_atoms(left) == 2
    assert state.num_atoms(state.without(look, -2)) == 5
    learned = look._replace(origins=tuple(state.no_origins(n) for n in (3, 2)))
    assert state.num_atoms(state.without(learned, 1)) == 5


def test_a_plain_look_alone():
    whole = state.alone(look_of([0], [0, 0]))
    (look,) = whole.looks
    assert not look.calibrations and look.map_weights.tolist() == [0.5, 0.5]
    assert whole.whole.tolist() == [True] and np.isinf(look.halo_above)
