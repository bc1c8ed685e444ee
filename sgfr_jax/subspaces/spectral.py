"""Spectral clustering: points with strong ties get one label."""

import jax
import jax.numpy as jnp

from sgfr_jax import checks, linalg, loops


def spectral_clustering(
    key: jax.Array,
    affinity: jax.Array,
    weights: jax.Array,
    *,
    num_clusters: int,
    num_restarts: int = 10,
    num_iterations: int = 50,
) -> jax.Array:
    """Labels by normalised cuts (Ng, Jordan and Weiss 2001).

    The rows of the first `S` eigenvectors of `D^{-1/2} A D^{-1/2}` (the last of the normalised
    Laplacian `I - D^{-1/2} A D^{-1/2}`), scaled to unit norm, are clustered by k-means.

    Args:
      key: consumed by k-means.
      affinity: `[N, N]`, symmetric, not negative.
      weights: `[N]`; 0 for padding, whose ties do not count.
      num_clusters: `S`, 1 to `N`.
      num_restarts: starts of k-means, of which the best counts.
      num_iterations: iterations of each.

    Returns:
      `[N]` int32 labels; -1 for padding. A point without ties gets some label.

    Raises:
      ValueError: if shapes do not fit or a number is out of range.
    """
    num_points = affinity.shape[0]
    if affinity.shape != (num_points, num_points) or weights.shape != (num_points,):
        raise ValueError(
            f"affinity must be [N, N] and weights [N], got {affinity.shape} and {weights.shape}"
        )
    checks.floating(affinity=affinity)
    if not 1 <= num_clusters <= num_points:
        raise ValueError(
            f"num_clusters={num_clusters} of {num_points} points; use 1 to {num_points}"
        )
    if num_restarts < 1 or num_iterations < 1:
        raise ValueError(
            f"num_restarts={num_restarts} and num_iterations={num_iterations} must be positive"
        )
    real = weights > 0
    ties = jnp.where(real[:, None] & real[None], affinity, 0)
    degrees = jnp.sum(ties, axis=1)
    scales = jnp.where(degrees > 0, jax.lax.rsqrt(jnp.where(degrees > 0, degrees, 1)), 0)
    normalised = scales[:, None] * ties * scales[None]
    # Padding is pushed below every eigenvalue of the rest.
    normalised = jnp.where(jnp.diag(~real), -2, normalised)
    vectors = jnp.linalg.eigh(normalised)[1][:, -num_clusters:]
    norms = jnp.linalg.norm(vectors, axis=1, keepdims=True)
    rows = jnp.where(real[:, None], vectors / jnp.where(norms > 0, norms, 1), 0)
    labels = _k_means(key, rows, real, num_clusters, num_restarts, num_iterations)
    return jnp.where(real, labels, -1).astype(jnp.int32)


def _k_means(key, rows, real, num_clusters, num_restarts, num_iterations):
    """Lloyd's iteration from farthest-first starts, the best of several."""

    def one_start(key):
        centres = _spread(key, rows, real, num_clusters)
        centres = loops.begin(centres, rows, real)
        centres = jax.lax.fori_loop(0, num_iterations, step, centres)
        distances = linalg.squared_distances(rows, centres)
        return jnp.argmin(distances, axis=1), jnp.sum(jnp.min(distances, axis=1), where=real)

    def step(_, centres):
        labels = jnp.argmin(linalg.squared_distances(rows, centres), axis=1)
        member = ((labels[:, None] == jnp.arange(num_clusters)[None]) & real[:, None]).astype(
            rows.dtype
        )
        sizes = jnp.sum(member, axis=0)
        means = jnp.matmul(member.T, rows, precision=linalg.HIGHEST)
        return jnp.where((sizes > 0)[:, None], means / jnp.maximum(sizes, 1)[:, None], centres)

    labels, costs = jax.lax.map(one_start, jax.random.split(key, num_restarts))
    return labels[jnp.argmin(costs)]


def _spread(key, rows, real, num):
    """Every centre is drawn with the odds of its squared distance to the earlier ones."""

    def choose(slot, state):
        centres, distances = state
        noise = jax.random.gumbel(jax.random.fold_in(key, slot), distances.shape, rows.dtype)
        odds = jnp.log(jnp.maximum(distances, jnp.finfo(rows.dtype).tiny)) + noise
        best = jnp.argmax(jnp.where(real, odds, -jnp.inf))
        to_best = linalg.squared_distances(rows, rows[best][None])[:, 0]
        return centres.at[slot].set(rows[best]), jnp.minimum(distances, to_best)

    state = (jnp.zeros((num, rows.shape[1]), rows.dtype), jnp.ones(len(rows), rows.dtype))
    state = loops.begin(state, key, rows, real)
    return jax.lax.fori_loop(0, num, choose, state)[0]
