"""Several subspaces at once: points join the nearest, and each adapts to its points."""

import jax
import jax.numpy as jnp

from sgfr_jax import linalg, loops, types
from sgfr_jax.subspaces import bases


def k_subspaces(
    key: jax.Array,
    points: jax.Array,
    weights: jax.Array,
    *,
    num_subspaces: int,
    rank: int,
    affine: bool = False,
    num_restarts: int = 3,
    num_iterations: int = 30,
) -> types.Subspaces:
    """K-subspaces, or k-planes (Bradley and Mangasarian 2000; Tseng 2000), the best of restarts.

    Lowers `sum_n w_n min_s |x_n - P_s x_n|^2` by alternation from random starts, keeps the best,
    and ends with the exact principal components of the clusters found.

    Args:
      key: consumed.
      points: `[N, D]`.
      weights: `[N]`, how much each counts; 0 for padding.
      num_subspaces: `S`, 1 to `N`.
      rank: `R`, 1 to `min(N, D)`.
      affine: whether each subspace may leave the origin, to pass through the mean of its points.
      num_restarts: how many starts.
      num_iterations: how often each alternates; see `refine`.

    Returns:
      `Subspaces`; one that serves no point is padding.

    Raises:
      ValueError: if shapes or dtypes do not fit or a number is out of range.
    """
    points, weights = bases.check(points, weights, rank)
    if not 1 <= num_subspaces <= points.shape[0]:
        raise ValueError(
            f"num_subspaces={num_subspaces} of {points.shape[0]} points; use 1 to {points.shape[0]}"
        )
    if num_restarts < 1 or num_iterations < 0:
        raise ValueError(
            f"num_restarts={num_restarts} must be positive and num_iterations={num_iterations}"
            " not negative, such as 3 and 30"
        )

    def one_start(key: jax.Array):
        found = start(key, points, weights, num_subspaces=num_subspaces, rank=rank, affine=affine)
        found = loops.begin(found, points, weights)
        found = jax.lax.fori_loop(
            0, num_iterations, lambda _, now: refine(points, weights, now, affine=affine), found
        )
        return found, objective(points, weights, found)

    found, objectives = jax.lax.map(one_start, jax.random.split(key, num_restarts))
    best = jax.tree.map(lambda part: part[jnp.argmin(objectives)], found)
    labels = jnp.argmin(bases.squared_residuals(points, best), axis=1)
    return bases.principal_by_label(
        points, weights, labels, num_subspaces=num_subspaces, rank=rank, affine=affine
    )


def start(
    key: jax.Array,
    points: jax.Array,
    weights: jax.Array,
    *,
    num_subspaces: int,
    rank: int,
    affine: bool,
) -> types.Subspaces:
    """Subspaces through random points and their nearest neighbours.

    Args:
      key: consumed.
      points: `[N, D]`, zero where they weigh nothing.
      weights: `[N]`.
      num_subspaces: `S`, at most `N`.
      rank: `R`.
      affine: as of `k_subspaces`.

    Returns:
      `S` subspaces of rank `R`, all of weight 1.
    """
    # Without replacement, and the same whatever padding follows; padding comes last.
    order = jnp.where(weights > 0, jax.random.uniform(key, weights.shape), jnp.inf)
    seeds = jnp.argsort(order)[:num_subspaces]
    found = _through(seeds, points, weights, rank, affine)
    return types.Subspaces(*found, jnp.ones(num_subspaces, points.dtype))


def refine(
    points: jax.Array, weights: jax.Array, subspaces: types.Subspaces, *, affine: bool
) -> types.Subspaces:
    """One alternation: points join their nearest subspace, and each subspace adapts to them.

    A subspace moves to the mean of its points and takes one step of orthogonal iteration on their
    scatter `C`, `B' = orth(C B)`. That never lowers `tr(B C B^T)`, what the subspace explains, for
    that is a convex function of `B` and the step maximises its tangent; its fixed points are
    principal components, and it costs two products of the points with all bases where `S`
    eigendecompositions of `[D, D]` would cost a hundred times as much. A subspace that serves no
    point starts again at the point that is represented worst and its neighbours. So no alternation
    raises the objective, but for rounding.

    Args:
      points: `[N, D]`, zero where they weigh nothing.
      weights: `[N]`.
      subspaces: `S` of rank `R`.
      affine: as of `k_subspaces`.

    Returns:
      `S` subspaces of rank `R`.
    """
    num_subspaces, rank, num_features = subspaces.bases.shape
    residuals = bases.squared_residuals(points, subspaces)
    labels = jnp.argmin(residuals, axis=1)
    member = labels[:, None] == jnp.arange(num_subspaces)[None]
    member = jnp.where(member, weights[:, None], 0)
    totals = jnp.sum(member, axis=0)

    means = jnp.zeros_like(subspaces.means)
    if affine:
        sums = jnp.matmul(member.T, points, precision=linalg.HIGHEST)
        means = sums / jnp.where(totals > 0, totals, 1)[:, None]
    flat = subspaces.bases.reshape(-1, num_features)
    offsets = jnp.einsum("srd,sd->sr", subspaces.bases, means, precision=linalg.HIGHEST)
    inside = jnp.matmul(points, flat.T, precision=linalg.HIGHEST)
    inside = (inside.reshape(-1, num_subspaces, rank) - offsets[None]) * member[:, :, None]
    # The coefficients of a subspace's own points sum to zero, so their mean drops out.
    powered = jnp.matmul(
        inside.reshape(len(points), -1).T, points, precision=linalg.HIGHEST
    ).reshape(subspaces.bases.shape)
    turned = jnp.swapaxes(jnp.linalg.qr(jnp.swapaxes(powered, 1, 2))[0], 1, 2)

    def reseed(_):
        worst = jnp.where(weights > 0, jnp.min(residuals, axis=1), -1)
        # The first empty subspace takes the worst point, the second the next.
        place = jnp.cumsum(totals == 0) - 1
        seeds = jax.lax.top_k(worst, num_subspaces)[1][place]
        fresh, centres = _through(seeds, points, weights, rank, affine)
        empty = (totals == 0)[:, None]
        return jnp.where(empty[..., None], fresh, turned), jnp.where(empty, centres, means)

    found = jax.lax.cond(jnp.any(totals == 0), reseed, lambda _: (turned, means), None)
    return types.Subspaces(*found, subspaces.weights)


def objective(points: jax.Array, weights: jax.Array, subspaces: types.Subspaces) -> jax.Array:
    """What `k_subspaces` lowers: the weighted sum of squared distances to the nearest subspace."""
    return jnp.sum(weights * jnp.min(bases.squared_residuals(points, subspaces), axis=1))


def _through(seeds, points, weights, rank, affine):
    """Bases `[S, R, D]` and means `[S, D]` of the subspaces through points and their neighbours.

    Linear: the span of the seed and its `R - 1` nearest. Affine: through the seed and its `R`
    nearest. Repeated points leave directions that are arbitrary, but orthonormal.
    """
    distances = linalg.squared_distances(points[seeds], points)
    closeness = (
        jnp.where(weights[None] > 0, -distances, -jnp.inf)
        .at[jnp.arange(len(seeds)), seeds]
        .set(jnp.inf)
    )
    count = min(rank + affine, len(points))
    members = points[jax.lax.top_k(closeness, count)[1]]
    centres = members[:, 0] if affine else jnp.zeros_like(members[:, 0])
    spanning = members[:, count - rank :] - centres[:, None]
    return jnp.swapaxes(jnp.linalg.qr(jnp.swapaxes(spanning, 1, 2))[0], 1, 2), centres
