"""What several streams make of embedded images: a calibrated map of each, and one of them all.

The compiled half of a detector of several streams; `fused` fits what it scores with,
`stream_maps` has the functions.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax import calibration
from sgfr_jax.commands.flags.config import Config
from sgfr_jax.commands.host import devices, processes
from sgfr_jax.detector import embedding, stages, stream_maps
from sgfr_jax.detector.stream_maps import SCORED_SHARE, Fused
from sgfr_jax.detector.streams import Stream

# Below this a spread of standardized scores is taken for rounding.
_LEAST_SPREAD = 1e-6
# Nominal and synthetic images scored at a time.
_BATCH = 16
# An image has a halo if its map scores so many spreads more than nominal ones do on average.
_HALO_SPREADS = 2.0


class Found(NamedTuple):
    """What one stream makes of some images."""

    maps: np.ndarray  # [B, H, W], every `COARSE`-th pixel
    scores: np.ndarray  # [B], of all pixels
    shown: np.ndarray  # [B, H, W] bool: False in padding


class Scorer:
    """The compiled functions of one solver.

    A stream's is compiled and called alone: programs that factorise for several banks at once can
    lock XLA's CPU threads against each other.
    """

    def __init__(
        self,
        config: Config,
        streams: Sequence[Stream],
        solver: str,
        coding: stages.Coding | None = None,
        layout: devices.Layout | None = None,
    ):
        """Of the arguments of `stages.make_scorer`."""
        functions = stream_maps.StreamMaps(config, coding or stages.usual_coding(config, solver))
        compiled = partial(devices.spread, layout=layout)
        self.streams = streams
        self._breadth = config.breadth
        self.calibrate = jax.jit(calibration.calibrate, static_argnums=2)
        self._held_out = compiled(functions.held_out)
        self._glance = compiled(functions.glance)
        self._of_stream = compiled(functions.of_stream, static=("grid",))
        self._fuse = compiled(functions.fuse)
        self._add = compiled(stream_maps.add)
        self._of_windows = compiled(functions.views)
        self._conclude = jax.jit(functions.conclude, static_argnames="alone")
        self._nominal = compiled(functions.nominal)

    def score(self, state: Fused, batch: Sequence[jax.Array], extents: jax.Array | None = None):
        """Maps `[B, S, S]` and image scores `[B]`; extents as of `stages.make_scorer`."""
        return self._fuse(state, (self._maps(state, batch, extents), extents))

    def score_windows(
        self, state: Fused, batch: Sequence[jax.Array], extents: jax.Array | None = None
    ):
        """Of windows that show parts of images: maps with their halos, and both scores `[B, 2]`."""
        return self._of_windows(state, (self._maps(state, batch, extents), extents))

    def join(self, state: Fused, anomaly_map: np.ndarray, scores: np.ndarray, *, alone: bool):
        """The map and the score of an image from what `score_windows` makes of its windows.

        A defect's halo lies on all of them.

        Args:
          state: of the detector.
          anomaly_map: `[H, W]`, put together.
          scores: `[n, 2]` of the windows.
          alone: whether the image is looked at in no other way.
        """
        found = np.max(scores, axis=0)
        if len(scores) > 1:  # near borders inside the image the windows' own maps are false
            found[0] = _highest(anomaly_map, len(scores))
        broad = np.float32(self._breadth * np.mean(anomaly_map))
        added, score = jax.device_get(self._conclude(state, found[None], broad, alone=alone))
        return anomaly_map + added[0], score[0]

    def parts(
        self, state: Fused, batch: Sequence[jax.Array], extents: jax.Array | None = None
    ) -> jax.Array:
        """What each stream adds to the maps, `[streams, B, S, S]`; halos are not taken off."""
        return jnp.moveaxis(self._add(state, self._maps(state, batch, extents)), 1, 0)

    def _maps(
        self, state: Fused, batch: Sequence[jax.Array], extents: jax.Array | None
    ) -> list[jax.Array]:
        """Of every stream its calibrated maps `[B, S, S]`."""
        return [
            self._of_stream((bank, calibrated), (features, extents), grid=stream.grid)
            for bank, calibrated, features, stream in zip(
                state.banks, state.calibrations, batch, self.streams, strict=True
            )
        ]

    def held_out(self, bank, sources, features, own) -> list[np.ndarray]:
        """Scores and owners `[B, P]` of patches, without the atoms of their own source."""
        mine = processes.share(len(features))
        images = tuple(np.asarray(x[mine.start : mine.stop]) for x in (features, own))
        # Out of the devices' parts, as what comes next is of all images.
        return _together(processes.joined(_in_batches(self._held_out, (bank, sources), images)))

    def glance(self, calibrated, scores, owners, extents) -> Found:
        """What calibrated scores make of images."""
        return Found(*_together(_in_batches(self._glance, calibrated, (scores, owners, extents))))

    def standard(self, state: Fused, found, extents, *, held_out: bool) -> Fused:
        """The state whose image scores have mean 0 and spread 1 on nominal images.

        Args:
          state: calibrated and weighed.
          found: scores and owners `[B, h, w]` of nominal images, of every stream.
          extents: theirs.
          held_out: whether the banks have not seen these; else they say nothing about halos.
        """
        scores = _together(_in_batches(self._nominal, state, (found, extents)))
        mean, spread = scores.mean(axis=0), spread_of(scores, axis=0)
        above = mean[0] + _HALO_SPREADS * spread[0] if held_out else np.inf
        return state._replace(
            score_mean=jnp.asarray(mean, jnp.float32),
            score_spread=jnp.asarray(spread, jnp.float32),
            halo_above=jnp.float32(above),
        )


def spread_of(scores: np.ndarray, axis: int | None) -> np.ndarray:
    """Standard deviations; 1 where nothing deviates, as of one image: what comes stays as it is."""
    spread = scores.std(axis=axis)
    return np.where(spread > _LEAST_SPREAD, spread, 1)


def _highest(anomaly_map: np.ndarray, num_windows: int) -> np.ndarray:
    """As `maps.image_score` of one window, from the map of all: else more of them would hide more.

    Args:
      anomaly_map: `[H, W]`.
      num_windows: that it is put together from.
    """
    num = max(1, round(SCORED_SHARE * anomaly_map.size / num_windows))
    return np.partition(anomaly_map, -num, axis=None)[-num:].mean()


def _in_batches(compiled: Callable, state, images) -> list:
    """What a compiled function of a state and a batch makes of many images, some at a time."""
    found, num_images = [], len(jax.tree.leaves(images)[0])
    for begin in range(0, num_images, _BATCH):
        num = min(_BATCH, num_images - begin)
        some = jax.tree.map(lambda x, b=begin, n=num: embedding.pad(x[b : b + n], _BATCH), images)
        of_some = jax.device_get(compiled(state, some))
        found.append(jax.tree.map(lambda x, n=num: x[:n], of_some))
    return found


def _together(found: Sequence):
    """What `_in_batches` has made, of all images at once."""
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)
