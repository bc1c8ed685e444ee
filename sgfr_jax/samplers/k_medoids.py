"""Patches at the centres of clusters: the least mean squared distance to the bank."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sgfr_jax import frames, linalg, loops, types
from sgfr_jax.samplers import eligibility, swaps

Sample = Callable[[jax.Array, jax.Array, jax.Array, int], types.Selection]

# Distances from so many points to the medoids are held at a time.
_ROWS = 1024


def d2_sampling(key: jax.Array, points: jax.Array, weights: jax.Array, num: int) -> types.Selection:
    """Every choice is drawn with the odds of the squared distance to all earlier ones.

    `P(n) = d_n^2 / sum_k d_k^2` with `d_n = min_j |x_n - x_{i_j}|`, the seeding of
    k-means++ (Arthur and Vassilvitskii 2007): between `uniform` and `greedy_k_center`. It reads all
    points for every choice.

    Args:
      key: consumed.
      points: `[N, D]`.
      weights: `[N]`; 0 for padding.
      num: `M`, how many to choose.

    Returns:
      A complete `Selection` of `M` slots. Duplicates of earlier choices come last, by index.

    Raises:
      ValueError: if `num` is not between 1 and `N`, or shapes do not fit.
    """
    points, eligible = eligibility.check(points, weights, num)
    points = _from_their_mean(points, eligible)
    norms = jnp.sum(points**2, axis=-1)

    def choose(slot, state):
        distances, indices, count = state
        # Gumbel's trick draws in proportion, and the same whatever padding follows.
        noise = jax.random.gumbel(jax.random.fold_in(key, slot), distances.shape, points.dtype)
        odds = jnp.log(jnp.where(distances > 0, distances, 1)) + noise
        last = jnp.where(distances < 0, -jnp.inf, jnp.finfo(points.dtype).min)
        best = jnp.argmax(jnp.where(distances > 0, odds, last))
        fresh = (distances[best] > -jnp.inf).astype(jnp.int32)
        products = jnp.matmul(points, points[best], precision=linalg.HIGHEST)
        lowered = jnp.minimum(distances, jnp.maximum(norms + norms[best] - 2 * products, 0))
        lowered = jnp.where(distances > -jnp.inf, lowered, -jnp.inf).at[best].set(-jnp.inf)
        return lowered, indices.at[slot].set(best.astype(jnp.int32)), count + fresh

    distances = jnp.where(eligible, jnp.finfo(points.dtype).max, -jnp.inf).astype(points.dtype)
    state = (distances, jnp.zeros(num, jnp.int32), jnp.zeros((), jnp.int32))
    state = loops.begin(state, key, points)
    distances, indices, count = jax.lax.fori_loop(0, num, choose, state)
    return eligibility.make_selection(indices, jnp.arange(num) < count, distances)


def k_medoids(
    key: jax.Array,
    points: jax.Array,
    weights: jax.Array,
    num: int,
    *,
    start: Sample = d2_sampling,
    num_iterations: int = 20,
    num_candidates: int | None = None,
) -> types.Selection:
    """Medoids of the least sum of squared distances: alternation, then FasterPAM's swaps.

    Alternation (Park and Jun 2009) is cheap: points join their nearest medoid; then every cluster's
    medoid becomes the point of the cluster with the least sum of squared distances to the others,
    which is the point nearest to the mean: `sum_x |x - m|^2 = sum_x |x - mean|^2 + n |m - mean|^2`.
    It stops early where there are many features, whose medoids lie far from their means. Swaps of a
    medoid for any other point (PAM's, by the rule of Schubert and Rousseeuw 2021: `samplers.swaps`)
    then go on until none lowers the sum, or the candidates are used up. No step raises
    `sum_n min_m |x_n - m|^2` (but for rounding).

    Args:
      key: consumed by `start` and the order of the candidates.
      points: `[N, D]`.
      weights: `[N]`; 0 for padding.
      num: `M`, how many to choose.
      start: the sampler of the first medoids.
      num_iterations: how many alternations, at most; each costs a product of all points with all
        medoids. 0 leaves the first medoids to the swaps.
      num_candidates: how many points are tried in swaps, at most, in blocks of 64 and again after
        each swap; each costs a product with all points. By default 10,000 and ten for each slot,
        which is enough for some thousands of points; 0 makes no swap.

    Returns:
      A complete `Selection` of `M` slots.

    Raises:
      ValueError: if `num` is not between 1 and `N`, `num_iterations` or `num_candidates` is
        negative, or shapes do not fit.
    """
    points, eligible = eligibility.check(points, weights, num)
    if num_iterations < 0:
        raise ValueError(f"num_iterations={num_iterations}; it must not be negative")
    num_candidates = 10_000 + 10 * num if num_candidates is None else num_candidates
    if num_candidates < 0:
        raise ValueError(f"num_candidates={num_candidates}; it must not be negative")
    points = _from_their_mean(points, eligible)
    first = start(key, points, eligible.astype(points.dtype), num)
    filled = first.weights > 0

    def moving(state):
        step, _, moved = state
        return (step < num_iterations) & moved

    def alternate(state):
        step, medoids, _ = state
        owner, _ = _assign(points, medoids, filled)
        # A medoid stays in its own cluster even beside a duplicate, so clusters never run empty
        # and no two share a medoid. What is not eligible belongs to none.
        owner = owner.at[jnp.where(filled, medoids, len(points))].set(
            jnp.arange(num, dtype=jnp.int32), mode="drop"
        )
        found = _central_points(points, jnp.where(eligible, owner, num), num)
        found = jnp.where(filled, found, 0)
        return step + 1, found, jnp.any(found != medoids)

    state = loops.begin((0, first.indices, jnp.bool_(True)), points, filled)
    medoids = jax.lax.while_loop(moving, alternate, state)[1]
    swap_key = jax.random.fold_in(key, num)  # `start` folds in the numbers of slots
    medoids = swaps.swap(swap_key, points, eligible, medoids, filled, num_candidates)
    _, distances = _assign(points, medoids, filled)
    distances = jnp.where(eligible, distances, -jnp.inf)
    distances = distances.at[jnp.where(filled, medoids, len(points))].set(-jnp.inf, mode="drop")
    return eligibility.make_selection(medoids, filled, distances)


def _from_their_mean(points, eligible):
    """The points from an origin among them, where rounding is least; 0 for what is not eligible."""
    return jnp.where(eligible[:, None], points - frames.frame(points, eligible)[0][None], 0)


def _assign(points, medoids, filled):
    """The slot of every point's nearest medoid, `[N]`, and the squared distance to it."""
    atoms = points[medoids]

    def of_rows(rows):
        distances = jnp.where(filled[None], linalg.squared_distances(rows, atoms), jnp.inf)
        return jnp.argmin(distances, axis=1).astype(jnp.int32), jnp.min(distances, axis=1)

    return swaps.in_rows(of_rows, points, _ROWS)


def _central_points(points, owner, num):
    """The point nearest to the mean of every cluster, `[M]`; the first of equals."""
    sizes = jax.ops.segment_sum(jnp.ones(len(points), points.dtype), owner, num)
    sums = jax.ops.segment_sum(points, owner, num)
    means = sums / jnp.maximum(sizes, 1)[:, None]
    inside = owner < num
    offsets = jnp.sum((points - means[jnp.minimum(owner, num - 1)]) ** 2, axis=-1)
    least = jax.ops.segment_min(jnp.where(inside, offsets, jnp.inf), owner, num)
    nearest = inside & (offsets <= least[jnp.minimum(owner, num - 1)])
    place = jnp.where(nearest, jnp.arange(len(points), dtype=jnp.int32), len(points))
    return jnp.minimum(jax.ops.segment_min(place, owner, num), len(points) - 1)
