from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from sgfr_jax import samplers

SAMPLERS = {
    "uniform": jax.jit(samplers.uniform, static_argnames="num"),
    "k_center": jax.jit(samplers.greedy_k_center, static_argnames="num"),
}


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
    ones = jnp.ones(400)
    start = samplers.k_center_start(jax.random.key(3), jnp.asarray(points), ones, 60)
    found = samplers.k_center_advance(
        start, jnp.asarray(points), 60, pool_size=pool_size, block_size=block_size
    )
    expected = plain_traversal(points.astype(np.float64), int(found.indices[0]), 60)
    np.testing.assert_array_equal(found.indices, expected)
    np.testing.assert_allclose(
        np.sqrt(np.max(found.distances)), radius(points, expected), rtol=1e-4
    )


def test_stepping_gives_what_one_go_gives(rng):
    points = jnp.float32(rng.normal(size=(300, 4)))
    ones, key = jnp.ones(300), jax.random.key(0)
    at_once = samplers.greedy_k_center(key, points, ones, 40)
    stepped = samplers.k_center_start(key, points, ones, 40)
    advance = jax.jit(samplers.k_center_advance)
    for upto in (1, 7, 7, 31, 40):
        stepped = advance(stepped, points, upto)
        assert stepped.count == upto
    np.testing.assert_array_equal(stepped.indices, at_once.indices)
    np.testing.assert_allclose(stepped.distances, at_once.distances, atol=1e-5)
    assert advance._cache_size() == 1


@pytest.mark.parametrize("sample", SAMPLERS.values(), ids=SAMPLERS)
class TestEverySampler:
    def test_choices_differ(self, rng, sample):
        points = jnp.float32(rng.normal(size=(50, 3)))
        found = sample(jax.random.key(1), points, jnp.ones(50), 20)
        assert len(set(np.asarray(found.indices).tolist())) == 20
        assert found.count == 20
        np.testing.assert_array_equal(found.weights, np.ones(20))

    def test_all_points_can_be_chosen(self, rng, sample):
        points = jnp.float32(rng.normal(size=(9, 2)))
        found = sample(jax.random.key(1), points, jnp.ones(9), 9)
        assert sorted(np.asarray(found.indices).tolist()) == list(range(9))

    def test_duplicates_are_chosen_once_each(self, sample):
        found = sample(jax.random.key(0), jnp.ones((6, 3)), jnp.ones(6), 6)
        assert sorted(np.asarray(found.indices).tolist()) == list(range(6))

    def test_one_point(self, sample):
        found = sample(jax.random.key(0), jnp.ones((1, 3)), jnp.ones(1), 1)
        np.testing.assert_array_equal(found.indices, [0])

    def test_padding_is_never_chosen(self, rng, sample):
        points = jnp.float32(rng.normal(size=(40, 3))).at[25:].set(1e3)
        weights = jnp.ones(40).at[25:].set(0)
        found = sample(jax.random.key(2), points, weights, 30)
        assert found.count == 25
        assert sorted(np.asarray(found.indices[:25]).tolist()) == list(range(25))
        np.testing.assert_array_equal(found.weights, [1] * 25 + [0] * 5)
        np.testing.assert_array_equal(found.indices[25:], np.zeros(5))

    def test_padding_may_hold_anything(self, rng, sample):
        points = jnp.float32(rng.normal(size=(40, 3)))
        weights = jnp.ones(40).at[25:].set(0)
        expected = sample(jax.random.key(2), points, weights, 12)
        for junk in (jnp.nan, jnp.inf, 1e30):
            found = sample(jax.random.key(2), points.at[25:].set(junk), weights, 12)
            np.testing.assert_array_equal(found.indices, expected.indices)

    def test_points_that_are_not_finite_are_not_chosen(self, rng, sample):
        points = jnp.float32(rng.normal(size=(20, 3))).at[4, 1].set(jnp.nan).at[7].set(jnp.inf)
        found = sample(jax.random.key(2), points, jnp.ones(20), 20)
        assert found.count == 18
        assert not {4, 7} & set(np.asarray(found.indices[:18]).tolist())

    def test_numpy_arrays_will_do(self, rng, sample):
        points = rng.normal(size=(20, 3)).astype(np.float32)
        found = sample.__wrapped__(jax.random.key(2), points, np.ones(20), 5)
        assert found.count == 5

    def test_nothing_but_padding(self, sample):
        found = sample(jax.random.key(0), jnp.ones((4, 2)), jnp.zeros(4), 2)
        assert found.count == 0
        np.testing.assert_array_equal(found.weights, [0, 0])

    def test_vmap_over_categories_equals_the_loop(self, rng, sample):
        points = jnp.float32(rng.normal(size=(3, 64, 5)))
        weights = jnp.ones((3, 64)).at[1, 40:].set(0).at[2, 10:].set(0)
        keys = jax.random.split(jax.random.key(0), 3)
        mapped = jax.vmap(partial(sample, num=20))(keys, points, weights)
        for i in range(3):
            single = sample(keys[i], points[i], weights[i], 20)
            np.testing.assert_array_equal(mapped.indices[i], single.indices)
            np.testing.assert_array_equal(mapped.weights[i], single.weights)

    def test_one_seed_one_result(self, rng, sample):
        points = jnp.float32(rng.normal(size=(50, 3)))
        runs = [sample(jax.random.key(seed), points, jnp.ones(50), 5) for seed in (4, 4, 5)]
        np.testing.assert_array_equal(runs[0].indices, runs[1].indices)
        assert (np.asarray(runs[0].indices) != np.asarray(runs[2].indices)).any()

    @pytest.mark.parametrize("num", [0, 5])
    def test_impossible_number_is_refused(self, sample, num):
        with pytest.raises(ValueError, match=f"asked for {num} of 4 points"):
            sample(jax.random.key(0), jnp.ones((4, 2)), jnp.ones(4), num)

    def test_shapes_that_do_not_fit_are_refused(self, sample):
        with pytest.raises(ValueError, match=r"\(4, 2\) and \(3,\)"):
            sample(jax.random.key(0), jnp.ones((4, 2)), jnp.ones(3), 2)


def test_uniform_is_uniform():
    draw = jax.vmap(lambda key: samplers.uniform(key, jnp.ones((10, 1)), jnp.ones(10), 3).indices)
    counts = np.bincount(np.ravel(draw(jax.random.split(jax.random.key(0), 4000))), minlength=10)
    np.testing.assert_allclose(counts / 4000, 0.3, atol=0.03)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), num=st.sampled_from([1, 4, 12]))
def test_radius_is_at_most_twice_the_best_of_any_choice(seed, num):
    """Gonzalez's bound, against the radius of a handful of random subsets."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(24, 2)).astype(np.float32)
    sample = jax.jit(samplers.greedy_k_center, static_argnums=3)
    found = sample(jax.random.key(seed), jnp.asarray(points), jnp.ones(24), num)
    others = min(radius(points, rng.choice(24, num, replace=False)) for _ in range(50))
    assert radius(points, found.indices) <= 2 * others + 1e-5
