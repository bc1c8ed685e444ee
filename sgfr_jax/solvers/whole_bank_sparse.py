"""The elastic net over all atoms at once, with the certificate of its accuracy."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sgfr_jax import checks, frames, linalg, loops, types
from sgfr_jax.solvers import active_set


@types.exportable
class ElasticNetSolution(NamedTuple):
    """Codes of `N` targets and how far from optimal they may be."""

    code: types.Code  # indices and coefficients [N, K], largest coefficients first
    gap: jax.Array  # [N] duality gap: the objective is within it of its minimum
    iterations: jax.Array  # [N] int32


def elastic_net_code(
    targets: jax.Array,
    bank: types.Bank,
    *,
    l1: float,
    l2: float,
    max_atoms: int = 64,
    max_iterations: int = 50,
    tolerance: float = 1e-4,
) -> types.Code:
    """The code of `elastic_net_solution` alone: a coder.

    `min_c 1/2 |z - A^T c|^2 + l1 max|A z| |c|_1 + l2/2 tr(A A^T)/M |c|^2` (Zou and Hastie 2005).

    Args:
      targets: `[N, D]`.
      bank: `M` atoms `[M, D]`.
      l1: as of `elastic_net_solution`, and so are those that follow.
      l2: 0 is the lasso (Tibshirani 1996).
      max_atoms: size of the working set.
      max_iterations: over it.
      tolerance: relative duality gap.

    Returns:
      A `Code` with indices and coefficients `[N, K]`, `K = min(max_atoms, M)`; slots not used hold
      index 0 and coefficient 0.

    Raises:
      ValueError: as `elastic_net_solution`.
    """
    return elastic_net_solution(
        targets,
        bank,
        l1=l1,
        l2=l2,
        max_atoms=max_atoms,
        max_iterations=max_iterations,
        tolerance=tolerance,
    ).code


def elastic_net_solution(
    targets: jax.Array,
    bank: types.Bank,
    *,
    l1: float,
    l2: float,
    max_atoms: int = 64,
    max_iterations: int = 50,
    tolerance: float = 1e-4,
) -> ElasticNetSolution:
    """Codes every target over few of all atoms, chosen by an l1 penalty on all.

    `min_c 1/2 |z - A^T c|^2 + l1 max|A z| |c|_1 + l2/2 tr(A A^T)/M |c|^2`; the lasso at `l2=0`.
    The problem is solved exactly on a working set of `max_atoms` atoms, those in use and those
    that the residual leans to most, which then gives up what it does not use for others (the
    oracle active set of You, Li, Robinson and Vidal 2016). A target is done when its duality gap
    is at most `tolerance |z|^2 / 2`, which puts its residual within `sqrt(tolerance) |z|` of the
    optimal one, or when its signs no longer change: then it is optimal but for rounding, or all of
    `max_atoms` are in use.

    Args:
      targets: `[N, D]`.
      bank: `M` atoms `[M, D]`.
      l1: positive, relative to the penalty at which all coefficients become 0, which is `l1=1`.
      l2: relative to the mean squared norm of the atoms; 0 is the lasso.
      max_atoms: size of the working set; all atoms, if they are fewer.
      max_iterations: of which each costs a product with the bank and the solution on the working
        set; a handful is usual.
      tolerance: relative duality gap to stop at; float32 reaches about 5e-5.

    Returns:
      An `ElasticNetSolution` of codes over `K = min(max_atoms, M)` atoms; slots not used hold index
      0 and coefficient 0. A gap above the tolerance says that the iterations or the atoms ran out.

    Raises:
      ValueError: if the number of features differs, numbers are not floating, `l1` is not
        positive, `l2` or `tolerance` is negative, or a limit is not positive.
    """
    targets, atoms = checks.targets_and_atoms(targets, bank)
    checks.positive("such as 0.1; without it this is `whole_bank_ridge`", l1=l1)
    checks.not_negative("such as 1e-3", l2=l2)
    checks.not_negative("such as 1e-4", tolerance=tolerance)
    checks.positive("such as 64", max_atoms=max_atoms)
    checks.positive("such as 50", max_iterations=max_iterations)
    atoms = checks.real_atoms(atoms, bank)
    # Comparisons with NaN are false, so that the search would end at zero coefficients.
    broken = linalg.nan_unless_finite(targets, -1) + linalg.nan_unless_finite(atoms)
    own, unit = frames.unit_of(targets, -1), frames.unit_of(atoms)
    targets, atoms = targets / own, atoms / unit
    num_slots = min(max_atoms, atoms.shape[0])
    num_real = jnp.sum(bank.weights > 0, dtype=atoms.dtype)
    penalty = l2 * jnp.sum(atoms**2) / jnp.maximum(num_real, 1)

    def solve(target: jax.Array) -> tuple[types.Code, jax.Array, jax.Array]:
        threshold = l1 * jnp.max(jnp.abs(_correlate(atoms, target)))
        found = _grow(
            *jax.lax.stop_gradient((target, atoms, threshold, penalty)),
            num_slots=num_slots,
            max_iterations=max_iterations,
            tolerance=tolerance,
        )
        start, indices = _largest(found.coefficients, jnp.abs(found.coefficients), num_slots)
        indices = jnp.where(start != 0, indices, 0)
        support = jnp.where((start != 0)[:, None], atoms[indices], 0)
        # Solved already, this is where the gradients come from.
        coefficients = active_set.minimize(
            target, support, penalty=penalty, l1=threshold, free=True, start=start
        )
        return types.Code(indices, coefficients), found.gap, found.iterations

    code, gap, iterations = jax.vmap(solve)(targets)
    coefficients = code.coefficients * (own / unit) + broken[:, None]
    gap = gap * own[:, 0] ** 2 + broken
    return ElasticNetSolution(code._replace(coefficients=coefficients), gap, iterations)


class _State(NamedTuple):
    coefficients: jax.Array  # [M]
    slopes: jax.Array  # [M] A (z - A^T c) - penalty c
    gap: jax.Array  # []
    iterations: jax.Array  # [] int32
    changed: jax.Array  # [] bool: whether the last iteration changed a sign


def _grow(
    target: jax.Array,
    atoms: jax.Array,
    threshold: jax.Array,
    penalty: jax.Array,
    *,
    num_slots: int,
    max_iterations: int,
    tolerance: float,
) -> _State:
    def state_of(coefficients, residual, iterations, changed) -> _State:
        slopes = _correlate(atoms, residual) - penalty * coefficients
        gap = _duality_gap(coefficients, residual, slopes, threshold, penalty)
        return _State(coefficients, slopes, gap, iterations, changed)

    def step(state: _State) -> _State:
        used = state.coefficients != 0
        interest = jnp.where(used, jnp.inf, jnp.abs(state.slopes))
        start, indices = _largest(state.coefficients, interest, num_slots)
        support = atoms[indices]
        found = active_set.minimize(
            target, support, penalty=penalty, l1=threshold, free=True, start=start
        )
        residual = target - jnp.matmul(found, support, precision=linalg.HIGHEST)
        changed = jnp.any(jnp.sign(found) != jnp.sign(start))
        coefficients = jnp.zeros_like(state.coefficients).at[indices].set(found)
        return state_of(coefficients, residual, state.iterations + 1, changed)

    def unfinished(state: _State) -> jax.Array:
        far = state.gap > tolerance * jnp.sum(target**2) / 2
        return far & state.changed & (state.iterations < max_iterations)

    zero = jnp.zeros(atoms.shape[0], target.dtype)
    start = state_of(zero, target, jnp.int32(0), jnp.array(True))
    return jax.lax.while_loop(unfinished, step, loops.begin(start, atoms, tolerance))


def _duality_gap(
    coefficients: jax.Array,
    residual: jax.Array,
    slopes: jax.Array,
    threshold: jax.Array,
    penalty: jax.Array,
) -> jax.Array:
    """The objective less the dual one, at the residual shrunk by `s` until it is feasible.

    The elastic net is a lasso with extra rows; its dual is `s z.r - s^2/2 (|r|^2 + penalty |c|^2)`
    where `s |slopes|` is at most the threshold. With `z.r` written out, the difference is a sum of
    terms that are not negative, which rounding does not drown.
    """
    largest = jnp.max(jnp.abs(slopes))
    shrink = jnp.where(largest > threshold, threshold / jnp.where(largest > 0, largest, 1), 1)
    left = jnp.sum(residual**2) + penalty * jnp.sum(coefficients**2)
    complementary = threshold * jnp.abs(coefficients) - shrink * coefficients * slopes
    return (1 - shrink) ** 2 * left / 2 + jnp.sum(jnp.maximum(complementary, 0))


def _largest(coefficients: jax.Array, interest: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    """Coefficients and indices `[num]` of the atoms of most interest."""
    indices = jax.lax.top_k(interest, num)[1].astype(jnp.int32)
    return coefficients[indices], indices


def _correlate(atoms: jax.Array, vector: jax.Array) -> jax.Array:
    return jnp.matmul(atoms, vector, precision=linalg.HIGHEST)
