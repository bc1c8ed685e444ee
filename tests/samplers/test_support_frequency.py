from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import samplers, solvers

NEAREST = partial(solvers.local_code, num_neighbors=1, solve=solvers.nearest)
RIDGE = partial(solvers.local_code, num_neighbors=4, solve=partial(solvers.ridge, ridge=1e-2))

SAMPLE = jax.jit(
    samplers.support_frequency,
    static_argnums=3,
    static_argnames=("code", "num_candidates", "chunk_size"),
)
UNIFORM = jax.jit(samplers.uniform, static_argnums=3)


def use(points, candidates, num_neighbors, penalty):
    """How much every candidate serves the other points, in float64."""
    used = np.zeros(len(candidates))
    for n, point in enumerate(points):
        others = [c for c in range(len(candidates)) if candidates[c] != n]
        atoms = points[np.asarray(candidates)[others]]
        support = np.argsort(np.sum((point - atoms) ** 2, axis=1))[:num_neighbors]
        near = atoms[support]
        scale = penalty * np.mean(np.sum(near**2, axis=1))
        rows = np.vstack([near.T, np.sqrt(scale) * np.eye(num_neighbors)])
        goal = np.append(point, np.zeros(num_neighbors))
        found = np.linalg.lstsq(rows, goal, rcond=None)[0]
        used[np.asarray(others)[support]] += np.abs(found)
    return used


@pytest.mark.parametrize("num_candidates,chunk_size", [(None, 256), (None, 7), (25, 16)])
def test_agrees_with_counting_one_by_one(rng, num_candidates, chunk_size):
    points, key = rng.normal(size=(60, 5)), jax.random.key(3)
    arguments = key, np.float32(points), np.ones(60, np.float32)
    found = SAMPLE(*arguments, 10, code=RIDGE, num_candidates=num_candidates, chunk_size=chunk_size)
    proposed = UNIFORM(*arguments, num_candidates or 60)
    candidates = np.sort(np.asarray(proposed.indices))
    used = use(points, candidates, 4, 1e-2)
    expected = candidates[np.argsort(-used, kind="stable")[:10]]
    np.testing.assert_array_equal(found.indices, expected)


def test_ties_by_index_and_no_point_counts_for_itself():
    """On a line each point serves its neighbour; the lone pair's points serve each other once."""
    points = np.float32([[0.0], [1.0], [1.9], [50.0], [50.1]])
    found = SAMPLE(jax.random.key(0), points, np.ones(5), 5, code=NEAREST)
    # 0 -> 1, 1 -> 2, 2 -> 1, 3 -> 4, 4 -> 3
    np.testing.assert_array_equal(found.indices, [1, 2, 3, 4, 0])


def test_a_code_over_all_atoms_will_do(rng):
    points = np.float32(rng.normal(size=(12, 3)))

    def all_atoms(targets, bank):
        found = solvers.local_code(
            targets, bank, num_neighbors=12, solve=partial(solvers.ridge, ridge=1e-2)
        )
        rows = jnp.arange(len(targets))[:, None]
        coefficients = jnp.zeros((len(targets), 12)).at[rows, found.indices].set(found.coefficients)
        return type(found)(None, coefficients)

    local = partial(solvers.local_code, num_neighbors=12, solve=partial(solvers.ridge, ridge=1e-2))
    picks = [
        SAMPLE(jax.random.key(0), points, np.ones(12), 5, code=code).indices
        for code in (all_atoms, local)
    ]
    np.testing.assert_array_equal(*picks)


@pytest.mark.parametrize("num_candidates", [4, 61])
def test_candidates_that_cannot_be_are_refused(num_candidates):
    with pytest.raises(ValueError, match=f"num_candidates={num_candidates} for 5 of 60"):
        samplers.support_frequency(
            jax.random.key(0),
            np.ones((60, 2), np.float32),
            np.ones(60, np.float32),
            5,
            code=NEAREST,
            num_candidates=num_candidates,
        )
