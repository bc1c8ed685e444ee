"""Patches of nominal images to a bank: which patches count, where they lie, which are chosen."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax import extents as of_squares
from sgfr_jax import types
from sgfr_jax.detector import alternatives, services
from sgfr_jax.detector import state as states
from sgfr_jax.detector.method import Method, Stage
from sgfr_jax.detector.services import Report, Services
from sgfr_jax.detector.splits import Views

# Choices between two reports of a sampler's progress.
_STRIDE = 512
# Samplers and learners that stay compiled.
_PROGRAMS = 8


def patch_weights(seen: Views, grid: int) -> np.ndarray:
    """1 for every patch that shows an image, 0 for one of padding; `[V, P]` float32."""
    if seen.extents is None:
        return np.ones((len(seen.owners), grid**2), np.float32)
    shown = jax.device_get(of_squares.inside(seen.extents, (grid, grid)))
    return shown.reshape(len(shown), -1).astype(np.float32)


def pick(draws: np.ndarray, shown: np.ndarray, num: int) -> np.ndarray:
    """Of each square the patches of its `num` smallest draws, `[V, min(num, P)]`, in that order.

    Args:
      draws: `[V, P]` in [0, 1).
      shown: `[V, P]`; those that are 0 come last.
      num: see above.
    """
    # NumPy's sort: XLA's takes several times as long on a CPU.
    return np.argsort(np.where(shown > 0, draws, 2), axis=1, kind="stable")[:, :num]


def every_patch(num_squares: int, num_patches: int) -> np.ndarray:
    """All patches of each square, `[V, P]`, as `pick` has some of them."""
    return np.broadcast_to(np.arange(num_patches), (num_squares, num_patches))


def num_patches(seen: Views, grid: int) -> int:
    """How many patches show an image."""
    if seen.extents is None:
        return len(seen.owners) * grid**2
    return int(patch_weights(seen, grid).sum())


def origins(
    method: Method, bank: types.Bank, picks: np.ndarray, owners: np.ndarray
) -> states.Origins:
    """Where the atoms of a bank come from; arguments as of `state.origins`."""
    if method.subspaces != "implicit":
        return states.no_origins(len(bank.weights))
    return states.origins(bank.indices, picks, owners)


def make_bank(
    method: Method,
    key: jax.Array,
    points: np.ndarray,
    weights: np.ndarray,
    num_atoms: int,
    report: Report = lambda more: None,
    machine: Services = services.PLAIN,
    *,
    shape: tuple[int, int] | None = None,
) -> types.Bank:
    """The bank that coders run on: patches that are chosen, or what is learned of them.

    Args:
      method: which sampler and learner.
      key: consumed.
      points: `[n, D]` patches; of several processes those that this one has.
      weights: `[N]` of the patches of all processes; those of weight 0 do not count.
      num_atoms: `M`, `N` at most.
      report: told how many more atoms there are.
      machine: its services.
      shape: how many squares the patches of all processes are of, and patches of each; needed
        where patches lie on many devices.

    Returns:
      A `Bank`, the same in all processes.
    """
    if _is_spread(method, machine):
        bank = machine.sample(key, points, weights, shape, num_atoms, report)
    else:
        every = jnp.asarray(services.concatenated(machine, points))
        if method.subspaces == "dictionary":
            learn = _programs(_of_bank(method), machine.jit)[2]
            bank = learn(key, every, weights, num_atoms)
            report(num_atoms)
            return machine.agreed(jax.block_until_ready(bank))
        bank = _sample(method, key, every, weights, num_atoms, report, machine)
    bank = learn_bank(method, key, bank, machine)
    return machine.agreed(jax.block_until_ready(bank))


def _is_spread(method: Method, machine: Services) -> bool:
    """Whether patches lie on all devices while a bank is chosen: k-center alone can."""
    return (
        machine.sample is not None
        and method.sampler == "k_center"
        and method.subspaces != "dictionary"
    )


def learn_bank(
    method: Method, key: jax.Array, bank: types.Bank, machine: Services = services.PLAIN
) -> types.Bank:
    """The bank of the subspaces that a bank of patches lies in; `implicit` leaves it as it is."""
    if method.subspaces not in alternatives.SUBSPACE_LEARNERS:
        return bank
    learn = _programs(_of_bank(method), machine.jit)[2]
    return learn(jax.random.fold_in(key, 1), bank)


def _sample(
    method: Method,
    key: jax.Array,
    points: jax.Array,
    weights: np.ndarray,
    num_atoms: int,
    report: Report,
    machine: Services,
) -> types.Bank:
    """The bank that a sampler chooses, as `pipeline.fit` would, with progress."""
    start, advance, _ = _programs(_of_bank(method), machine.jit)
    selection = start(key, points, weights, num_atoms)
    selection = in_steps(advance, selection, points, num_atoms, report)
    return types.make_bank(points, selection)


def in_steps(
    advance: Callable, state: Any, points: jax.Array, num_atoms: int, report: Report
) -> Any:
    """Calls `advance(state, points, upto)` until all slots are filled, telling how far it is."""
    done = 0
    for step in range(1, math.ceil(num_atoms / _STRIDE) + 1):
        state = advance(state, points, min(step * _STRIDE, num_atoms))
        count = int(state.count)
        report(count - done)
        done = count
    return state


def _of_bank(method: Method) -> Method:
    """What the programs of samplers and learners follow from: what codes patches may make banks."""
    return method.only(Stage.BANK, Stage.CODE)


@functools.lru_cache(_PROGRAMS)
def _programs(method: Method, jit: Callable) -> tuple[Callable, Callable, Callable | None]:
    """A sampler's `start` and `advance`, and what learns, compiled once for equal methods."""
    sampler, learn = alternatives.make_sampler(method), None
    if method.subspaces == "dictionary":
        learn = jit(alternatives.make_dictionary(method), static_argnums=3)
    elif method.subspaces in alternatives.SUBSPACE_LEARNERS:
        learn = jit(alternatives.make_learner(method))
    return jit(sampler.start, static_argnums=3), jit(sampler.advance, donate_argnums=0), learn
