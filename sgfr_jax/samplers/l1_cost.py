"""The self-representation cost: how hard a point is to write as few of the exemplars."""

import jax
import jax.numpy as jnp

from sgfr_jax import checks, linalg, loops, types

# Looks at all exemplars, at most; Newton steps between two looks, at most; and sweeps of coordinate
# descent before each step.
_ROUNDS = 30
_STEPS = 5
_SWEEPS = 4


def l1_cost(
    targets: jax.Array,
    bank: types.Bank,
    *,
    fidelity: float = 10.0,
    support_size: int = 32,
    tolerance: float = 1e-4,
) -> jax.Array:
    """The cost `min_c fidelity/2 |z - A^T c|^2 + |c|_1` of every target (You et al. 2018).

    A lasso per target on a working set, the atoms in use and those that violate the optimality
    conditions most, until the duality gap is small. It falls, or stays, as
    atoms are added. On unit-norm targets it lies between `1 - 1 / (2 fidelity)` on an atom and
    `fidelity / 2` orthogonal to all of them; with another norm, costs of targets do not compare.

    Args:
      targets: `[N, D]`.
      bank: `M` atoms `[M, D]`.
      fidelity: the weight of the residual, the paper's lambda. Above 1, or unit-norm targets do
        best with no atom at all; the larger, the more atoms a target uses.
      support_size: `K`, how many atoms a target may use. Where it would use more, what is returned
        is the cost of a code over `K` atoms, which is more than the minimum.
      tolerance: the duality gap to stop at, relative to the cost.

    Returns:
      `[N]`; NaN where the target is, if an atom is, or where squares overflow or vanish.

    Raises:
      ValueError: if shapes do not fit, the bank is empty, numbers are not floating, or a
        hyperparameter is not positive.
    """
    targets, atoms = checks.targets_and_atoms(targets, bank)
    checks.positive("such as 10", fidelity=fidelity)
    checks.positive("such as 32", support_size=support_size)
    checks.positive("such as 1e-4", tolerance=tolerance)
    support_size = min(support_size, atoms.shape[0])
    valid = bank.weights > 0

    def of_one(target: jax.Array) -> jax.Array:
        return _lasso_cost(target, atoms, valid, fidelity, support_size, tolerance)

    return jax.vmap(of_one)(targets)


def _lasso_cost(target, atoms, valid, fidelity, support_size, tolerance):
    """The cost of one target."""

    def unsolved(state):
        rounds, _, _, _, cost, gap = state
        return (rounds < _ROUNDS) & (gap > tolerance * cost)

    def improve(state):
        rounds, indices, coefficients, pulls, _, _ = state
        # Atoms in use stay; the others come in the order of their violation.
        violations = jnp.where(valid, jnp.abs(pulls), -1)
        in_use = jnp.zeros_like(pulls).at[indices].set(coefficients)
        chosen = jax.lax.top_k(jnp.where(in_use != 0, jnp.inf, violations), support_size)[1]
        support = jnp.where(valid[chosen, None], atoms[chosen], 0)
        gram = jnp.matmul(support, support.T, precision=linalg.HIGHEST)
        products = jnp.matmul(support, target, precision=linalg.HIGHEST)
        small = 1e-3 * tolerance * jnp.sum(target**2)
        found = _solve_lasso(gram, products, in_use[chosen], 1 / fidelity, small)
        residual = target - jnp.matmul(found, support, precision=linalg.HIGHEST)
        return rounds + 1, chosen, found, *_judge(target, residual, found, atoms, valid, fidelity)

    nothing = jnp.zeros(support_size, target.dtype)
    judged = _judge(target, target, nothing, atoms, valid, fidelity)
    state = (0, jnp.arange(support_size, dtype=jnp.int32), nothing, *judged)
    state = loops.begin(state, atoms, valid, fidelity, tolerance)
    *_, cost, gap = jax.lax.while_loop(unsolved, improve, state)
    # A comparison with NaN is false, and so is the cost where squares have vanished.
    vanished = (jnp.sum(target**2) == 0) & jnp.any(target != 0)
    return jnp.where(jnp.isfinite(gap) & ~vanished, cost, jnp.nan)


def _judge(target, residual, coefficients, atoms, valid, fidelity):
    """The pull of the residual on every atom, the cost, and the duality gap.

    The residual, shrunk until it pulls on no atom by more than `1 / fidelity`, is a point of the
    dual `max_u u.z - |u|^2 / (2 fidelity)`, `|A u| <= 1`, so its value is a lower bound.
    """
    pulls = jnp.where(valid, jnp.matmul(atoms, residual, precision=linalg.HIGHEST), 0)
    energy = jnp.sum(residual**2)
    cost = 0.5 * fidelity * energy + jnp.sum(jnp.abs(coefficients))
    shrink = 1 / jnp.maximum(fidelity * jnp.max(jnp.abs(pulls)), 1)
    bound = fidelity * shrink * (jnp.sum(residual * target) - 0.5 * shrink * energy)
    return pulls, cost, cost - bound


def _solve_lasso(gram, products, coefficients, penalty, small):
    """Minimises `1/2 c G c - products.c + penalty |c|_1` from a first guess.

    Sweeps of coordinate descent find the signs, slowly where atoms resemble each other; a Newton
    step on the coefficients in use, cut where the first of them reaches zero, then goes all the way
    at once. Both only ever lower the objective. Stops after sweeps in which no coordinate lowered
    it by more than `small`.
    """
    num_atoms = coefficients.shape[0]
    scales = jnp.diagonal(gram)
    usable = scales > 0
    divisors = jnp.where(usable, scales, 1)

    def one_coordinate(step, carry):
        coefficients, pulls, largest = carry
        k = step % num_atoms
        old = coefficients[k]
        pull = pulls[k] + scales[k] * old
        new = jnp.sign(pull) * jnp.maximum(jnp.abs(pull) - penalty, 0) / divisors[k]
        change = jnp.where(usable[k], new - old, 0)
        largest = jnp.maximum(largest, scales[k] * change**2)
        return coefficients.at[k].add(change), pulls - gram[k] * change, largest

    def newton(coefficients, pulls):
        used = coefficients != 0
        slopes = jnp.where(used, pulls - penalty * jnp.sign(coefficients), 0)
        block = jnp.where(used[:, None] & used[None], gram, 0)
        # Enough for float32 to factorise the Gram matrix of atoms that coincide.
        lift = 1e-6 * jnp.sum(jnp.where(used, scales, 0))
        block = block + jnp.diag(jnp.where(used, lift, 1))
        direction = linalg.solve_positive_definite(block, slopes)
        crossing = used & (coefficients * direction < 0)
        lengths = jnp.where(crossing, -coefficients / jnp.where(crossing, direction, 1), jnp.inf)
        length = jnp.minimum(jnp.min(lengths), 1)
        moved = jnp.where(lengths <= length, 0, coefficients + length * direction)
        return moved, products - jnp.matmul(gram, moved, precision=linalg.HIGHEST)

    def improve(state):
        steps, coefficients, pulls, _ = state
        carry = loops.begin((coefficients, pulls, jnp.zeros_like(small)), gram, penalty)
        carry = jax.lax.fori_loop(0, _SWEEPS * num_atoms, one_coordinate, carry)
        coefficients, pulls, largest = carry
        return steps + 1, *newton(coefficients, pulls), largest

    def moving(state):
        steps, _, _, largest = state
        return (steps < _STEPS) & (largest > small)

    pulls = products - jnp.matmul(gram, coefficients, precision=linalg.HIGHEST)
    state = (0, coefficients, pulls, jnp.full_like(small, jnp.inf))
    state = loops.begin(state, gram, products, penalty)
    return jax.lax.while_loop(moving, improve, state)[1]
