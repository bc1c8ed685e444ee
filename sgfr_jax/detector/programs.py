"""The compiled functions of a method, made in this one place: equal methods share them."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax import calibration
from sgfr_jax.detector import scoring
from sgfr_jax.detector import services as machinery
from sgfr_jax.detector.method import Method, Stage
from sgfr_jax.detector.scoring import Scoring
from sgfr_jax.detector.services import Services, pad
from sgfr_jax.detector.state import Look
from sgfr_jax.detector.streams import Stream

# Sets of programs that stay compiled: of a few methods, solvers and devices.
_PROGRAMS = 16
# Nominal and synthetic images scored at a time.
_BATCH = 16


class Programs(NamedTuple):
    """The compiled functions of one solver; a square's results do not depend on the others.

    A stream's is compiled and called alone: programs that factorise for several banks at once can
    lock XLA's CPU threads against each other.
    """

    # `(look, batch, extents) -> (maps [B, S, S], scores [B])` of squares that show whole images.
    # The batch has the patches `[B, P, D]` of every stream; extents are as of `Scoring`.
    score: Callable
    # The same of windows that show parts of images: maps with their halos, and scores `[B, 2]`.
    score_windows: Callable
    # `(look, map [H, W], scores [n, 2], *, alone) -> (map, score)` of an image put together from
    # the windows that these are of; `alone` if the image is looked at in no other way.
    join: Callable
    # `(look, batch, extents) -> [streams, B, S, S]`: what each stream adds to the maps.
    contributions: Callable
    # `((bank, sources [M]), (patches [B, P, D], sources [B])) -> scores and owners [B, P]`
    held_out: Callable
    # `(scores, owners, num_atoms, extents=...) -> Calibration`
    calibrate: Callable
    # `(calibration, (scores, owners, extents)) -> (maps, scores, shown)`, of `Scoring.glance`.
    glance: Callable
    # `(look, (scores and owners of every stream, extents)) -> [B, 2]`, of `Scoring.nominal`.
    nominal: Callable


def make(
    method: Method, streams: tuple[Stream, ...], services: Services, solver: str | None = None
) -> Programs:
    """The programs of a method, or of another solver in its place.

    Args:
      method: from `settle.settle`.
      streams: of it.
      services: that compile.
      solver: of `alternatives.SOLVERS`; None: the method's own.

    Raises:
      ArgumentError: if the services are none.
    """
    machinery.check(services)
    # Methods that differ in what came before, such as the size of a bank, share programs.
    kept = dataclasses.replace(method.coding(Stage.MAP), image_size=method.image_size)
    return _cached(kept, streams, solver or method.solver, services.compile, services.jit)


@functools.lru_cache(_PROGRAMS)
def _cached(
    method: Method, streams: tuple[Stream, ...], solver: str, compile: Callable, jit: Callable
) -> Programs:
    functions = Scoring(method, scoring.usual_coding(method, solver))
    stream_maps = compile(functions.stream_maps, static=("grid",))
    fuse, views = compile(functions.fuse), compile(functions.views)
    contribute = compile(scoring.contributions)
    conclude = jit(functions.conclude, static_argnames="alone")

    every_map = partial(scoring.every_map, stream_maps, streams)

    def score(look: Look, batch: Sequence[jax.Array], extents: jax.Array | None = None):
        return fuse(look, (every_map(look, batch, extents), extents))

    def score_windows(look: Look, batch: Sequence[jax.Array], extents: jax.Array | None = None):
        return views(look, (every_map(look, batch, extents), extents))

    def contributions(look: Look, batch: Sequence[jax.Array], extents: jax.Array | None = None):
        return jnp.moveaxis(contribute(look, every_map(look, batch, extents)), 1, 0)

    def join(look: Look, anomaly_map: np.ndarray, scores: np.ndarray, *, alone: bool):
        found = np.max(scores, axis=0)
        if not look.calibrations:
            return anomaly_map, found[0]
        if len(scores) > 1:  # near borders inside the image the windows' own maps are false
            found[0] = _highest(anomaly_map, len(scores))
        broad = np.float32(method.breadth * np.mean(anomaly_map))
        added, score = jax.device_get(conclude(look, found[None], broad, alone=alone))
        return anomaly_map + added[0], score[0]

    return Programs(
        score, score_windows, join, contributions,
        held_out=compile(functions.held_out),
        calibrate=jit(calibration.calibrate, static_argnums=2),
        glance=compile(functions.glance),
        nominal=compile(functions.nominal),
    )  # fmt: skip


def in_batches(compiled: Callable, state: Any, images: Any) -> Any:
    """What a compiled function of a state and a batch makes of many images, some at a time.

    Args:
      compiled: `(state, batch) -> tree of arrays [B, ...]`.
      state: of it.
      images: a tree of arrays `[N, ...]`.

    Returns:
      A tree of NumPy's arrays `[N, ...]`.
    """
    found, num_images = [], len(jax.tree.leaves(images)[0])
    for begin in range(0, num_images, _BATCH):
        num = min(_BATCH, num_images - begin)
        some = jax.tree.map(lambda x, b=begin, n=num: pad(x[b : b + n], _BATCH), images)
        of_some = jax.device_get(compiled(state, some))
        found.append(jax.tree.map(lambda x, n=num: x[:n], of_some))
    return together(found)


def together(found: Sequence[Any]) -> Any:
    """Trees of arrays `[n, ...]`, one after the other."""
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


def _highest(anomaly_map: np.ndarray, num_windows: int) -> np.ndarray:
    """The mean of the highest pixels, as many as one window would average.

    A share of the whole map would dilute a small defect the more windows there are.

    Args:
      anomaly_map: `[H, W]`.
      num_windows: that it is put together from.
    """
    num = max(1, round(scoring.SCORED_SHARE * anomaly_map.size / num_windows))
    return np.partition(anomaly_map, -num, axis=None)[-num:].mean()
