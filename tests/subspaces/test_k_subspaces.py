import importlib
from functools import partial

import jax
import numpy as np
import pytest

from sgfr_jax import subspaces
from tests.subspaces import planted

# The package shows the function under the module's name.
parts = importlib.import_module("sgfr_jax.subspaces.k_subspaces")

KEY = jax.random.key(0)
# One shape and one set of numbers, so that two programs serve nearly all tests.
NUM_POINTS, NUM_FEATURES, NUM_SUBSPACES, RANK = 120, 8, 3, 2
ONES = np.ones(NUM_POINTS, np.float32)
LEARN = jax.jit(
    partial(subspaces.k_subspaces, num_subspaces=NUM_SUBSPACES, rank=RANK, num_iterations=100),
    static_argnames=("affine", "num_restarts"),
)
START = jax.jit(parts.start, static_argnames=("num_subspaces", "rank", "affine"))
REFINE = jax.jit(parts.refine, static_argnames="affine")
OBJECTIVE = jax.jit(parts.objective)
both_kinds = pytest.mark.parametrize("affine", [False, True])


def learn(points, weights=ONES, *, affine=False, num_restarts=8):
    return LEARN(KEY, np.float32(points), weights, affine=affine, num_restarts=num_restarts)


def union(rng, **options):
    return planted.union(
        rng, num_subspaces=NUM_SUBSPACES, rank=RANK, num_features=NUM_FEATURES, each=40, **options
    )


@both_kinds
def test_planted_subspaces_are_recovered(rng, affine):
    points, labels, *_ = union(rng, offset=2.0 if affine else 0.0)
    found = learn(points, affine=affine)
    left = planted.squared_residuals(points, found.bases, found.means)
    assert planted.accuracy(left.argmin(axis=1), labels) == 1
    assert left.min(axis=1).max() < 1e-8
    assert all(planted.is_orthonormal(basis, 2) for basis in np.asarray(found.bases))
    np.testing.assert_array_equal(found.weights, np.ones(3))


@both_kinds
def test_noise_is_what_is_left(rng, affine):
    """As good as the planted labels, by an independent objective."""
    points, labels, *_ = union(rng, noise=0.1, offset=2.0 * affine)
    found = learn(points, affine=affine)
    left = planted.squared_residuals(points, found.bases, found.means).min(axis=1).sum()
    assert left <= 1.001 * planted.plain_objective(points, labels, 2, affine)


def test_bases_are_the_principal_components_of_their_clusters(rng):
    points = rng.normal(size=(NUM_POINTS, NUM_FEATURES))
    found = learn(points)
    left = planted.squared_residuals(points, found.bases, found.means)
    # Labels may still move by a few points after the last, exact step: it can only be better.
    assert (
        left.min(axis=1).sum() <= planted.plain_objective(points, left.argmin(1), 2, False) * 1.01
    )


def begin(seed, points, affine):
    """Six subspaces, where alternation begins."""
    return START(jax.random.key(seed), points, ONES, num_subspaces=6, rank=RANK, affine=affine)


@both_kinds
def test_no_alternation_raises_the_objective(rng, affine):
    points = np.float32(rng.normal(size=(NUM_POINTS, NUM_FEATURES)) + 0.5)
    for seed in range(4):
        now = begin(seed, points, affine)
        values = []
        for _ in range(15):
            left = planted.squared_residuals(points, now.bases, now.means)
            values.append(left.min(axis=1).sum())
            np.testing.assert_allclose(OBJECTIVE(points, ONES, now), values[-1], rtol=1e-4)
            now = REFINE(points, ONES, now, affine=affine)
        assert (np.diff(values) <= 1e-5 * values[0]).all()
        assert values[-1] < 0.9 * values[0]


@both_kinds
def test_an_empty_subspace_starts_again_at_the_worst_point(rng, affine):
    points = np.float32(rng.normal(size=(NUM_POINTS, NUM_FEATURES)))
    # Copies of one: ties go to the first, so the others are empty.
    now = jax.tree.map(
        lambda part: np.repeat(np.asarray(part)[:1], 6, axis=0), begin(0, points, affine)
    )
    left = planted.squared_residuals(points, now.bases, now.means).min(axis=1)
    refined = REFINE(points, ONES, now, affine=affine)
    after = planted.squared_residuals(points, refined.bases, refined.means)
    first, second = np.argsort(-left)[:2]
    assert after[first, 1] < 1e-6 and after[second, 2] < 1e-6
    assert after.min(axis=1).sum() < left.sum()


def test_more_restarts_are_not_worse(rng):
    points = rng.normal(size=(NUM_POINTS, NUM_FEATURES))
    values = []
    for num_restarts in (1, 8):
        found = learn(points, num_restarts=num_restarts)
        left = planted.squared_residuals(points, found.bases, found.means)
        values.append(left.min(axis=1).sum())
    assert values[1] <= 1.02 * values[0]


@pytest.mark.parametrize("junk", [np.nan, 1e3])
def test_padding_changes_nothing(rng, junk):
    points, *_ = union(rng)
    padded = np.concatenate([points, np.full((20, NUM_FEATURES), junk)])
    plain = learn(points)
    found = learn(padded, np.append(ONES, np.zeros(20, np.float32)))
    for ours, theirs in zip(np.asarray(found.bases), np.asarray(plain.bases), strict=True):
        np.testing.assert_allclose(ours.T @ ours, theirs.T @ theirs, atol=1e-4)


@both_kinds
def test_degenerate_points_are_finite(affine):
    shape = NUM_POINTS, NUM_FEATURES
    for points in (np.ones(shape), np.zeros(shape), np.eye(*shape) * (np.arange(8) < 4)):
        found = learn(points, affine=affine)
        assert all(np.isfinite(part).all() for part in found)
        left = planted.squared_residuals(points, found.bases, found.means)
        used = np.asarray(found.weights) > 0
        assert left[:, used].min(axis=1).max() < 1e-6


def test_fewer_points_than_subspaces_are_finite():
    points, num = np.eye(NUM_POINTS, NUM_FEATURES), 2
    found = learn(points, np.float32(np.arange(NUM_POINTS) < num))
    assert all(np.isfinite(part).all() for part in found)
    left = planted.squared_residuals(points[:num], found.bases, found.means)
    assert left[:, np.asarray(found.weights) > 0].min(axis=1).max() < 1e-6


@pytest.mark.parametrize(
    "numbers,message",
    [
        ({"num_subspaces": 13, "rank": 2}, "num_subspaces=13 of 12"),
        ({"num_subspaces": 0, "rank": 2}, "num_subspaces=0 of 12"),
        ({"num_subspaces": 2, "rank": 5}, "rank=5, but 12 points of 4"),
        ({"num_subspaces": 2, "rank": 2, "num_restarts": 0}, "num_restarts=0"),
        ({"num_subspaces": 2, "rank": 2, "num_iterations": -1}, "num_iterations=-1"),
    ],
)
def test_what_is_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        subspaces.k_subspaces(KEY, np.ones((12, 4), np.float32), np.ones(12), **numbers)
