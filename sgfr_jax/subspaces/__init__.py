"""Learning bases: explicit subspaces, or a dictionary, instead of patches themselves.

A learner is `learn(key, points [N, D], weights [N], *, ...) -> Subspaces`, and
`types.subspace_bank` makes of it a bank that every coder runs on; `dictionary` returns a bank at
once. Points of weight 0 are padding; points that are not finite are treated as such.
"""

from sgfr_jax.subspaces.bases import squared_residuals
from sgfr_jax.subspaces.dictionary import dictionary
from sgfr_jax.subspaces.k_subspaces import k_subspaces
from sgfr_jax.subspaces.pca import pca
from sgfr_jax.subspaces.sparse_clustering import self_affinity, sparse_clustering, sparse_labels
from sgfr_jax.subspaces.spectral import spectral_clustering

__all__ = [
    "dictionary",
    "k_subspaces",
    "pca",
    "self_affinity",
    "sparse_clustering",
    "sparse_labels",
    "spectral_clustering",
    "squared_residuals",
]
