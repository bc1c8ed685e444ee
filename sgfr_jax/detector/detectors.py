"""What a category is run with: something that fits, embeds and scores."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax.detector import loading


class Seconds(NamedTuple):
    """Wall time of the stages of fitting."""

    embed: float
    sample: float
    calibrate: float = 0.0


class Origins(NamedTuple):
    """Where the `M` atoms of a bank come from."""

    images: jax.Array  # [M] int32: the training image; -1: learned from many
    windows: jax.Array  # [M] int32: which of the image's windows, from 0; -1: the same
    cells: jax.Array  # [M] int32: the patch of the window's grid, row by row; -1: the same


class Fitted(NamedTuple):
    """A detector that has seen a category's training images."""

    states: dict[str, Any]  # of every scorer, by its name
    num_atoms: int  # in all banks together
    notes: list[str]  # on how it was fitted
    seconds: Seconds
    origins: tuple[Origins, ...] = ()  # of every bank
    calibrated_on: tuple[int, ...] = ()  # the training images that calibrated them


class Windowed(NamedTuple):
    """How images are scored that are seen through windows, several or one, whole or in parts."""

    # Of windows: `(state, batch, extents) -> (maps [B, S, S], scores [B, ...])`.
    score: Callable
    # Of an image, put together: `(state, map [H, W], scores [n, ...], *, alone) -> (map, score)`;
    # `alone` if it is looked at in no other way.
    join: Callable


class Detector(NamedTuple):
    """The stages of a run, compiled where that helps."""

    fit: Callable[[loading.Checked], Fitted]
    # Of squares, as `loading.views` gives: a pytree of arrays `[n, ...]` at a time, `n` at most
    # the batch size.
    batches: Callable[[loading.Split], Iterator[Any]]
    # Name of a solver, the run's own first, to
    # `(state, batch, extents [B, 2] or None) -> (maps [B, S, S], scores [B])`.
    scorers: dict[str, Callable]
    batch_size: int
    # By the same names, where it is not as `of_windows` has it for all.
    windowed: Mapping[str, Windowed] = MappingProxyType({})
    # Of the same arguments, what each of `S` banks adds to the maps, whose halos are not taken off:
    # `[S, B, H, W]`, which add up to the maps of `of_windows`.
    parts: Mapping[str, Callable] = MappingProxyType({})
    put: Callable[[Any], Any] = jax.device_put  # a batch to where scorers want it
    place: Callable[[Any], Any] = lambda state: state  # and a state that was elsewhere
    # Of images that are looked at in several ways:
    breadth: float = 0.0  # of `maps.breadth`
    image_prior: float = 0.0  # of `maps.image_prior`


def of_windows(detector: Detector, solver: str) -> Windowed:
    """How a solver scores images seen through windows: by default as high as the highest."""
    return detector.windowed.get(solver, Windowed(detector.scorers[solver], _as_the_highest))


def _as_the_highest(state: Any, anomaly_map: np.ndarray, scores: np.ndarray, *, alone: bool):
    del state, alone
    return anomaly_map, np.max(scores)


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


def window_numbers(owners: np.ndarray) -> np.ndarray:
    """Which of its image's windows each is, from 0, of windows `[V]` of images in order."""
    return np.arange(len(owners)) - np.searchsorted(owners, owners)


def no_origins(num_atoms: int) -> Origins:
    """The origins of atoms that are learned."""
    return Origins(*(jnp.full(num_atoms, -1, jnp.int32) for _ in Origins._fields))
