"""What fitting leaves: arrays in plain containers, and where the atoms of the banks come from."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax import thresholds, types
from sgfr_jax.calibration import Calibration

# Below this a spread of standardized scores is taken for rounding.
_LEAST_SPREAD = 1e-6


@types.exportable
class Origins(NamedTuple):
    """Where the `M` atoms of a bank come from."""

    images: jax.Array  # [M] int32: the training image; -1: learned from many
    windows: jax.Array  # [M] int32: which of the image's windows, from 0; -1: learned from many
    cells: jax.Array  # [M] int32: the patch of the window's grid, row by row; -1 likewise


@types.exportable
class Look(NamedTuple):
    """What is fitted to one way of looking at images: a bank for each of `S` streams.

    A method of one bank has one stream without a calibration; its weights are 1, and what nominal
    scores come to is left at mean 0 and spread 1.
    """

    banks: tuple[types.Bank, ...]
    origins: tuple[Origins, ...]  # of every bank
    calibrations: tuple[Calibration, ...]  # of every bank, or none
    map_weights: jax.Array  # [S]: what each stream's map counts in the anomaly map
    image_weights: jax.Array  # [S]: what each stream's score counts in the streams' score
    image_mean: jax.Array  # [S]: of the scores of nominal maps
    image_spread: jax.Array  # [S]: their standard deviation
    # Of nominal images, the scores of the anomaly map and of the streams together.
    score_mean: jax.Array  # [2]
    score_spread: jax.Array  # [2]
    halo_above: jax.Array  # []: the map's score above which an image has a halo


@types.exportable
class Nominal(NamedTuple):
    """What nominal images come to in each of `L` looks; float32 `[L]`."""

    map_mean: jax.Array
    map_spread: jax.Array
    score_mean: jax.Array
    score_spread: jax.Array


@types.exportable
class State(NamedTuple):
    """What a detector has learned, of every way in which it looks at images."""

    looks: tuple[Look, ...]
    nominal: Nominal  # not used where there is one look
    whole: jax.Array  # [L] bool: which looks show an image whole, not in tiles; one at least


@types.exportable
class Nulls(NamedTuple):
    """What nominal images score that a detector has not learned from."""

    images: thresholds.Tally
    pixels: thresholds.Tally


def usable(spread: np.ndarray) -> np.ndarray:
    """Standard deviations of scores, with 1 in place of those that are none, to divide by."""
    return np.where(spread > _LEAST_SPREAD, spread, 1)


def plain_look(banks: tuple[types.Bank, ...], origins: tuple[Origins, ...]) -> Look:
    """A look that is not calibrated: streams count alike, and scores are read as they are."""
    num = len(banks)
    alike, nothing = jnp.full(num, 1 / num, jnp.float32), jnp.zeros(num)
    return Look(
        banks, origins, (), alike, alike, nothing, jnp.ones(num), jnp.zeros(2), jnp.ones(2),
        jnp.float32(jnp.inf),
    )  # fmt: skip


def alone(look: Look) -> State:
    """The state of a detector that looks at images in one way."""
    nothing, one = jnp.zeros(1), jnp.ones(1)
    return State((look,), Nominal(nothing, one, nothing, one), jnp.ones(1, bool))


def without(look: Look, image: int) -> Look:
    """The look without the atoms that a training image gave."""
    left = tuple(
        bank._replace(weights=jnp.where(origin.images == image, 0, bank.weights))
        for bank, origin in zip(look.banks, look.origins, strict=True)
    )
    return look._replace(banks=left)


def num_atoms(look: Look) -> int:
    """The atoms of all banks together, padding left out."""
    return sum(int(jnp.sum(bank.weights > 0)) for bank in look.banks)


def origins(bank_indices: jax.Array, picks: np.ndarray, owners: np.ndarray) -> Origins:
    """The origins of atoms chosen from some patches of every window of every image.

    Args:
      bank_indices: `[M]`: which of the `V n` patches, window by window.
      picks: `[V, n]`: which patches of each window these are.
      owners: `[V]`: which image each window shows, in order.
    """
    views, numbers = np.divmod(np.asarray(bank_indices), picks.shape[1])
    found = owners[views], window_numbers(owners)[views], picks[views, numbers]
    return Origins(*(jnp.asarray(x, jnp.int32) for x in found))


def no_origins(num_atoms: int) -> Origins:
    """The origins of atoms that are learned."""
    return Origins(*(jnp.full(num_atoms, -1, jnp.int32) for _ in Origins._fields))


def window_numbers(owners: np.ndarray) -> np.ndarray:
    """Which of its image's windows each is, from 0, of windows `[V]` of images in order."""
    return np.arange(len(owners)) - np.searchsorted(owners, owners)
