"""The nearest atoms, found by libraries for that: distances to the nearest one are returned."""

from collections.abc import Callable

import numpy as np

from benchmarks.peers import threads


def scikit_learn(
    atoms: np.ndarray, targets: np.ndarray, num_neighbors: int
) -> Callable[[], np.ndarray]:
    """scikit-learn's brute-force search."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=num_neighbors, algorithm="brute").fit(atoms)
    return lambda: index.kneighbors(targets)[0][:, 0]


def faiss_flat(
    atoms: np.ndarray, targets: np.ndarray, num_neighbors: int
) -> Callable[[], np.ndarray]:
    """FAISS's exact search."""
    import faiss

    faiss.omp_set_num_threads(threads.CORES)
    index = faiss.IndexFlatL2(atoms.shape[1])
    index.add(atoms)
    return lambda: np.sqrt(index.search(targets, num_neighbors)[0][:, 0])
