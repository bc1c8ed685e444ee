import importlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import subspaces
from tests.subspaces import planted

# The package shows the function under the module's name.
parts = importlib.import_module("sgfr_jax.subspaces.k_subspaces")

KEY = jax.random.key(0)
NUMBERS = ("num_subspaces", "rank", "affine", "num_restarts", "num_iterations")
LEARN = jax.jit(subspaces.k_subspaces, static_argnames=NUMBERS)


@pytest.mark.parametrize("affine", [False, True])
def test_planted_subspaces_are_recovered(rng, affine):
    points, labels, *_ = planted.union(
        rng, num_subspaces=3, rank=2, num_features=8, each=40, offset=2.0 if affine else 0.0
    )
    found = LEARN(
        KEY,
        jnp.float32(points),
        jnp.ones(120),
        num_subspaces=3,
        rank=2,
        affine=affine,
        num_restarts=8,
    )
    left = planted.squared_residuals(points, found.bases, found.means)
    assert planted.accuracy(left.argmin(axis=1), labels) == 1
    assert left.min(axis=1).max() < 1e-8
    assert all(planted.is_orthonormal(basis, 2) for basis in found.bases)
    np.testing.assert_array_equal(found.weights, np.ones(3))


@pytest.mark.parametrize("affine", [False, True])
def test_noise_is_what_is_left(rng, affine):
    """As good as the planted labels, by an independent objective."""
    points, labels, *_ = planted.union(
        rng, num_subspaces=3, rank=2, num_features=8, each=40, noise=0.1, offset=2.0 * affine
    )
    found = LEARN(
        KEY,
        jnp.float32(points),
        jnp.ones(120),
        num_subspaces=3,
        rank=2,
        affine=affine,
        num_restarts=8,
    )
    left = planted.squared_residuals(points, found.bases, found.means).min(axis=1).sum()
    assert left <= 1.001 * planted.plain_objective(points, labels, 2, affine)


def test_bases_are_the_principal_components_of_their_clusters(rng):
    points = rng.normal(size=(90, 6))
    found = LEARN(
        KEY, jnp.float32(points), jnp.ones(90), num_subspaces=4, rank=2, num_iterations=100
    )
    left = planted.squared_residuals(points, found.bases, found.means)
    # Labels may still move by a few points after the last, exact step: it can only be better.
    assert (
        left.min(axis=1).sum() <= planted.plain_objective(points, left.argmin(1), 2, False) * 1.01
    )


@pytest.mark.parametrize("affine", [False, True])
def test_no_alternation_raises_the_objective(rng, affine):
    points = jnp.float32(rng.normal(size=(150, 7)) + 0.5)
    refine = jax.jit(partial(parts.refine, affine=affine))
    for seed in range(4):
        now = parts.start(
            jax.random.key(seed), points, jnp.ones(150), num_subspaces=6, rank=2, affine=affine
        )
        values = []
        for _ in range(15):
            left = planted.squared_residuals(np.asarray(points), now.bases, now.means)
            values.append(left.min(axis=1).sum())
            np.testing.assert_allclose(
                parts.objective(points, jnp.ones(150), now), values[-1], rtol=1e-4
            )
            now = refine(points, jnp.ones(150), now)
        assert (np.diff(values) <= 1e-5 * values[0]).all()
        assert values[-1] < 0.9 * values[0]


@pytest.mark.parametrize("affine", [False, True])
def test_an_empty_subspace_starts_again_at_the_worst_point(rng, affine):
    points = jnp.float32(rng.normal(size=(60, 6)))
    same = parts.start(KEY, points, jnp.ones(60), num_subspaces=1, rank=2, affine=affine)
    # Three copies: ties go to the first, so two are empty.
    now = jax.tree.map(lambda part: jnp.repeat(part, 3, axis=0), same)
    left = planted.squared_residuals(np.asarray(points), now.bases, now.means).min(axis=1)
    refined = parts.refine(points, jnp.ones(60), now, affine=affine)
    after = planted.squared_residuals(np.asarray(points), refined.bases, refined.means)
    first, second = np.argsort(-left)[:2]
    assert after[first, 1] < 1e-6 and after[second, 2] < 1e-6
    assert after.min(axis=1).sum() < left.sum()


def test_more_restarts_are_not_worse(rng):
    points = rng.normal(size=(80, 6))
    values = []
    for num_restarts in (1, 10):
        found = LEARN(
            KEY,
            jnp.float32(points),
            jnp.ones(80),
            num_subspaces=5,
            rank=1,
            num_restarts=num_restarts,
            num_iterations=60,
        )
        left = planted.squared_residuals(points, found.bases, found.means)
        values.append(left.min(axis=1).sum())
    assert values[1] <= 1.02 * values[0]


@pytest.mark.parametrize("junk", [np.nan, 1e3])
def test_padding_changes_nothing(rng, junk):
    points, *_ = planted.union(rng, num_subspaces=3, rank=2, num_features=8, each=40)
    padded = np.concatenate([points, np.full((20, 8), junk)])
    learn = partial(LEARN, KEY, num_subspaces=3, rank=2, num_restarts=4)
    plain = learn(jnp.float32(points), jnp.ones(120))
    found = learn(jnp.float32(padded), jnp.ones(140).at[120:].set(0))
    for ours, theirs in zip(found.bases, plain.bases, strict=True):
        np.testing.assert_allclose(ours.T @ ours, theirs.T @ theirs, atol=1e-4)


@pytest.mark.parametrize("affine", [False, True])
def test_degenerate_points_are_finite(affine):
    for points in (jnp.ones((12, 4)), jnp.zeros((12, 4)), jnp.eye(12, 4)):
        found = LEARN(KEY, points, jnp.ones(12), num_subspaces=3, rank=2, affine=affine)
        assert all(np.isfinite(part).all() for part in found)
        left = planted.squared_residuals(np.asarray(points), found.bases, found.means)
        used = np.asarray(found.weights) > 0
        assert left[:, used].min(axis=1).max() < 1e-6


def test_fewer_points_than_subspaces_are_finite():
    found = LEARN(KEY, jnp.eye(12, 4), jnp.ones(12).at[2:].set(0), num_subspaces=3, rank=2)
    assert all(np.isfinite(part).all() for part in found)
    left = planted.squared_residuals(np.eye(2, 4), found.bases, found.means)
    assert left[:, np.asarray(found.weights) > 0].min(axis=1).max() < 1e-6


def test_one_seed_one_result(rng):
    points = jnp.float32(rng.normal(size=(120, 8)))
    learn = partial(LEARN, KEY, num_subspaces=3, rank=2, num_restarts=4)
    np.testing.assert_array_equal(*(learn(points, jnp.ones(120)).bases for _ in range(2)))


def test_vmap_over_categories_equals_the_loop(rng):
    points = np.stack(
        [planted.union(rng, num_subspaces=2, rank=1, num_features=5, each=20)[0] for _ in range(2)]
    )
    keys = jax.random.split(KEY, 2)
    learn = partial(subspaces.k_subspaces, num_subspaces=2, rank=1)
    mapped = jax.jit(jax.vmap(learn))(keys, jnp.float32(points), jnp.ones((2, 40)))
    for i in range(2):
        single = LEARN(keys[i], jnp.float32(points[i]), jnp.ones(40), num_subspaces=2, rank=1)
        np.testing.assert_allclose(
            np.abs(np.sum(mapped.bases[i] * single.bases, axis=-1)), 1, atol=1e-4
        )


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
        subspaces.k_subspaces(KEY, jnp.ones((12, 4)), jnp.ones(12), **numbers)
