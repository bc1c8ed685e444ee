"""What every learner shares: the best basis of some points, and how far points are from one."""

import jax
import jax.numpy as jnp

from sgfr_jax import checks, linalg, types


def check(points: jax.Array, weights: jax.Array, rank: int) -> tuple[jax.Array, jax.Array]:
    """The points in float32 or better, and the weights that count.

    Args:
      points: `[N, D]`.
      weights: `[N]`, not negative; 0 for padding.
      rank: `R`.

    Returns:
      `[N, D]` and `[N]`, both zero where a point is padding or not finite, and everywhere if
      squares vanish or overflow and that shows under `jax.jit` only.

    Raises:
      ValueError: if shapes or dtypes do not fit, or `rank` is not between 1 and `min(N, D)`, or as
        `checks.squarable`.
    """
    points, weights = jnp.asarray(points), jnp.asarray(weights)
    if points.ndim != 2 or weights.shape != points.shape[:1]:
        raise ValueError(
            f"points must be [N, D] and weights [N], got {points.shape} and {weights.shape}"
        )
    if not jnp.issubdtype(points.dtype, jnp.floating):
        raise ValueError(f"points must be floating, got {points.dtype}; convert them to float32")
    if not 1 <= rank <= min(points.shape):
        raise ValueError(
            f"rank={rank}, but {points.shape[0]} points of {points.shape[1]} features span at"
            f" most {min(points.shape)} dimensions; use 1 to {min(points.shape)}"
        )
    points = linalg.at_least_float32(points)
    counts = (weights > 0) & jnp.all(jnp.isfinite(points), axis=-1)
    counts &= checks.squarable(points, counts)
    points = jnp.where(counts[:, None], points, 0)
    return points, jnp.where(counts, weights, 0).astype(points.dtype)


def principal(
    points: jax.Array, weights: jax.Array, *, rank: int, affine: bool
) -> tuple[jax.Array, jax.Array]:
    """The subspace of the least weighted squared residual: principal components.

    From the eigenvectors of the scatter matrix, whose rounding hides directions that hold less
    than about `1e-6` of the largest's variance; those count as absent.

    Args:
      points: `[N, D]`.
      weights: `[N]`.
      rank: `R`, at most `D`.
      affine: whether the subspace may leave the origin, to pass through the mean.

    Returns:
      The basis, `[R, D]`, orthonormal rows by falling variance and then zero rows if the points
      span fewer dimensions; and the mean, `[D]`, zero if not affine.
    """
    total = jnp.sum(weights)
    mean = jnp.matmul(weights, points, precision=linalg.HIGHEST) / jnp.where(total > 0, total, 1)
    mean = mean if affine else jnp.zeros_like(mean)
    centred = points - mean[None]
    scatter = jnp.matmul((weights[:, None] * centred).T, centred, precision=linalg.HIGHEST)
    variances, vectors = jnp.linalg.eigh(scatter)
    variances, rows = variances[::-1][:rank], vectors.T[::-1][:rank]
    floor = 10 * jnp.finfo(points.dtype).eps * jnp.maximum(variances[0], 0)
    # Centring leaves rounding errors of the size of the mean where all points are equal.
    floor += (jnp.finfo(points.dtype).eps * 8) ** 2 * total * jnp.sum(mean**2)
    return jnp.where((variances > floor)[:, None], rows, 0), mean


def principal_by_label(
    points: jax.Array,
    weights: jax.Array,
    labels: jax.Array,
    *,
    num_subspaces: int,
    rank: int,
    affine: bool,
) -> types.Subspaces:
    """`principal` of the points of every label.

    Args:
      points: `[N, D]`.
      weights: `[N]`.
      labels: `[N]` int32; points outside `0..S-1` belong to none.
      num_subspaces: `S`.
      rank: `R`.
      affine: as of `principal`.

    Returns:
      `S` subspaces; one without points is padding.
    """

    def of_label(label: jax.Array):
        own = jnp.where(labels == label, weights, 0)
        return *principal(points, own, rank=rank, affine=affine), jnp.sum(own) > 0

    bases, means, used = jax.lax.map(of_label, jnp.arange(num_subspaces))
    return types.Subspaces(bases, means, used.astype(points.dtype))


def squared_residuals(points: jax.Array, subspaces: types.Subspaces) -> jax.Array:
    """Squared distances of all points to all subspaces, `|x - mean|^2 - |B (x - mean)|^2`.

    Args:
      points: `[N, D]`.
      subspaces: `S` of rank `R`.

    Returns:
      `[N, S]`, not negative; inf for padding subspaces. Their absolute error is about
      `1e-6 |x|^2`.

    Raises:
      ValueError: if the number of features differs.
    """
    if points.ndim != 2 or points.shape[1:] != subspaces.means.shape[1:]:
        raise ValueError(
            f"points must be [N, D] with the subspaces' D, got points {points.shape}"
            f" and means {subspaces.means.shape}"
        )
    num_subspaces, rank, num_features = subspaces.bases.shape
    offsets = jnp.einsum("srd,sd->sr", subspaces.bases, subspaces.means, precision=linalg.HIGHEST)
    products = jnp.matmul(
        points, subspaces.bases.reshape(-1, num_features).T, precision=linalg.HIGHEST
    )
    inside = products.reshape(-1, num_subspaces, rank) - offsets[None]
    whole = linalg.squared_distances(points, subspaces.means)
    residuals = jnp.maximum(whole - jnp.sum(inside**2, axis=-1), 0)
    return jnp.where(subspaces.weights[None] > 0, residuals, jnp.inf)
