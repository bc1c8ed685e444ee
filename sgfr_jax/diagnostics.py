"""What to look at before trusting a bank: coverage, self-expression, and how codes are made up."""

import jax
import jax.numpy as jnp

from sgfr_jax import checks, linalg, self_expression, types


def self_representation_error(
    points: jax.Array,
    weights: jax.Array,
    bank: types.Bank,
    *,
    code: self_expression.MakeCode,
    held_in: bool = True,
    chunk_size: int = 256,
) -> jax.Array:
    """The share of every nominal point that the bank cannot express, `|x - A^T c| / |x|`.

    The self-expressiveness of a union of subspaces (Elhamifar and Vidal 2013), measured.

    Args:
      points: `[N, D]`.
      weights: `[N]`; 0 for padding.
      bank: `M` atoms.
      code: a coder `(targets, bank) -> Code` with its hyperparameters bound.
      held_in: whether `points` are what the bank was chosen from, in that order. Then a point is
        coded without the atom that it is itself, which `bank.indices` tells.
      chunk_size: how many points to code at a time.

    Returns:
      `[N]`; 0 for padding and for a point at the origin that is expressed exactly, inf for one
      that is not; NaN where a point is.

    Raises:
      ValueError: if shapes do not fit, or what `code` raises.
    """
    _check_points(points, weights, bank.atoms)
    bank = types.clear_padding(bank)
    own = jnp.arange(len(points), dtype=jnp.int32) if held_in else jnp.full(len(points), -1)

    def of_one(point: jax.Array, weight: jax.Array, own: jax.Array) -> jax.Array:
        point = jnp.where(weight > 0, point, 0)
        found = self_expression.leave_one_out(point[None], own[None], bank, code=code)
        coefficients = self_expression.dense(found, len(bank.atoms))[0]
        residual = point - jnp.matmul(coefficients, bank.atoms, precision=linalg.HIGHEST)
        error, norm = jnp.linalg.norm(residual), jnp.linalg.norm(point)
        error = jnp.where(error == 0, 0, error / norm)
        return jnp.where(weight > 0, error, 0)

    return jax.lax.map(
        lambda row: of_one(*row),
        (linalg.at_least_float32(points), weights, own),
        batch_size=chunk_size,
    )


def covering_radius(
    points: jax.Array, weights: jax.Array, bank: types.Bank, *, chunk_size: int = 4096
) -> jax.Array:
    """The largest distance from a point to its nearest atom: what k-center makes small.

    `max_n min_m |x_n - a_m|` (Gonzalez 1985).

    Args:
      points: `[N, D]`.
      weights: `[N]`; 0 for padding.
      bank: `M` atoms.
      chunk_size: distances from so many points are held at a time.

    Returns:
      `[]`; 0 without points, inf without atoms, NaN if a point holds NaN.

    Raises:
      ValueError: if shapes do not fit.
    """
    _check_points(points, weights, bank.atoms)
    points, atoms = linalg.at_least_float32(points), linalg.at_least_float32(bank.atoms)
    _, distances = linalg.nearest_distances(points, atoms, bank.weights, chunk_size=chunk_size)
    distances = jnp.where(weights > 0, distances, 0)
    radius = jnp.maximum(linalg.max_or_nan(distances), 0)
    reached = jnp.any(bank.weights > 0) | ~jnp.any(weights > 0)
    return jnp.where(reached, radius, jnp.inf)


def atoms_used(code: types.Code, *, threshold: float = 0.01) -> jax.Array:
    """How many atoms each target's code uses, `#{k: |c_k| > threshold max_j |c_j|}`.

    Args:
      code: of `N` targets.
      threshold: an atom counts if its coefficient is above this share of the code's largest.

    Returns:
      `[N]` int32; 0 for a code of zeros.

    Raises:
      ValueError: if `threshold` is not in `0..1`.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold={threshold}; it must be 0 or more, and below 1")
    sizes = jnp.abs(code.coefficients)
    largest = jnp.max(sizes, axis=-1, keepdims=True)
    return jnp.sum(sizes > threshold * largest, axis=-1, dtype=jnp.int32)


def effective_atoms(code: types.Code) -> jax.Array:
    """How many atoms a code uses, by weight: `|c|_1^2 / |c|_2^2` (a sparsity measure: Hoyer 2004).

    Args:
      code: of `N` targets.

    Returns:
      `[N]`, 1 to `K`: 1 where all weight is on one atom, `K` where it is spread evenly; 0 for a
      code of zeros.
    """
    sizes = jnp.abs(code.coefficients)
    largest = jnp.max(sizes, axis=-1, keepdims=True)
    # A scale of its own: squares of small coefficients must not vanish.
    sizes = sizes / jnp.where(largest > 0, largest, 1)
    squares = jnp.sum(sizes**2, axis=-1)
    return jnp.sum(sizes, axis=-1) ** 2 / jnp.where(squares > 0, squares, 1)


def share_inside_subspace(code: types.Code, labels: jax.Array, *, num_subspaces: int) -> jax.Array:
    """The share of a code's l1 mass on the atoms of its dominant subspace.

    Codes that stay inside one subspace are what self-expression promises (Elhamifar and Vidal
    2013, "subspace-preserving").

    Args:
      code: of `N` targets over `M` atoms.
      labels: `[M]` int, the subspace of each atom, such as from `subspaces.sparse_labels`; atoms
        outside `0..S-1` belong to none.
      num_subspaces: `S`.

    Returns:
      `[N]`, 0 to 1; 0 for a code of zeros.

    Raises:
      ValueError: if `labels` is not `[M]`, or `num_subspaces` is not positive.
    """
    num_atoms = labels.shape[0]
    fits = code.indices is not None or code.coefficients.shape[-1] == num_atoms
    if labels.ndim != 1 or not fits:
        raise ValueError(
            f"labels must be [M], one for each atom, got {labels.shape} for coefficients"
            f" {code.coefficients.shape}"
        )
    if num_subspaces < 1:
        raise ValueError(f"num_subspaces={num_subspaces}; it must be positive")
    sizes = jnp.abs(code.coefficients)
    if code.indices is None:
        member = (labels[:, None] == jnp.arange(num_subspaces)[None]).astype(sizes.dtype)
        masses = jnp.matmul(sizes, member, precision=linalg.HIGHEST)
    else:
        member = labels[code.indices][..., None] == jnp.arange(num_subspaces)[None, None]
        masses = jnp.sum(jnp.where(member, sizes[..., None], 0), axis=1)
    total = jnp.sum(sizes, axis=-1)
    return jnp.max(masses, axis=-1) / jnp.where(total > 0, total, 1)


def conditioning(
    targets: jax.Array, bank: types.Bank, code: types.Code, *, chunk_size: int = 256
) -> jax.Array:
    """The condition number of each target's local Gram matrix, which `affine_ridge` factorises.

    Of `G = Z Z^T` with `Z_k = z - a_k` over the atoms that the code uses, without the penalty,
    from the singular values of `Z`, `(s_max / s_min)^2` (Golub and Van Loan 2013).

    Args:
      targets: `[N, D]`.
      bank: `M` atoms.
      code: of the targets; atoms with a coefficient of 0 do not count.
      chunk_size: how many targets to decompose at a time.

    Returns:
      `[N]`, 1 or more: the ratio of the largest eigenvalue to the smallest, where there are more
      atoms than features to the smallest of the first `D`. It is cut off at `1 / eps^2`, which
      stands for singular, as between duplicate atoms; 1 for a target that equals all its atoms, or
      uses none; NaN where a target is.

    Raises:
      ValueError: if shapes do not fit.
    """
    if targets.ndim != 2 or targets.shape[1:] != bank.atoms.shape[1:]:
        raise ValueError(
            f"targets must be [N, D] with the atoms' D, got targets {targets.shape}"
            f" and atoms {bank.atoms.shape}"
        )
    if code.coefficients.shape[:1] != targets.shape[:1]:
        raise ValueError(
            f"the code must be of the targets {targets.shape}, got coefficients"
            f" {code.coefficients.shape}"
        )
    checks.floating(targets=targets, atoms=bank.atoms)
    targets, atoms = linalg.at_least_float32(targets), linalg.at_least_float32(bank.atoms)

    def of_one(target: jax.Array, code: types.Code) -> jax.Array:
        support = atoms if code.indices is None else atoms[code.indices]
        used = code.coefficients != 0
        differences = jnp.where(used[:, None], target[None] - support, 0)
        values = jnp.linalg.svd(differences, compute_uv=False)
        # Atoms that are not used add zeros, which come last.
        smallest = values[jnp.clip(jnp.sum(used), 1, len(values)) - 1]
        floor = jnp.finfo(values.dtype).eps * values[0]
        ratio = values[0] / jnp.maximum(smallest, floor)
        return jnp.where(values[0] == 0, 1, ratio**2)

    return jax.lax.map(lambda row: of_one(*row), (targets, code), batch_size=chunk_size)


def _check_points(points, weights, atoms) -> None:
    if points.ndim != 2 or points.shape[1:] != atoms.shape[1:] or weights.shape != points.shape[:1]:
        raise ValueError(
            "points must be [N, D] with the atoms' D and weights [N],"
            f" got points {points.shape}, weights {weights.shape} and atoms {atoms.shape}"
        )
    checks.floating(points=points, atoms=atoms)
