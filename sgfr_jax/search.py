"""Finding the nearest atoms of every target: three searches of one signature.

A search is `search(targets [N, D], atoms [M, D], weights [M], *, num_neighbors) -> [N, K] int32`,
nearest first and padding last, to be bound to its hyperparameters and handed to
`solvers.local_code`. What it returns is a choice of atoms only: codes and residuals are computed
from the atoms themselves, in float32, whatever the search.

- `exact`: a float32 product with all atoms.
- `reduced`: a bfloat16 product proposes a few atoms more than asked for, float32 differences rank
  them. For devices with units for bfloat16.
- `approximate`: the same, but the proposal is `jax.lax.approx_max_k`'s. For TPUs, where an exact
  top-k costs more than the product.

bfloat16 rather than TF32 (`Precision.HIGH` on a GPU): it is at least twice as fast there, halves
the bank's traffic, means the same on every device, and what it loses the ranking brings back.
"""

import jax
import jax.numpy as jnp

from sgfr_jax import linalg

exact = linalg.nearest


def reduced(
    targets: jax.Array,
    atoms: jax.Array,
    weights: jax.Array,
    *,
    num_neighbors: int,
    spare: int = 6,
) -> jax.Array:
    """The nearest atoms out of `K + spare` that a bfloat16 product proposes.

    The proposal's squared distances are off by up to about `2e-3 |z| |a|` (3e-4 as a rule), norms
    taken from the mean of the atoms, so an atom is missed only if more than `spare` others are as
    near to within that. Six are enough for patches of unit norm, of which the 17th nearest is 0.014
    farther than the 10th.

    Args:
      targets: `[N, D]`.
      atoms: `[M, D]`.
      weights: `[M]`; an atom of weight 0 is padding.
      num_neighbors: `K`, at most `M`.
      spare: how many atoms are proposed beyond `K`; as many as there are, if those are fewer. The
        ranking gathers `[N, K + spare, D]`.

    Returns:
      `[N, K]` int32 indices of atoms, nearest first by their float32 differences.

    Raises:
      ValueError: on shapes that do not fit, `num_neighbors` not in `1..M`, or a negative `spare`.
    """
    num_proposed = _check(targets, atoms, weights, num_neighbors, spare)
    closeness = _reduced_closeness(targets, atoms, weights)
    proposed = jax.lax.top_k(closeness, num_proposed)[1]
    return _rank(targets, atoms, weights, proposed, num_neighbors)


def approximate(
    targets: jax.Array,
    atoms: jax.Array,
    weights: jax.Array,
    *,
    num_neighbors: int,
    spare: int = 6,
    recall_target: float = 0.95,
) -> jax.Array:
    """As `reduced`, but `K + spare` atoms are proposed by an approximate top-k.

    On a TPU `approx_max_k` (Chern et al. 2022) keeps the largest of each of many bins: one pass
    over `[N, M]` at the speed of the product. Other devices run its exact fallback, a sort: there
    this returns what `reduced` does, later.

    Args:
      targets: `[N, D]`.
      atoms: `[M, D]`.
      weights: `[M]`; an atom of weight 0 is padding.
      num_neighbors: `K`, at most `M`.
      spare: how many atoms are proposed beyond `K`.
      recall_target: the expected share of the `K + spare` closest that is proposed, in (0, 1]. Of
        those that fall into one bin the closest stays, so the nearest of all is not lost.

    Returns:
      `[N, K]` int32 indices of atoms, nearest first by their float32 differences.

    Raises:
      ValueError: as `reduced`, and if `recall_target` is not in (0, 1].
    """
    if not 0 < recall_target <= 1:
        raise ValueError(f"recall_target={recall_target}; it must be above 0 and at most 1")
    num_proposed = _check(targets, atoms, weights, num_neighbors, spare)
    closeness = _reduced_closeness(targets, atoms, weights)
    proposed = jax.lax.approx_max_k(closeness, num_proposed, recall_target=recall_target)[1]
    return _rank(targets, atoms, weights, proposed, num_neighbors)


def _reduced_closeness(targets, atoms, weights) -> jax.Array:
    """What `linalg.nearest` ranks by, of factors in bfloat16 and sums in float32; `[N, M]`."""
    targets, atoms, half_norms = linalg.seen_in(targets, atoms, weights)
    products = jnp.matmul(
        targets.astype(jnp.bfloat16),
        atoms.astype(jnp.bfloat16).T,
        preferred_element_type=jnp.float32,
    )
    return linalg.rank_padding_last(products - half_norms.astype(jnp.float32), weights)


def _rank(targets, atoms, weights, proposed, num_neighbors) -> jax.Array:
    """The nearest of the proposed atoms `[N, P]`, from differences, which are accurate near 0."""

    def of_one(target, indices):
        return -linalg.norm(target[None] - atoms[indices])

    closeness = jax.vmap(of_one)(targets, proposed)
    closeness = linalg.rank_padding_last(closeness, weights[proposed])
    order = jax.lax.top_k(closeness, num_neighbors)[1]
    return jnp.take_along_axis(proposed, order, axis=1).astype(jnp.int32)


def _check(targets, atoms, weights, num_neighbors: int, spare: int) -> int:
    """How many atoms to propose."""
    linalg.check_search(targets, atoms, weights, num_neighbors)
    if spare < 0:
        raise ValueError(f"spare={spare}; it must be 0 or positive")
    return min(num_neighbors + spare, atoms.shape[0])
