from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sgfr_jax import samplers
from sgfr_jax.samplers import swaps


def objective(points, chosen):
    return cdist(points, points[np.asarray(chosen)], "sqeuclidean").min(axis=1).sum()


def plain_alternation(points, medoids, num_iterations):
    """Assignment, then the best medoid of each cluster by trying every member, in float64."""
    medoids = np.array(medoids)
    for _ in range(num_iterations):
        owner = cdist(points, points[medoids]).argmin(axis=1)
        for slot in range(len(medoids)):
            members = np.flatnonzero(owner == slot)
            costs = cdist(points[members], points[members], "sqeuclidean").sum(axis=0)
            medoids[slot] = members[np.argmin(costs)]
    return medoids


def plain_pam(points, medoids):
    """The best swap of any medoid for any point until none helps, all tried anew, in float64."""
    distances, medoids = cdist(points, points, "sqeuclidean"), [int(m) for m in medoids]
    while True:
        best = distances[:, medoids].min(axis=1).sum() * (1 - 1e-6), None
        for slot in range(len(medoids)):
            others = distances[:, medoids[:slot] + medoids[slot + 1 :]].min(axis=1)
            values = np.minimum(others[:, None], distances).sum(axis=0)
            best = min(best, (values.min(), (slot, int(values.argmin()))))
        if best[1] is None:
            return medoids
        medoids[best[1][0]] = best[1][1]


SWAPPED = jax.jit(samplers.k_medoids, static_argnums=3)


@pytest.mark.parametrize("offset", [0, 100])
def test_no_swap_of_one_medoid_is_left_that_helps(rng, offset):
    """In many features, where alternation stops at its start."""
    points = offset + np.float64(np.float32(rng.normal(size=(160, 64))))
    key = jax.random.key(1)
    found = SWAPPED(key, jnp.float32(points), jnp.ones(160), 20).indices
    assert len(set(np.asarray(found).tolist())) == 20
    first = samplers.d2_sampling(key, jnp.float32(points), jnp.ones(160), 20).indices
    start, ours = objective(points, first), objective(points, found)
    assert objective(points, plain_pam(points, found)) == pytest.approx(ours, rel=1e-9)
    theirs = objective(points, plain_pam(points, first))
    assert ours < 0.96 * start and ours < 1.01 * theirs


def test_swaps_keep_to_the_points_that_count(rng):
    points = rng.normal(size=(160, 64))
    weights = np.arange(160) % 4 != 1
    found = SWAPPED(jax.random.key(0), jnp.float32(points), jnp.float32(weights), 20).indices
    assert weights[np.asarray(found)].all()
    kept = points[weights]
    own = np.cumsum(weights)[np.asarray(found)] - 1
    assert objective(kept, plain_pam(kept, own)) == pytest.approx(objective(kept, own), rel=1e-9)


@pytest.mark.slow
def test_medoids_that_swaps_take_away_are_sought_again(rng, monkeypatch):
    """With two known to each point, nearly every swap makes some look at all."""
    points = jnp.float32(rng.normal(size=(80, 16)))
    found = samplers.k_medoids(jax.random.key(3), points, jnp.ones(80), 12)
    monkeypatch.setattr(swaps, "_KNOWN", 2)
    again = samplers.k_medoids(jax.random.key(3), points, jnp.ones(80), 12)
    np.testing.assert_array_equal(found.indices, again.indices)


@pytest.mark.parametrize("num_iterations", [1, 50])
def test_agrees_with_trying_every_member(rng, num_iterations):
    points, key = rng.normal(size=(150, 4)), jax.random.key(1)
    sample = partial(
        samplers.k_medoids, start=samplers.uniform, num_iterations=num_iterations, num_candidates=0
    )
    found = jax.jit(sample, static_argnums=3)(key, jnp.float32(points), jnp.ones(150), 8)
    start = samplers.uniform(key, jnp.float32(points), jnp.ones(150), 8).indices
    np.testing.assert_array_equal(found.indices, plain_alternation(points, start, num_iterations))


def test_no_alternation_raises_the_objective(rng):
    points = rng.normal(size=(200, 6))
    keys = jax.random.split(jax.random.key(0), 4)
    values = []
    for steps in (0, 2, 6):
        sample = partial(
            samplers.k_medoids, start=samplers.uniform, num_iterations=steps, num_candidates=0
        )
        mapped = jax.vmap(partial(sample, num=10), (0, None, None))
        found = jax.jit(mapped)(keys, jnp.float32(points), jnp.ones(200))
        values.append([objective(points, indices) for indices in found.indices])
        distances = np.sum(np.maximum(found.distances, 0), axis=1)
        np.testing.assert_allclose(distances, values[-1], rtol=1e-4)
    assert (np.diff(values, axis=0) <= 1e-5 * values[0][0]).all()
    assert (np.array(values[-1]) < 0.95 * np.array(values[0])).all()


def test_every_blob_gets_its_centre(rng):
    centres = 20 * rng.normal(size=(5, 3))
    points = np.repeat(centres, 20, axis=0) + rng.normal(size=(100, 3))
    points[::20] = centres
    sample = partial(samplers.k_medoids, start=samplers.greedy_k_center)
    found = sample(jax.random.key(0), jnp.float32(points), jnp.ones(100), 5)
    assert sorted(np.asarray(found.indices) // 20) == [0, 1, 2, 3, 4]


def test_medoids_stay_apart_among_duplicates():
    points = jnp.float32(np.repeat([[0.0], [5.0]], 6, axis=0))
    found = samplers.k_medoids(jax.random.key(0), points, jnp.ones(12), 7)
    assert len(set(np.asarray(found.indices).tolist())) == 7


def test_d2_draws_in_proportion_to_the_squared_distance():
    points = jnp.float32([[0.0], [1.0], [3.0]])
    draw = jax.jit(jax.vmap(lambda key: samplers.d2_sampling(key, points, jnp.ones(3), 2).indices))
    pairs = np.asarray(draw(jax.random.split(jax.random.key(0), 6000)))
    np.testing.assert_allclose(np.bincount(pairs[:, 0]) / 6000, 1 / 3, atol=0.03)
    after_zero = pairs[pairs[:, 0] == 0, 1]
    np.testing.assert_allclose(np.mean(after_zero == 2), 9 / 10, atol=0.03)


def test_d2_takes_duplicates_last():
    points = jnp.float32([[1e-3, 0], [1e-3, 0], [0, 1e-3], [0, 1e-3], [1e-3, 1e-3]])
    for seed in range(5):
        found = samplers.d2_sampling(jax.random.key(seed), points, jnp.ones(5), 3)
        rows = np.asarray(points)[np.asarray(found.indices)]
        assert len(np.unique(rows, axis=0)) == 3


def test_negative_iterations_are_refused():
    with pytest.raises(ValueError, match="num_iterations=-1"):
        samplers.k_medoids(jax.random.key(0), jnp.ones((4, 2)), jnp.ones(4), 2, num_iterations=-1)
    with pytest.raises(ValueError, match="num_candidates=-1"):
        samplers.k_medoids(jax.random.key(0), jnp.ones((4, 2)), jnp.ones(4), 2, num_candidates=-1)
