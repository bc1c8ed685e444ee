"""What all learners promise; a new one joins by a row. One shape for all: each compiles once."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import solvers, subspaces

OMP = partial(solvers.omp, sparsity=2)
SEVERAL = {"num_subspaces": 3, "rank": 2, "num_restarts": 2}
LEARNERS = {
    "pca": partial(subspaces.pca, rank=2),
    "affine_pca": partial(subspaces.pca, rank=2, affine=True),
    "k_subspaces": partial(subspaces.k_subspaces, **SEVERAL),
    "affine_k_subspaces": partial(subspaces.k_subspaces, affine=True, **SEVERAL),
    "sparse_clustering": partial(subspaces.sparse_clustering, code=OMP, **SEVERAL),
    "dictionary": partial(subspaces.dictionary, num_atoms=5, code=OMP, num_steps=5, batch_size=8),
}
JITTED = {name: jax.jit(learn) for name, learn in LEARNERS.items()}
NUM_POINTS, NUM_FEATURES = 24, 6
SLOW = pytest.mark.slow  # whose programs take longest to compile
every_learner = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=SLOW) if name == "sparse_clustering" else name for name in LEARNERS],
)


def learn(name, points, weights, seed=0):
    return JITTED[name](jax.random.key(seed), jnp.float32(points), jnp.float32(weights))


def shape_of(found):
    """What does not depend on the signs of basis vectors: projections, or atoms."""
    if not hasattr(found, "bases"):
        return np.asarray(found.atoms)
    return np.einsum("...srd,...sre->...sde", found.bases, found.bases)


@pytest.fixture
def points(rng):
    return rng.normal(size=(NUM_POINTS, NUM_FEATURES))


@every_learner
class TestEveryLearner:
    def test_many_categories_at_once_equal_the_loop(self, rng, name):
        points = jnp.float32(rng.normal(size=(3, NUM_POINTS, NUM_FEATURES)))
        weights = jnp.ones((3, NUM_POINTS)).at[1, 18:].set(0)
        keys = jax.random.split(jax.random.key(0), 3)
        mapped = jax.jit(jax.vmap(LEARNERS[name]))(keys, points, weights)
        for i in range(3):
            single = JITTED[name](keys[i], points[i], weights[i])
            np.testing.assert_allclose(shape_of(mapped)[i], shape_of(single), atol=1e-3)

    def test_new_values_do_not_compile_again(self, points, name):
        learn(name, points, np.ones(NUM_POINTS))
        before = JITTED[name]._cache_size()
        learn(name, 2 * points, np.arange(NUM_POINTS) < 18, seed=1)
        assert JITTED[name]._cache_size() == before

    def test_one_seed_one_result(self, points, name):
        found = [learn(name, points, np.ones(NUM_POINTS), seed=3) for _ in range(2)]
        jax.tree.map(np.testing.assert_array_equal, *found)

    @pytest.mark.parametrize("rubbish", [np.nan, np.inf])
    def test_what_is_not_finite_is_padding(self, points, name, rubbish):
        weights = np.ones(NUM_POINTS)
        spoiled = points.copy()
        spoiled[5, 2] = spoiled[7] = rubbish
        found = learn(name, spoiled, weights)
        weights[[5, 7]] = 0
        jax.tree.map(np.testing.assert_array_equal, found, learn(name, points, weights))

    def test_degenerate_points_stay_finite(self, points, name):
        for these in (0 * points, np.ones_like(points), np.repeat(points[:4], 6, axis=0)):
            for part in learn(name, these, np.ones(NUM_POINTS)):
                assert np.isfinite(part).all()

    def test_shapes_that_do_not_fit(self, points, name):
        with pytest.raises(ValueError, match=r"\(24, 6\) and \(3,\)"):
            learn(name, points, np.ones(3))

    def test_integers(self, points, name):
        with pytest.raises(ValueError, match="int32"):
            LEARNERS[name](jax.random.key(0), jnp.ones((24, 6), jnp.int32), jnp.ones(24))
