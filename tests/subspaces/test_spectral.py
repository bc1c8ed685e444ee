import jax
import numpy as np
import pytest
from sklearn.cluster import SpectralClustering

from sgfr_jax import subspaces
from tests.subspaces import planted

KEY = jax.random.key(0)
NUM_POINTS = 50  # of all tests, so that one program serves for each number of clusters
CLUSTER = jax.jit(subspaces.spectral_clustering, static_argnames="num_clusters")


def cluster(affinity, num_clusters, weights=None):
    weights = np.ones(NUM_POINTS) if weights is None else weights
    found = CLUSTER(KEY, np.float32(affinity), np.float32(weights), num_clusters=num_clusters)
    assert found.dtype == np.int32
    return np.asarray(found)


def blocks(rng, sizes, noise):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    ties = (labels[:, None] == labels) + noise * rng.random((len(labels), len(labels)))
    return np.triu(ties, 1) + np.triu(ties, 1).T, labels


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_blocks_are_found(rng, noise):
    affinity, labels = blocks(rng, [15, 26, 9], noise)
    assert planted.accuracy(cluster(affinity, 3), labels) == 1


def test_agrees_with_scikit_learn_where_blocks_are_faint(rng):
    affinity, _ = blocks(rng, [25, 25], 2.0)
    theirs = SpectralClustering(2, affinity="precomputed", random_state=0).fit_predict(affinity)
    assert planted.accuracy(cluster(affinity, 2), theirs) > 0.9


def test_padding_changes_nothing(rng):
    affinity, labels = blocks(rng, [12, 20, 7], 0.1)
    padded = np.pad(affinity, (0, 11), constant_values=5.0)
    found = cluster(padded, 3, np.arange(50) < 39)
    assert planted.accuracy(found[:39], labels) == 1
    np.testing.assert_array_equal(found[39:], -np.ones(11))


def test_points_without_ties_get_some_label(rng):
    affinity, labels = blocks(rng, [27, 21], 0.0)
    found = cluster(np.pad(affinity, (0, 2)), 2)
    assert planted.accuracy(found[:48], labels) == 1
    assert np.isin(found, [0, 1]).all()


def test_one_cluster_and_no_ties():
    np.testing.assert_array_equal(cluster(np.ones((50, 50)), 1), np.zeros(50))
    assert np.isin(cluster(np.zeros((50, 50)), 2), [0, 1]).all()


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
        subspaces.spectral_clustering(KEY, np.ones(shape, np.float32), np.ones(weights), **numbers)
