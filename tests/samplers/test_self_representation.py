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


# One number of choices for all tests, so that they share programs. The paper's cost takes longest
# to compile: what does not depend on it is tested with ridge.
NUM = 15
ONES = np.ones(120, np.float32)
SAMPLE = jax.jit(
    samplers.self_representation, static_argnums=3, static_argnames=("cost", "pool_size")
)
START = jax.jit(partial(samplers.self_representation_start, cost=ridge_objective), static_argnums=3)
ADVANCE = jax.jit(partial(samplers.self_representation_advance, cost=ridge_objective, pool_size=8))
L1_COST = partial(samplers.l1_cost, tolerance=1e-6)


def sample(seed, points, *, cost=L1_COST, pool_size=16):
    key, points = jax.random.key(seed), np.float32(points)
    return jax.device_get(SAMPLE(key, points, ONES, NUM, cost=cost, pool_size=pool_size))


@pytest.fixture
def points(rng):
    """Three noisy cones. No two points are so far apart that no code uses one for the other, which
    would leave costs that tie."""
    planes = [rng.random((40, 2)) @ rng.random((2, 8)) for _ in range(3)]
    return unit(np.concatenate(planes) + 0.05 * rng.normal(size=(120, 8)))


def test_lazy_search_chooses_what_the_plain_search_chooses(points):
    found = sample(0, points)
    expected = plain_search(points, int(found.indices[0]), NUM, partial(reference, fidelity=10.0))
    np.testing.assert_array_equal(found.indices, expected)


@pytest.mark.parametrize("pool_size", [1, 8])
def test_any_monotone_cost_will_do(points, pool_size):
    found = sample(1, points, cost=ridge_objective, pool_size=pool_size)
    expected = plain_search(points, int(found.indices[0]), NUM, ridge_reference)
    np.testing.assert_array_equal(found.indices, expected)


def test_bounds_are_bounds(points):
    found = sample(3, points)
    left = np.setdiff1d(np.arange(120), found.indices)
    costs = reference(points[left], points[found.indices], 10.0)
    assert (found.distances[left] >= costs * (1 - 1e-4)).all()


def test_stepping_gives_what_one_go_gives(points):
    at_once = sample(0, points, cost=ridge_objective, pool_size=8)
    points = np.float32(points)
    stepped = START(jax.random.key(0), points, ONES, NUM)
    sizes = []
    for upto in (1, 7, 7, NUM):
        stepped = ADVANCE(stepped, points, upto)
        assert stepped.count == upto
        sizes.append(ADVANCE._cache_size())
    np.testing.assert_array_equal(stepped.indices, at_once.indices)
    assert len(set(sizes)) == 1  # compiled once


def test_the_order_of_points_does_not_matter(points, rng):
    order, points = rng.permutation(120), np.float32(points)
    plain = jax.device_get(START(jax.random.key(0), points, ONES, NUM))
    indices = plain.indices.copy()
    indices[0] = np.flatnonzero(order == plain.indices[0])[0]
    shuffled = plain._replace(indices=indices, distances=plain.distances[order])
    plain = ADVANCE(plain, points, 10)
    shuffled = ADVANCE(shuffled, points[order], 10)
    np.testing.assert_array_equal(order[np.asarray(shuffled.indices)[:10]], plain.indices[:10])


def test_every_subspace_is_found(rng):
    """Points on three lines: after three choices each has its exemplar."""
    labels = np.repeat([0, 1, 2], [100, 16, 4])
    lines = np.linalg.qr(rng.normal(size=(8, 3)))[0].T
    found = sample(0, lines[labels] * rng.choice([-1, 1], size=(120, 1)))
    assert sorted(labels[found.indices[:3]]) == [0, 1, 2]


def test_an_empty_pool_is_refused(points):
    with pytest.raises(ValueError, match="pool_size=0"):
        jax.eval_shape(
            partial(samplers.self_representation, num=3, pool_size=0),
            jax.random.key(0), np.float32(points), ONES,
        )  # fmt: skip


def test_a_cost_of_nan_does_not_go_on_for_ever(rng):
    points = jnp.float32(rng.normal(size=(20, 3)))

    def cost(targets, bank):
        far = jnp.linalg.norm(targets, axis=1) + jnp.sum(bank.weights)
        return jnp.where(targets[:, 0] > 0, jnp.nan, -far)

    sample = jax.jit(partial(samplers.self_representation, cost=cost), static_argnums=3)
    found = sample(jax.random.key(0), points, jnp.ones(20), 20)
    chosen = np.asarray(found.indices)[1 : int(found.count)]
    assert len(chosen) and (np.asarray(points)[chosen, 0] <= 0).all()
