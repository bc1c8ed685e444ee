import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import SpectralClustering

from sgfr_jax import subspaces
from tests.subspaces import planted

KEY = jax.random.key(0)


def blocks(rng, sizes, noise):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    ties = (labels[:, None] == labels) + noise * rng.random((len(labels), len(labels)))
    return np.triu(ties, 1) + np.triu(ties, 1).T, labels


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_blocks_are_found(rng, noise):
    affinity, labels = blocks(rng, [12, 20, 7], noise)
    found = subspaces.spectral_clustering(KEY, jnp.float32(affinity), jnp.ones(39), num_clusters=3)
    assert planted.accuracy(found, labels) == 1
    assert found.dtype == jnp.int32


def test_agrees_with_scikit_learn_where_blocks_are_faint(rng):
    affinity, _ = blocks(rng, [15, 15], 2.0)
    found = subspaces.spectral_clustering(KEY, jnp.float32(affinity), jnp.ones(30), num_clusters=2)
    theirs = SpectralClustering(2, affinity="precomputed", random_state=0).fit_predict(affinity)
    assert planted.accuracy(found, theirs) > 0.9


def test_padding_changes_nothing(rng):
    affinity, labels = blocks(rng, [12, 20, 7], 0.1)
    padded = np.pad(affinity, (0, 11), constant_values=5.0)
    weights = jnp.ones(50).at[39:].set(0)
    found = subspaces.spectral_clustering(KEY, jnp.float32(padded), weights, num_clusters=3)
    assert planted.accuracy(found[:39], labels) == 1
    np.testing.assert_array_equal(found[39:], -np.ones(11))


def test_points_without_ties_get_some_label(rng):
    affinity, labels = blocks(rng, [12, 9], 0.0)
    affinity = np.pad(affinity, (0, 2))
    found = np.asarray(
        subspaces.spectral_clustering(KEY, jnp.float32(affinity), jnp.ones(23), num_clusters=2)
    )
    assert planted.accuracy(found[:21], labels) == 1
    assert np.isin(found, [0, 1]).all()


def test_one_cluster_and_no_ties():
    found = subspaces.spectral_clustering(KEY, jnp.ones((5, 5)), jnp.ones(5), num_clusters=1)
    np.testing.assert_array_equal(found, np.zeros(5))
    found = subspaces.spectral_clustering(KEY, jnp.zeros((5, 5)), jnp.ones(5), num_clusters=2)
    assert np.isin(np.asarray(found), [0, 1]).all()


@pytest.mark.parametrize(
    "shape,weights,numbers,message",
    [
        ((3, 4), 3, {"num_clusters": 1}, r"\(3, 4\)"),
        ((3, 3), 4, {"num_clusters": 1}, r"\(4,\)"),
        ((3, 3), 3, {"num_clusters": 4}, "num_clusters=4 of 3"),
        ((3, 3), 3, {"num_clusters": 1, "num_restarts": 0}, "num_restarts=0"),
    ],
)
def test_what_is_refused(shape, weights, numbers, message):
    with pytest.raises(ValueError, match=message):
        subspaces.spectral_clustering(KEY, jnp.ones(shape), jnp.ones(weights), **numbers)
