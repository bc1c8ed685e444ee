from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import linalg, samplers
from tests.samplers.test_l1_cost import reference, unit


def plain_search(points, first, num, cost):
    """Farthest-first search as the paper has it: every cost anew for every choice, in float64."""
    chosen = [first]
    while len(chosen) < num:
        costs = cost(points, points[chosen])
        costs[chosen] = -np.inf
        chosen.append(int(np.argmax(costs)))
    return chosen


def ridge_objective(targets, bank):
    """`min_c |z - A^T c|^2 + |c|^2 / 10`: another cost that more atoms cannot raise."""
    atoms = jnp.where(bank.weights[:, None] > 0, bank.atoms, 0)
    gram = jnp.matmul(atoms.T, atoms, precision=linalg.HIGHEST)
    inverse = jnp.linalg.inv(10 * gram + jnp.eye(len(gram)))
    products = jnp.matmul(targets, inverse, precision=linalg.HIGHEST)
    return jnp.sum(products * targets, axis=1)


def ridge_reference(targets, atoms):
    costs = []
    for target in targets:
        rows = np.vstack([atoms.T, np.sqrt(0.1) * np.eye(len(atoms))])
        goal = np.append(target, np.zeros(len(atoms)))
        costs.append(np.linalg.lstsq(rows, goal, rcond=None)[1][0])
    return np.array(costs)


SAMPLE = jax.jit(samplers.self_representation, static_argnums=3)


@pytest.fixture
def points(rng):
    """Three noisy cones. No two points are so far apart that no code uses one for the other, which
    would leave costs that tie."""
    planes = [rng.random((40, 2)) @ rng.random((2, 8)) for _ in range(3)]
    return unit(np.concatenate(planes) + 0.05 * rng.normal(size=(120, 8)))


@pytest.mark.parametrize("pool_size", [1, 16])
def test_lazy_search_chooses_what_the_plain_search_chooses(points, pool_size):
    cost = partial(samplers.l1_cost, tolerance=1e-6)
    sample = partial(samplers.self_representation, cost=cost, pool_size=pool_size)
    found = jax.jit(sample, static_argnums=3)(
        jax.random.key(0), jnp.float32(points), jnp.ones(120), 15
    )
    expected = plain_search(points, int(found.indices[0]), 15, partial(reference, fidelity=10.0))
    np.testing.assert_array_equal(found.indices, expected)


def test_any_monotone_cost_will_do(points):
    sample = partial(samplers.self_representation, cost=ridge_objective, pool_size=8)
    found = jax.jit(sample, static_argnums=3)(
        jax.random.key(1), jnp.float32(points), jnp.ones(120), 12
    )
    expected = plain_search(points, int(found.indices[0]), 12, ridge_reference)
    np.testing.assert_array_equal(found.indices, expected)


def test_bounds_are_bounds(points):
    found = SAMPLE(jax.random.key(3), jnp.float32(points), jnp.ones(120), 15)
    left = np.setdiff1d(np.arange(120), np.asarray(found.indices))
    costs = reference(points[left], points[np.asarray(found.indices)], 10.0)
    assert (np.asarray(found.distances)[left] >= costs * (1 - 1e-4)).all()


def test_stepping_gives_what_one_go_gives(points):
    points, ones, key = jnp.float32(points), jnp.ones(120), jax.random.key(0)
    at_once = SAMPLE(key, points, ones, 15)
    stepped = samplers.self_representation_start(key, points, ones, 15)
    # With no cache but its own.
    advance = jax.jit(partial(samplers.self_representation_advance))
    for upto in (1, 7, 7, 15):
        stepped = advance(stepped, points, upto)
        assert stepped.count == upto
    np.testing.assert_array_equal(stepped.indices, at_once.indices)
    assert advance._cache_size() == 1


def test_the_order_of_points_does_not_matter(points, rng):
    order = rng.permutation(120)
    plain = samplers.self_representation_start(
        jax.random.key(0), jnp.float32(points), jnp.ones(120), 10
    )
    first = int(plain.indices[0])
    shuffled = plain._replace(
        indices=plain.indices.at[0].set(int(np.flatnonzero(order == first)[0])),
        distances=plain.distances[order],
    )
    advance = jax.jit(samplers.self_representation_advance)
    plain = advance(plain, jnp.float32(points), 10)
    shuffled = advance(shuffled, jnp.float32(points[order]), 10)
    np.testing.assert_array_equal(order[np.asarray(shuffled.indices)], plain.indices)


def test_every_subspace_is_found(rng):
    """Points on three lines: after three choices each has its exemplar."""
    lines = np.linalg.qr(rng.normal(size=(6, 3)))[0].T
    points = np.repeat(lines, [50, 8, 2], axis=0) * rng.choice([-1, 1], size=(60, 1))
    found = samplers.self_representation(jax.random.key(0), jnp.float32(points), jnp.ones(60), 3)
    assert sorted(np.repeat([0, 1, 2], [50, 8, 2])[np.asarray(found.indices)]) == [0, 1, 2]


def test_an_empty_pool_is_refused(points):
    with pytest.raises(ValueError, match="pool_size=0"):
        samplers.self_representation(
            jax.random.key(0), jnp.float32(points), jnp.ones(120), 3, pool_size=0
        )


def test_a_cost_of_nan_does_not_go_on_for_ever(rng):
    points = jnp.float32(rng.normal(size=(20, 3)))

    def cost(targets, bank):
        far = jnp.linalg.norm(targets, axis=1) + jnp.sum(bank.weights)
        return jnp.where(targets[:, 0] > 0, jnp.nan, -far)

    sample = jax.jit(partial(samplers.self_representation, cost=cost), static_argnums=3)
    found = sample(jax.random.key(0), points, jnp.ones(20), 20)
    chosen = np.asarray(found.indices)[1 : int(found.count)]
    assert len(chosen) and (np.asarray(points)[chosen, 0] <= 0).all()
