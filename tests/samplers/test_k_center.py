from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from sgfr_jax import samplers
from sgfr_jax.samplers import k_center

SAMPLE = jax.jit(samplers.greedy_k_center, static_argnums=3)
START = jax.jit(samplers.k_center_start, static_argnums=3)
ADVANCE = jax.jit(samplers.k_center_advance, static_argnames=("pool_size", "block_size"))


def plain_traversal(points, first, num):
    """Farthest-first traversal as the textbook has it, in float64."""
    chosen = [first]
    distances = np.full(len(points), np.inf)
    while True:
        distances = np.minimum(distances, np.sum((points - points[chosen[-1]]) ** 2, axis=1))
        distances[chosen] = -np.inf
        if len(chosen) == num:
            return chosen
        chosen.append(int(np.argmax(distances)))


def radius(points, chosen):
    return cdist(points, points[np.asarray(chosen)]).min(axis=1).max()


@pytest.mark.parametrize("pool_size,block_size", [(2048, 128), (16, 4), (1, 1), (7, 64)])
def test_lookahead_chooses_what_the_plain_traversal_chooses(rng, pool_size, block_size):
    points = rng.normal(size=(400, 6)).astype(np.float32)
    start = START(jax.random.key(3), points, np.ones(400), 60)
    found = ADVANCE(start, points, 60, pool_size=pool_size, block_size=block_size)
    expected = plain_traversal(points.astype(np.float64), int(found.indices[0]), 60)
    np.testing.assert_array_equal(found.indices, expected)
    np.testing.assert_allclose(
        np.sqrt(np.max(found.distances)), radius(points, expected), rtol=1e-4
    )


def test_stepping_gives_what_one_go_gives(rng):
    points = np.float32(rng.normal(size=(300, 4)))
    ones, key = np.ones(300, np.float32), jax.random.key(0)
    at_once = SAMPLE(key, points, ones, 40)
    stepped = START(key, points, ones, 40)
    advance = jax.jit(partial(samplers.k_center_advance))  # with no cache but its own
    for upto in (1, 7, 7, 31, 40):
        stepped = advance(stepped, points, upto)
        assert stepped.count == upto
    np.testing.assert_array_equal(stepped.indices, at_once.indices)
    np.testing.assert_allclose(stepped.distances, at_once.distances, atol=1e-5)
    assert advance._cache_size() == 1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), num=st.sampled_from([1, 4, 12]))
def test_radius_is_at_most_twice_the_best_of_any_choice(seed, num):
    """Gonzalez's bound, against the radius of a handful of random subsets."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(24, 2)).astype(np.float32)
    found = SAMPLE(jax.random.key(seed), points, np.ones(24), num)
    others = min(radius(points, rng.choice(24, num, replace=False)) for _ in range(50))
    assert radius(points, found.indices) <= 2 * others + 1e-5


@pytest.mark.parametrize("ratio", [1, 100, 1000])
def test_a_mean_that_features_share_changes_no_choice(ratio):
    rng = np.random.default_rng(0)
    points = np.float32(ratio * rng.choice([-1, 1], size=16) + rng.normal(size=(1000, 16)))
    found = samplers.greedy_k_center(jax.random.key(0), jnp.asarray(points), jnp.ones(1000), 60)
    chosen = plain_traversal(points.astype(np.float64), int(found.indices[0]), 60)
    np.testing.assert_array_equal(found.indices, chosen)
    told = np.sqrt(np.max(found.distances))
    assert told == pytest.approx(radius(points, chosen), rel=1e-5)
    steps = samplers.k_center_start(jax.random.key(0), jnp.asarray(points), jnp.ones(1000), 60)
    for upto in (7, 30, 60):
        steps = samplers.k_center_advance(steps, jnp.asarray(points), upto)
    np.testing.assert_array_equal(steps.indices, chosen)


def test_parts_of_the_points_are_read_one_after_the_other(rng, monkeypatch):
    points = jnp.float32(rng.normal(size=(103, 5)))
    whole = samplers.greedy_k_center(jax.random.key(1), points, jnp.ones(103), 40)
    monkeypatch.setattr(k_center, "_ROWS", 10)
    parts = samplers.greedy_k_center(jax.random.key(1), points, jnp.ones(103), 40)
    np.testing.assert_array_equal(parts.indices, whole.indices)
    np.testing.assert_allclose(parts.distances, whole.distances, rtol=1e-5)
