"""What the streams of one look make of embedded squares, as pure functions: maps, and their scores.

`programs` compiles them.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from sgfr_jax import calibration, linalg, maps, pipeline
from sgfr_jax import extents as of_squares
from sgfr_jax.detector import alternatives
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.state import Look
from sgfr_jax.detector.streams import Stream

# Patches coded at a time: what keeps a CPU's caches, or an accelerator, busy.
CODING_CHUNK = {"cpu": 256}
ACCELERATOR_CHUNK = 8192
# Precision is counted on every fourth row and column of a map, which is smooth.
COARSE = 4
# The score of a calibrated map is the mean of so large a share of its pixels, the highest.
SCORED_SHARE = 0.001


@dataclasses.dataclass(frozen=True)
class Coding:
    """How patches are coded."""

    code: pipeline.MakeCode
    chunk_size: int  # patches at a time


def usual_coding(method: Method, solver: str) -> Coding:
    """What suits the devices of this process."""
    usual = CODING_CHUNK.get(jax.default_backend(), ACCELERATOR_CHUNK)
    chunk_size = max(usual, alternatives.SOLVERS[solver].chunk_size)
    return Coding(alternatives.make_coder(solver, method), chunk_size)


@dataclasses.dataclass(frozen=True)
class Scoring:
    """The functions of one solver.

    Their rows `[B, ...]` depend on the same rows of the batch, and on what is fitted. `extents`,
    `[B, 2]` or None, are the shares that images fill (`sgfr_jax.extents`); None: all squares are
    full. A method of one bank reads residuals as they are; one of several calibrates them first.
    """

    method: Method
    coding: Coding

    @property
    def _size(self) -> tuple[int, int]:
        return self.method.image_size, self.method.image_size

    def held_out(self, fitted, images):
        """Scores and owners `[B, P]` of patches, without the atoms of their own source.

        Args:
          fitted: a bank and the sources `[M]` of its atoms.
          images: features `[B, P, D]` and the sources of their patches.
        """
        (bank, sources), (features, own) = fitted, images
        return pipeline.score_held_out(
            bank, sources, features, own,
            code=self.coding.code, chunk_size=self.coding.chunk_size,
        )  # fmt: skip

    def glance(self, calibrated, batch):
        """What one stream's scores and owners `[B, h, w]` and extents come to.

        Returns:
          The calibrated maps, every `COARSE`-th pixel of them; their scores `[B]`; and which of
          these pixels show the image.
        """
        found, extents = self._calibrated_maps(calibrated, *batch), batch[-1]
        shown = jnp.ones(found.shape, bool)
        if extents is not None:
            shown = of_squares.inside(extents, self._size)
        return self._coarse(found), _score(found, extents), self._coarse(shown)

    def stream_maps(self, fitted, batch, *, grid: int):
        """The maps `[B, S, S]` of one stream, calibrated where the method has several.

        Args:
          fitted: its bank, and its calibration or None.
          batch: its features `[B, P, D]`, and extents.
          grid: patches per side.
        """
        (bank, calibrated), (features, extents) = fitted, batch
        code, chunk_size = self.coding.code, self.coding.chunk_size
        flat = features.reshape(-1, features.shape[-1])
        if calibrated is None:
            scores = pipeline.score(bank, flat, code=code, chunk_size=chunk_size)
            return self._maps(scores.reshape(-1, grid, grid), extents)
        found = pipeline.score_and_owner(bank, flat, code=code, chunk_size=chunk_size)
        found = (x.reshape(-1, grid, grid) for x in found)
        return self._calibrated_maps(calibrated, *found, extents)

    def views(self, look: Look, batch: tuple[list[jax.Array], jax.Array | None]):
        """The anomaly map, and two scores of each image: the map's, and the streams' together.

        Args:
          look: fitted.
          batch: the maps of every stream, and extents.
        """
        found, extents = batch
        if not look.calibrations:
            (alone,) = found
            score = maps.image_score(alone, extents)
            return alone, jnp.stack([score, score], axis=1)
        weighed = jnp.tensordot(
            look.map_weights, jnp.stack(found), axes=1, precision=linalg.HIGHEST
        )
        alone = jnp.stack([_score(of_one, extents) for of_one in found])
        relative = (alone - look.image_mean[:, None]) / look.image_spread[:, None]
        together = jnp.sum(look.image_weights[:, None] * relative, axis=0)
        return weighed, jnp.stack([_score(weighed, extents), together], axis=1)

    def conclude(self, look: Look, scores: jax.Array, broad: jax.Array, *, alone: bool):
        """What is added to the maps of images, and their scores, `[B]` each.

        Args:
          look: fitted.
          scores: `[B, 2]`, of `views`.
          broad: `[B]`, `maps.breadth` of the maps with their halos.
          alone: whether this is the only look. If not, breadth and image prior are left to the
            caller, which combines all looks.
        """
        if not look.calibrations:
            return jnp.zeros_like(broad), scores[:, 0]
        relative = (scores - look.score_mean[None]) / look.score_spread[None]
        found = jnp.mean(relative, axis=1)
        halos = maps.halo(scores[:, 0], look.halo_above, share=self.method.halo)
        if not alone:
            return -halos, found
        broad -= self.method.breadth * halos
        credit = maps.image_prior(found, share=self.method.image_prior)
        return look.score_spread[0] * credit + broad - halos, found

    def fuse(self, look: Look, batch: tuple[list[jax.Array], jax.Array | None]):
        """Maps `[B, S, S]` and image scores `[B]`; arguments as of `views`."""
        weighed, scores = self.views(look, batch)
        if not look.calibrations:
            return weighed, scores[:, 0]
        broad = maps.breadth(weighed, batch[-1], share=self.method.breadth)
        added, found = self.conclude(look, scores, broad, alone=True)
        return weighed + added[:, None, None], found

    def nominal(self, look: Look, batch):
        """The two scores `[B, 2]` of nominal images.

        Args:
          look: fitted, but for what these scores come to.
          batch: scores and owners `[B, h, w]` of every stream, and extents.
        """
        of_streams, extents = batch
        found = [
            self._calibrated_maps(calibrated, *of_one, extents)
            for calibrated, of_one in zip(look.calibrations, of_streams, strict=True)
        ]
        return self.views(look, (found, extents))[1]

    def _calibrated_maps(self, calibrated, scores, owners, extents):
        return self._maps(calibration.standardize(calibrated, scores, owners, extents), extents)

    def _maps(self, scores, extents):
        return maps.anomaly_map(scores, self._size, sigma=self.method.sigma, extents=extents)

    def _coarse(self, found):
        size = self.method.image_size
        whole = size - size % COARSE  # as `synthetic.coarse` has it
        return found[:, COARSE // 2 : whole : COARSE, COARSE // 2 : whole : COARSE]


def every_map(
    stream_maps: Callable,
    streams: Sequence[Stream],
    look: Look,
    patches: Sequence[jax.Array],
    extents: jax.Array | None,
) -> list[jax.Array]:
    """The maps `[B, S, S]` of every stream.

    Args:
      stream_maps: `Scoring.stream_maps`, compiled or not.
      streams: of the method.
      look: fitted.
      patches: `[B, P, D]` of every stream.
      extents: as of `Scoring`.
    """
    calibrations = look.calibrations or (None,) * len(look.banks)
    return [
        stream_maps((bank, calibrated), (features, extents), grid=stream.grid)
        for bank, calibrated, features, stream in zip(
            look.banks, calibrations, patches, streams, strict=True
        )
    ]


def contributions(look: Look, found: list[jax.Array]) -> jax.Array:
    """What the maps `[B, S, S]` of every stream add to the anomaly map, `[B, streams, S, S]`.

    Halos are not taken off.
    """
    return look.map_weights[None, :, None, None] * jnp.stack(found, axis=1)


def _score(found: jax.Array, extents: jax.Array | None) -> jax.Array:
    return maps.image_score(found, extents, share=SCORED_SHARE)
