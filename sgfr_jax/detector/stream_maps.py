"""What several streams make of embedded images, as pure functions: maps, and scores of maps.

`sgfr_jax.detector.fused_scorer` compiles them.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sgfr_jax import calibration, linalg, maps, pipeline, types
from sgfr_jax import extents as of_squares
from sgfr_jax.commands.flags.config import Config
from sgfr_jax.detector import stages

# Precision is counted on every so many pixels of a map, which is smooth.
COARSE = 4
# A map's score is the mean of so large a share of its pixels, the highest.
SCORED_SHARE = 0.001


class Fused(NamedTuple):
    """The fitted state."""

    banks: tuple[types.Bank, ...]  # one for each of `S` streams
    calibrations: tuple[calibration.Calibration, ...]
    map_weights: jax.Array  # [S]: what each stream's map counts in the anomaly map
    image_weights: jax.Array  # [S]: and its score among the streams'
    image_mean: jax.Array  # [S]: of the scores of nominal maps
    image_spread: jax.Array  # [S]: their standard deviation
    # Of nominal images, the scores of the anomaly map and of the streams together.
    score_mean: jax.Array  # [2]
    score_spread: jax.Array  # [2]
    halo_above: jax.Array  # []: the map's score above which an image has a halo


@dataclasses.dataclass(frozen=True)
class StreamMaps:
    """The functions of one solver.

    Their rows `[B, ...]` depend on the same rows of the batch, and on the state. `extents` are as
    of `stages.make_scorer`, None where all squares are full.
    """

    config: Config
    coding: stages.Coding

    @property
    def _size(self) -> tuple[int, int]:
        return self.config.image_size, self.config.image_size

    def held_out(self, fitted, images):
        """Scores and owners `[B, P]` of patches, without the atoms of their own source.

        Args:
          fitted: a bank and the sources `[M]` of its atoms.
          images: features `[B, P, D]` and the sources of their patches.
        """
        (bank, sources), (features, own) = fitted, images
        code, chunk_size = self.coding
        return pipeline.score_held_out(
            bank, sources, features, own, code=code, chunk_size=chunk_size
        )

    def glance(self, calibrated, batch):
        """Of one stream's scores and owners `[B, h, w]` and extents, the parts of a `Found`."""
        found, extents = self._maps(calibrated, *batch), batch[-1]
        shown = jnp.ones(found.shape, bool)
        if extents is not None:
            shown = of_squares.inside(extents, self._size)
        return self._coarse(found), _score(found, extents), self._coarse(shown)

    def of_stream(self, fitted, batch, *, grid: int):
        """The calibrated maps `[B, S, S]` of one stream.

        Args:
          fitted: its bank and calibration.
          batch: its features `[B, P, D]`, and extents.
          grid: patches per side.
        """
        (bank, calibrated), (features, extents) = fitted, batch
        code, chunk_size = self.coding
        flat = features.reshape(-1, features.shape[-1])
        found = pipeline.score_and_owner(bank, flat, code=code, chunk_size=chunk_size)
        return self._maps(calibrated, *(x.reshape(-1, grid, grid) for x in found), extents)

    def views(self, state: Fused, batch: tuple[list[jax.Array], jax.Array | None]):
        """The anomaly map, and two scores of each image: the map's, and the streams'.

        Args:
          state: fitted.
          batch: the calibrated maps of every stream, and extents.
        """
        found, extents = batch
        weighed = jnp.tensordot(
            state.map_weights, jnp.stack(found), axes=1, precision=linalg.HIGHEST
        )
        alone = jnp.stack([_score(of_one, extents) for of_one in found])
        relative = (alone - state.image_mean[:, None]) / state.image_spread[:, None]
        together = jnp.sum(state.image_weights[:, None] * relative, axis=0)
        return weighed, jnp.stack([_score(weighed, extents), together], axis=1)

    def conclude(self, state: Fused, scores: jax.Array, broad: jax.Array, *, alone: bool):
        """What is added to the maps of images, and their scores, `[B]` each.

        Args:
          state: fitted.
          scores: `[B, 2]`, of `views`.
          broad: `[B]`, `maps.breadth` of the maps with their halos.
          alone: whether the images are looked at in no other way. What an image says of its map is
            else left to who knows all looks at it.
        """
        relative = (scores - state.score_mean[None]) / state.score_spread[None]
        found = jnp.mean(relative, axis=1)
        halos = maps.halo(scores[:, 0], state.halo_above, share=self.config.halo)
        if not alone:
            return -halos, found
        broad -= self.config.breadth * halos
        credit = maps.image_prior(found, share=self.config.image_prior)
        return state.score_spread[0] * credit + broad - halos, found

    def fuse(self, state: Fused, batch: tuple[list[jax.Array], jax.Array | None]):
        """Maps `[B, S, S]` and image scores `[B]`; arguments as of `views`."""
        weighed, scores = self.views(state, batch)
        broad = maps.breadth(weighed, batch[-1], share=self.config.breadth)
        added, found = self.conclude(state, scores, broad, alone=True)
        return weighed + added[:, None, None], found

    def nominal(self, state: Fused, batch):
        """The two scores `[B, 2]` of nominal images.

        Args:
          state: fitted, but for what these scores come to.
          batch: scores and owners `[B, h, w]` of every stream, and extents.
        """
        of_streams, extents = batch
        found = [
            self._maps(calibrated, *of_one, extents)
            for calibrated, of_one in zip(state.calibrations, of_streams, strict=True)
        ]
        return self.views(state, (found, extents))[1]

    def _maps(self, calibrated, scores, owners, extents) -> jax.Array:
        relative = calibration.standardize(calibrated, scores, owners, extents)
        return maps.anomaly_map(relative, self._size, sigma=self.config.sigma, extents=extents)

    def _coarse(self, found: jax.Array) -> jax.Array:
        size = self.config.image_size
        whole = size - size % COARSE  # as `synthetic.coarse` has it
        return found[:, COARSE // 2 : whole : COARSE, COARSE // 2 : whole : COARSE]


def add(state: Fused, found: list[jax.Array]) -> jax.Array:
    """What the maps `[B, S, S]` of every stream add to the anomaly map, `[B, streams, S, S]`."""
    return state.map_weights[None, :, None, None] * jnp.stack(found, axis=1)


def _score(found: jax.Array, extents: jax.Array | None) -> jax.Array:
    return maps.image_score(found, extents, share=SCORED_SHARE)
