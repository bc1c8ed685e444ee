"""The active set of a quadratic problem with corners, for a support of few atoms."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sgfr_jax import linalg, loops
from sgfr_jax.solvers import restricted


def minimize(
    target: jax.Array,
    support: jax.Array,
    *,
    penalty: jax.Array | float,
    l1: jax.Array | float,
    free: bool,
    start: jax.Array | None = None,
) -> jax.Array:
    """`min_c 1/2 |z - A^T c|^2 + l1 |c|_1 + penalty/2 |c|^2`, for free `c` or for `c >= 0`.

    Exact: the coefficients that are not zero, and their signs, are found by the active set of
    Lawson and Hanson (1974, chapter 23), which ends at the optimality conditions after finitely
    many steps. It is found without gradients; the coefficients on it are a smooth function.

    Args:
      target: `[D]`.
      support: `[K, D]`; zero rows are padding.
      penalty: not negative.
      l1: not negative; with `free`, positive.
      free: whether coefficients may be negative.
      start: `[K]`, a solution of the same problem on a part of the support, to go on from.

    Returns:
      `[K]`; 0 for padding. Of dependent atoms some have coefficient 0. All NaN if the target or the
      support holds a number that is not finite.
    """
    start = jnp.zeros(support.shape[0], support.dtype) if start is None else start
    gram = restricted.penalized_gram(support, penalty)
    held = jax.lax.stop_gradient((target, support, penalty, l1, gram, start))
    found = _search(*held, free=free)
    smooth = restricted.fit(
        target, support, found != 0, penalty=penalty, shift=l1 * jnp.sign(found), gram=gram
    )
    # A comparison with NaN is false, so that the search ends where it began.
    broken = linalg.nan_unless_finite(target) + linalg.nan_unless_finite(support)
    # The value of the search, which meets the conditions, and the derivatives of the solution.
    return found + (smooth - jax.lax.stop_gradient(smooth)) + broken


class _State(NamedTuple):
    coefficients: jax.Array  # [K] a point that agrees with `signs`
    signs: jax.Array  # [K] -1, 0 or 1: the working set
    accepted: jax.Array  # [K] the solution on the last working set that had its signs
    candidates: jax.Array  # [K] bool: may enter
    steps: jax.Array  # [] int32
    done: jax.Array  # [] bool


def _search(
    target: jax.Array,
    support: jax.Array,
    penalty: jax.Array,
    l1: jax.Array,
    gram: jax.Array,
    start: jax.Array,
    *,
    free: bool,
) -> jax.Array:
    """The solution `[K]`, never negative unless `free`."""
    num = support.shape[0]
    correlation = jnp.matmul(support, target, precision=linalg.HIGHEST)
    norms = jnp.sqrt(jnp.sum(support**2, axis=-1))
    # An atom enters if the residual leans to it by more than rounding does.
    slack = l1 + 100 * jnp.finfo(gram.dtype).eps * norms * jnp.sqrt(jnp.sum(target**2))

    def roughly(signs: jax.Array) -> tuple[jax.Array, jax.Array]:
        chosen = signs != 0
        factor = restricted.factorize(gram, chosen)
        solution = restricted.solve(factor, correlation - l1 * signs, chosen)
        return solution, correlation - jnp.matmul(gram, solution, precision=linalg.HIGHEST)

    def exactly(signs: jax.Array) -> tuple[jax.Array, jax.Array]:
        solution = restricted.fit(
            target, support, signs != 0, penalty=penalty, shift=l1 * signs, gram=gram
        )
        return solution, restricted.slopes(target, support, solution, penalty)

    def step(state: _State, solve: Callable) -> _State:
        chosen = state.signs != 0
        solution, slope = solve(state.signs)
        wrong = chosen & (solution * state.signs <= 0)
        agrees = ~jnp.any(wrong)

        # The solution on the working set is one of the problem unless some atom should enter.
        pull = jnp.where(state.candidates & ~chosen, jnp.abs(slope) if free else slope, -jnp.inf)
        entering = jnp.argmax(pull - slack)
        improves = pull[entering] > slack[entering]
        grown = state.signs.at[entering].add(jnp.where(improves, jnp.sign(slope[entering]), 0))

        # Otherwise go towards it until the first coefficient is 0, and drop that.
        move = solution - state.coefficients
        reach = jnp.where(wrong, state.coefficients / jnp.where(move != 0, -move, 1), jnp.inf)
        length = jnp.clip(jnp.min(reach), 0, 1)
        leaving = wrong & (reach <= length)
        part_way = jnp.where(leaving, 0, state.coefficients + length * move)
        # What leaves as it enters did so by rounding, and would do so for ever.
        rounding = leaving & (state.coefficients == 0)

        return _State(
            coefficients=jnp.where(agrees, solution, part_way),
            signs=jnp.where(agrees, grown, jnp.where(leaving, 0, state.signs)),
            accepted=jnp.where(agrees, solution, state.accepted),
            candidates=state.candidates & (agrees | ~rounding),
            steps=state.steps + 1,
            done=agrees & ~improves,
        )

    def search(start: jax.Array, solve: Callable) -> jax.Array:
        # Every step lowers the objective, so sets do not recur, and a few steps an atom are enough
        # in practice; the limit bounds what rounding could prolong.
        state = _State(
            coefficients=start,
            signs=jnp.sign(start),
            accepted=start,
            candidates=norms > 0,
            steps=jnp.int32(0),
            done=jnp.array(False),
        )
        state = loops.begin(state, target, support, penalty, l1, gram)
        more = partial(step, solve=solve)
        return jax.lax.while_loop(lambda s: ~s.done & (s.steps < 6 * num), more, state).accepted

    # Where atoms are much alike, the rounding of the Gram matrix makes signs wrong: most of the way
    # is gone with it alone, which is cheap, and the rest with the residual itself.
    return search(search(start, roughly), exactly)
