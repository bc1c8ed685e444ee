import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import samplers
from sgfr_jax.samplers import eligibility


@pytest.mark.parametrize(
    "num_points,asked,expected",
    [
        (1000, {"ratio": 0.01}, 10),
        (1000, {"ratio": 1.0}, 1000),
        (10, {"ratio": 1e-3}, 1),
        (150, {"ratio": 0.01}, round(1.5)),
        (50, {"size": 50}, 50),
    ],
)
def test_budget(num_points, asked, expected):
    assert samplers.budget(num_points, **asked) == expected


@pytest.mark.parametrize(
    "asked,message",
    [
        ({}, "a size or a ratio"),
        ({"size": 1, "ratio": 0.1}, "a size or a ratio"),
        ({"ratio": 0.0}, "ratio=0.0"),
        ({"ratio": 1.5}, "ratio=1.5"),
        ({"size": 0}, "size=0 of 10"),
        ({"size": 11}, "size=11 of 10"),
    ],
)
def test_impossible_budget_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        samplers.budget(10, **asked)


def test_a_selection_hides_what_its_empty_slots_held():
    found = eligibility.make_selection(
        jnp.array([3, 1, 2]), jnp.array([True, True, False]), jnp.zeros(4)
    )
    np.testing.assert_array_equal(found.indices, [3, 1, 0])
    np.testing.assert_array_equal(found.weights, [1, 1, 0])
    assert found.count == 2
