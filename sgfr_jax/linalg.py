"""Small linear algebra in float32 with the accuracy that residuals need.

Matrix products ask for `Precision.HIGHEST`: the defaults of TPUs and of recent GPUs round the
factors to bfloat16 or TF32, an error of the size of a nominal patch's residual.
"""

from functools import partial

import jax
import jax.numpy as jnp

from sgfr_jax import frames

HIGHEST = jax.lax.Precision.HIGHEST


def at_least_float32(array: jax.Array) -> jax.Array:
    """The array in float32, or in float64 if it is that: residuals need the digits."""
    return in_one_precision(array)[0]


def in_one_precision(*arrays: jax.Array) -> list[jax.Array]:
    """The arrays in float64 if one of them is that, else in float32."""
    arrays = [jnp.asarray(array) for array in arrays]
    dtype = jnp.float64 if any(x.dtype == jnp.float64 for x in arrays) else jnp.float32
    return [array.astype(dtype) for array in arrays]


def max_or_nan(array: jax.Array, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """The maximum, or NaN if any value is NaN.

    `jnp.max` promises that too, but XLA's reduction on a CPU passes over NaN where it takes about
    a thousand values or more.

    Args:
      array: of any shape.
      axis: to reduce; None for all.

    Returns:
      The array without the axes that were reduced; -inf of no values.
    """
    largest = jnp.max(array, axis=axis, initial=-jnp.inf)
    return jnp.where(jnp.any(jnp.isnan(array), axis=axis), jnp.nan, largest)


def norm(vectors: jax.Array) -> jax.Array:
    """The length of each vector of `[..., D]`, of any scale; its gradient is zero where it is."""
    unit = frames.unit_of(vectors, -1)
    squared = jnp.sum((vectors / unit) ** 2, axis=-1)
    length = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0 * squared)
    return length * unit[..., 0]


def nan_unless_finite(array: jax.Array, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """0, or NaN if an entry is not finite: to add to what it should have made NaN."""
    return jnp.where(jnp.all(jnp.isfinite(array), axis=axis), 0, jnp.nan).astype(array.dtype)


def squared_distances(targets: jax.Array, atoms: jax.Array) -> jax.Array:
    """Squared Euclidean distances `|z|^2 + |a|^2 - 2 z.a`, never negative.

    The expansion makes the work one matrix product, about the mean of the atoms as the origin. Its
    absolute error is about `1e-6 |z|^2`, seen from there: too coarse for a residual, and neighbours
    whose squared distances differ by less may change places.

    Args:
      targets: `[N, D]`.
      atoms: `[M, D]`.

    Returns:
      `[N, M]`.
    """
    origin, _ = frames.frame(*jax.lax.stop_gradient((atoms, jnp.ones(len(atoms)))))
    targets, atoms = targets - origin[None], atoms - origin[None]
    products = jnp.matmul(targets, atoms.T, precision=HIGHEST)
    norms = jnp.sum(targets**2, axis=-1)[:, None] + jnp.sum(atoms**2, axis=-1)[None]
    return jnp.maximum(norms - 2 * products, 0)


def nearest(
    targets: jax.Array,
    atoms: jax.Array,
    weights: jax.Array,
    *,
    num_neighbors: int,
    frame: frames.Frame = frames.shared_frame,
) -> jax.Array:
    """The nearest atoms of every target, nearest first; padding comes last.

    Atoms are ranked by `z.a - |a|^2 / 2`, which orders as their distances do: what depends on the
    target alone is left out, and the passes over `[N, M]` that it would take. Accurate as
    `squared_distances`. An atom with NaN comes first, so that its codes are NaN too.

    Args:
      targets: `[N, D]`.
      atoms: `[M, D]`.
      weights: `[M]`; an atom of weight 0 is padding.
      num_neighbors: `K`, at most `M`.
      frame: of atoms and weights the origin and unit that both are seen in; `frames.frame`
        serves converters that do not know JAX's custom rules.

    Returns:
      `[N, K]` int32 indices of atoms.

    Raises:
      ValueError: if shapes do not fit or `num_neighbors` is not in `1..M`.
    """
    check_search(targets, atoms, weights, num_neighbors)
    targets, atoms, half_norms = seen_in(targets, atoms, weights, frame)
    closeness = jnp.matmul(targets, atoms.T, precision=HIGHEST)
    closeness = rank_padding_last(closeness - half_norms, weights)
    # Held together: where a caller slices the indices, XLA would move the slice into the search
    # and then sort all of `[N, M]`, nineteen times as slow on a CPU.
    indices = jax.lax.optimization_barrier(jax.lax.top_k(closeness, num_neighbors)[1])
    return indices.astype(jnp.int32)


def seen_in(
    targets: jax.Array,
    atoms: jax.Array,
    weights: jax.Array,
    frame: frames.Frame = frames.shared_frame,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What a search ranks by, `z.a - |a|^2 / 2`, seen from the atoms' middle and in their unit.

    A target much larger than that is divided by its own size, and its row of norms with it.

    Returns:
      Targets `[N, D]`, atoms `[M, D]` and `|a|^2 / 2`, `[N, M]`.
    """
    # Which atoms are near has no derivative.
    targets, atoms, weights = jax.lax.stop_gradient((targets, atoms, weights))
    origin, unit = frame(atoms, weights)
    targets, atoms = (targets - origin[None]) / unit, (atoms - origin[None]) / unit
    excess = jnp.maximum(frames.unit_of(targets, -1), 1)
    return targets / excess, atoms, 0.5 * jnp.sum(atoms**2, axis=-1)[None] * (1 / excess)


def rank_padding_last(closeness: jax.Array, weights: jax.Array) -> jax.Array:
    """Closeness `[N, M]` to atoms of `weights [M]`, or `[N, M]`: NaN comes first, padding last."""
    # An atom so far off that its square is infinite is farther than all but padding.
    closeness = jnp.maximum(closeness, jnp.finfo(closeness.dtype).min)
    closeness = jnp.where(jnp.isnan(closeness), jnp.inf, closeness)
    return jnp.where(jnp.broadcast_to(weights > 0, closeness.shape), closeness, -jnp.inf)


def nearest_distances(
    points: jax.Array, atoms: jax.Array, weights: jax.Array, *, chunk_size: int = 4096
) -> tuple[jax.Array, jax.Array]:
    """The nearest atom of every point and the distance to it, in bounded memory.

    Args:
      points: `[N, D]`.
      atoms: `[M, D]`.
      weights: `[M]`; an atom of weight 0 is padding.
      chunk_size: distances from so many points are held at a time.

    Returns:
      `[N]` int32 indices and `[N]` distances; not finite where a point is not.

    Raises:
      ValueError: if shapes do not fit.
    """

    def of_rows(rows: jax.Array):
        index = nearest(rows, atoms, weights, num_neighbors=1)[:, 0]
        # From differences: an atom is at distance zero from itself.
        return index, norm(rows - atoms[index])

    points, atoms = in_one_precision(points, atoms)
    num_points = len(points)
    num_rows = max(1, min(chunk_size, num_points))
    padded = jnp.pad(points, ((0, -num_points % num_rows), (0, 0)))
    found = jax.lax.map(of_rows, padded.reshape(-1, num_rows, points.shape[1]))
    return tuple(x.reshape(-1)[:num_points] for x in found)


def check_search(
    targets: jax.Array, atoms: jax.Array, weights: jax.Array, num_neighbors: int
) -> None:
    """Raises ValueError if `num_neighbors` atoms cannot be searched for; see `nearest`."""
    if (
        targets.ndim != 2
        or targets.shape[1:] != atoms.shape[1:]
        or weights.shape != atoms.shape[:1]
    ):
        raise ValueError(
            "targets must be [N, D], atoms [M, D] and weights [M],"
            f" got {targets.shape}, {atoms.shape} and {weights.shape}"
        )
    if not 1 <= num_neighbors <= atoms.shape[0]:
        raise ValueError(
            f"num_neighbors={num_neighbors}, but there are {atoms.shape[0]} atoms; use 1 to as many"
        )


def solve_positive_definite(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """`x` in `matrix x = vector`, by Cholesky's factorisation.

    Args:
      matrix: `[K, K]`, symmetric positive definite.
      vector: `[K]`.

    Returns:
      `[K]`.
    """
    factor = jax.lax.linalg.cholesky(matrix)
    half = jax.scipy.linalg.solve_triangular(factor, vector, lower=True)
    return jax.scipy.linalg.solve_triangular(factor, half, lower=True, trans="T")


def solve_by_elimination(
    matrix: jax.Array, vector: jax.Array, *, unroll: bool = False
) -> jax.Array:
    """As `solve_positive_definite`, by Gauss and Jordan's elimination.

    It calls no library, so that a program which holds it runs wherever multiplication does. Without
    pivoting, which a positive definite matrix does not need.

    Args:
      matrix: `[K, K]`, symmetric positive definite.
      vector: `[K]`.
      unroll: whether to write out the `K` steps, for runtimes without loops.

    Returns:
      `[K]`.
    """
    size = vector.shape[0]
    rows = jnp.arange(size)[:, None]

    def eliminate(i, augmented, take):
        pivot = take(augmented, i, axis=0)
        pivot = pivot / take(pivot, i, axis=1)
        return jnp.where(rows == i, pivot, augmented - take(augmented, i, axis=1) * pivot)

    augmented = jnp.concatenate([matrix, vector[:, None]], axis=1)
    if not unroll:
        step = partial(eliminate, take=jax.lax.dynamic_index_in_dim)
        return jax.lax.fori_loop(0, size, step, augmented)[:, -1]
    for i in range(size):
        augmented = eliminate(i, augmented, _take)
    return augmented[:, -1]


def _take(array: jax.Array, i: int, axis: int) -> jax.Array:
    return jax.lax.slice_in_dim(array, i, i + 1, axis=axis)
