"""The patches that others are written with most: atoms by their use in sparse codes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sgfr_jax import loops, self_expression, types
from sgfr_jax.samplers import eligibility
from sgfr_jax.samplers.uniform import uniform

Sample = Callable[[jax.Array, jax.Array, jax.Array, int], types.Selection]


def support_frequency(
    key: jax.Array,
    points: jax.Array,
    weights: jax.Array,
    num: int,
    *,
    code: self_expression.MakeCode,
    num_candidates: int | None = None,
    propose: Sample = uniform,
    chunk_size: int = 256,
) -> types.Selection:
    """The candidates that the codes of all points use most, by `sum_n |c_n|`.

    Every point is coded over the candidates, never with itself. A candidate's use is the sum of
    the absolute values of its coefficients; what nothing else resembles is never used, so this
    chooses the common where `greedy_k_center` chooses the rare. This project's own, by what
    prunes dictionaries too, the use of an atom (Aharon, Elad and Bruckstein 2006).

    Args:
      key: consumed by `propose`.
      points: `[N, D]`.
      weights: `[N]`; 0 for padding.
      num: `M`, how many to choose.
      code: a coder `(targets, bank) -> Code` with its hyperparameters bound, such as
        `functools.partial(solvers.omp, sparsity=5)`.
      num_candidates: `C`, among how many to choose, `M` to `N`; None for all. The cost is that of
        coding `N` targets over `C` atoms.
      propose: the sampler of the candidates.
      chunk_size: how many points to code at a time.

    Returns:
      A complete `Selection` of `M` slots, the most used first, ties by index; its distances are
      not computed (inf).

    Raises:
      ValueError: if `num` is not between 1 and `num_candidates`, or that not between 1 and `N`;
        if shapes do not fit; or what `code` raises.
    """
    points, eligible = eligibility.check(points, weights, num)
    num_points = points.shape[0]
    num_candidates = num_points if num_candidates is None else num_candidates
    if not num <= num_candidates <= num_points:
        raise ValueError(
            f"num_candidates={num_candidates} for {num} of {num_points} points;"
            f" use {num} to {num_points}"
        )
    if chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size}; it must be positive, such as 256")
    bank = _candidates(key, points, weights, num_candidates, propose)

    # Points that are not eligible may hold anything; here they are coded as zero, and not counted.
    points = jnp.where(eligible[:, None], points, 0)
    padding = -num_points % min(chunk_size, num_points)
    chunks = (
        jnp.pad(points, ((0, padding), (0, 0))),
        jnp.pad(eligible, (0, padding)),
        jnp.arange(num_points + padding, dtype=jnp.int32),
    )
    chunks = jax.tree.map(
        lambda rows: rows.reshape(-1, min(chunk_size, num_points), *rows.shape[1:]), chunks
    )

    def count(used: jax.Array, chunk: tuple[jax.Array, jax.Array, jax.Array]):
        targets, counted, own = chunk
        found = self_expression.leave_one_out(targets, own, bank, code=code)
        shares = jnp.where(counted[:, None], jnp.abs(found.coefficients), 0)
        if found.indices is None:
            return used + jnp.sum(shares, axis=0), None
        return used.at[found.indices].add(shares), None

    start = loops.begin(jnp.zeros(num_candidates, points.dtype), bank, chunks)
    used, _ = jax.lax.scan(count, start, chunks)
    used, chosen = jax.lax.top_k(jnp.where(bank.weights > 0, used, -1), num)
    distances = jnp.where(eligible, jnp.inf, -jnp.inf).astype(points.dtype)
    return eligibility.make_selection(bank.indices[chosen], used >= 0, distances)


def _candidates(key, points, weights, num_candidates, propose) -> types.Bank:
    """The bank of candidates in the order of their indices, padding last."""
    proposed = propose(key, points, weights, num_candidates)
    place = jnp.where(proposed.weights > 0, proposed.indices, points.shape[0])
    order = jnp.argsort(place)
    proposed = proposed._replace(indices=proposed.indices[order], weights=proposed.weights[order])
    return types.make_bank(points, proposed)
