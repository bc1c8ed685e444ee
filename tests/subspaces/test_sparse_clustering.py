from functools import partial

import jax
import numpy as np
import pytest

from sgfr_jax import solvers, subspaces
from tests.subspaces import planted

KEY = jax.random.key(0)
OMP = partial(solvers.omp, sparsity=3)
ELASTIC_NET = partial(solvers.elastic_net_code, l1=0.05, l2=0.5)
LABELS = jax.jit(
    partial(subspaces.sparse_labels, num_subspaces=3, code=ELASTIC_NET, num_restarts=3)
)
LEARN = jax.jit(
    partial(subspaces.sparse_clustering, num_subspaces=3, rank=2, code=ELASTIC_NET, num_restarts=3)
)


@pytest.fixture
def problem(rng):
    return planted.union(rng, num_subspaces=3, rank=2, num_features=9, each=20)


def test_planted_labels_and_subspaces_are_recovered(problem):
    points, planted_labels, *_ = problem
    points, ones = np.float32(points), np.ones(60, np.float32)
    labels = LABELS(KEY, points, ones)
    assert planted.accuracy(labels, planted_labels) == 1
    found = LEARN(KEY, points, ones)
    left = planted.squared_residuals(points, found.bases, found.means)
    assert left.min(axis=1).max() < 1e-8
    np.testing.assert_array_equal(left.argmin(axis=1), labels)


def test_affinity_agrees_with_coding_one_at_a_time(problem):
    points = problem[0]
    affinity = jax.jit(partial(subspaces.self_affinity, code=OMP, chunk_size=16))
    found = np.asarray(affinity(np.float32(points), np.ones(60, np.float32)))
    rows = np.zeros((60, 60))
    for n in range(60):
        residual, support = points[n], []
        for _ in range(3):
            # Two atoms of its own plane rebuild a point.
            if np.linalg.norm(residual) < 1e-6 * np.linalg.norm(points[n]):
                break
            pulls = np.abs(points @ residual) / np.linalg.norm(points, axis=1)
            pulls[[n, *support]] = -1
            support.append(int(np.argmax(pulls)))
            fit = np.linalg.lstsq(points[support].T, points[n], rcond=None)[0]
            residual = points[n] - fit @ points[support]
        rows[n, support] = np.abs(fit) / np.abs(fit).max()
    np.testing.assert_allclose(found, rows + rows.T, atol=1e-3)
    np.testing.assert_array_equal(np.diagonal(found), np.zeros(60))


def test_affine_subspaces_are_recovered(rng):
    points, planted_labels, *_ = planted.union(
        rng, num_subspaces=2, rank=1, num_features=6, each=15, offset=2.0
    )
    near = partial(
        solvers.local_code, num_neighbors=6, solve=partial(solvers.affine_ridge, ridge=1e-2)
    )
    learn = partial(subspaces.sparse_clustering, num_subspaces=2, rank=1, code=near, affine=True)
    found = jax.jit(learn)(KEY, np.float32(points), np.ones(30, np.float32))
    left = planted.squared_residuals(points, found.bases, found.means)
    assert planted.accuracy(left.argmin(axis=1), planted_labels) == 1
    assert left.min(axis=1).max() < 1e-8


def test_padding_and_points_that_are_not_finite_change_nothing(problem):
    points, planted_labels, *_ = problem
    spoilt, weights = np.float32(points), np.ones(60, np.float32)
    spoilt[:3], spoilt[1, 4] = 7.0, np.nan
    weights[[0, 2]] = 0
    labels = np.asarray(LABELS(KEY, spoilt, weights))
    assert planted.accuracy(labels[3:], planted_labels[3:]) == 1
    np.testing.assert_array_equal(labels[:3], -np.ones(3))


def test_degenerate_points_are_finite():
    shape = 60, 9
    for points in (np.ones(shape), np.zeros(shape), np.eye(*shape) * (np.arange(9) < 4)):
        found = LEARN(KEY, np.float32(points), np.ones(60, np.float32))
        assert all(np.isfinite(part).all() for part in found)


def test_one_seed_one_result(problem):
    first, second = (LABELS(KEY, np.float32(problem[0]), np.ones(60, np.float32)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_what_is_refused():
    with pytest.raises(ValueError, match="rank=5, but 6 points of 4 features"):
        subspaces.sparse_clustering(
            KEY, np.ones((6, 4), np.float32), np.ones(6), num_subspaces=2, rank=5, code=OMP
        )
    with pytest.raises(ValueError, match="num_clusters=7 of 6"):
        jax.eval_shape(
            partial(subspaces.sparse_clustering, num_subspaces=7, rank=2, code=OMP),
            KEY,
            np.ones((6, 4), np.float32),
            np.ones(6),
        )
