"""Streams made comparable and weighed, without any label.

Nominal squares, scored without the atoms they gave, say what residuals are nominal
(`sgfr_jax.calibration`); synthetic defects say how much each stream counts (`sgfr_jax.fusion`).
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from sgfr_jax import calibration, fusion
from sgfr_jax.detector import blocks, synthetic
from sgfr_jax.detector.programs import Programs, in_batches, together
from sgfr_jax.detector.scoring import COARSE
from sgfr_jax.detector.services import PLAIN, Report, Services
from sgfr_jax.detector.state import Look, usable
from sgfr_jax.detector.streams import Stream

# An image has a halo if its map scores more than this number of spreads above the nominal mean.
_HALO_SPREADS = 2.0


class Squares(NamedTuple):
    """Embedded squares that calibrate or weigh the streams."""

    features: Sequence[np.ndarray]  # [B, P, D] of every stream
    owners: np.ndarray  # [B]: the training images that they show, or are made from
    extents: np.ndarray | None = None  # [B, 2]: the shares that images fill; None: all are full


class Found(NamedTuple):
    """What one stream makes of some squares."""

    maps: np.ndarray  # [B, H, W], every `COARSE`-th pixel
    scores: np.ndarray  # [B], of all pixels
    shown: np.ndarray  # [B, H, W] bool: False in padding


class HeldOut(NamedTuple):
    """What the streams make of nominal squares without the atoms that these gave."""

    scores: tuple[tuple[np.ndarray, np.ndarray], ...]  # of every stream, and owners, [B, h, w]
    found: tuple[Found, ...]  # of every stream, calibrated
    extents: np.ndarray | None  # of the squares
    unseen: bool  # whether something was left out; if not, they say nothing about halos


def calibrate(
    programs: Programs,
    streams: Sequence[Stream],
    look: Look,
    nominal: Squares,
    machine: Services = PLAIN,
    *,
    by_block: bool = False,
    report: Report = lambda more: None,
) -> tuple[Look, HeldOut]:
    """Calibrates every stream on nominal squares, held out of the banks.

    Args:
      programs: of the method.
      streams: `S`, one for each bank.
      look: whose banks and origins are known.
      nominal: squares of training images.
      machine: whose processes share the work.
      by_block: whether there is one training image, whose blocks are held out in its place.
      report: told of each stream.

    Returns:
      The look with calibrations that give nominal maps mean 0 and spread 1, and what nominal
      squares come to.
    """
    calibrations, scores, found = [], [], []
    sources = _sources(look, streams, by_block=by_block)
    extents = nominal.extents
    for stream, bank, source, features in zip(
        streams, look.banks, sources, nominal.features, strict=True
    ):
        own = _score(programs, stream, bank, source, features, nominal.owners, machine, by_block)
        calibrated = programs.calibrate(*own, len(bank.atoms), extents=extents)
        seen = _glance(programs, calibrated, own, extents)
        shown = seen.maps[seen.shown]
        mean, spread = shown.mean(), spread_of(shown, axis=None)
        calibrations.append(calibration.rescale(calibrated, jnp.float32(mean), jnp.float32(spread)))
        scores.append(own)
        # Maps are linear in the scores: the rescaled ones need not be made anew.
        maps, of_maps = ((x - mean) / spread for x in (seen.maps, seen.scores))
        found.append(Found(maps, of_maps, seen.shown))
        report(1)
    # Of a bank whose atoms are of no one image nothing was left out.
    unseen = all(bool(jnp.any(source >= 0)) for source in sources)
    held = HeldOut(tuple(scores), tuple(found), extents, unseen)
    return look._replace(calibrations=tuple(calibrations)), held


def weigh(
    programs: Programs,
    streams: Sequence[Stream],
    look: Look,
    held: HeldOut,
    defective: Squares,
    masks: np.ndarray,
    groups: Sequence[str],
    machine: Services = PLAIN,
    *,
    by_block: bool = False,
) -> Look:
    """Says what each stream counts, by how well it tells synthetic defects from nominal squares.

    Args:
      programs: of the method.
      streams: `S`, one for each bank.
      look: from `calibrate`.
      held: from the same.
      defective: squares with a synthetic defect each; if there is none, streams count alike.
      masks: `[B, S, S]` bool: where the defects are, at the size of the maps.
      groups: of every square the kind of its defect: each kind counts as much.
      machine: whose processes share the work.
      by_block: as of `calibrate`.

    Returns:
      The look with weights, whose image scores have mean 0 and spread 1 on nominal images.
    """
    of_defects = []
    if len(defective.owners):
        sources = _sources(look, streams, by_block=by_block)
        for stream, bank, calibrated, source, features in zip(
            streams, look.banks, look.calibrations, sources, defective.features, strict=True
        ):
            own = _score(
                programs, stream, bank, source, features, defective.owners, machine, by_block
            )
            of_defects.append(_glance(programs, calibrated, own, defective.extents))
    map_weights, image_weights = _weights(held.found, of_defects, masks, groups)
    alone = np.stack([found.scores for found in held.found])
    look = look._replace(
        map_weights=jnp.asarray(map_weights, jnp.float32),
        image_weights=jnp.asarray(image_weights, jnp.float32),
        image_mean=jnp.asarray(alone.mean(axis=1), jnp.float32),
        image_spread=jnp.asarray(spread_of(alone, axis=1), jnp.float32),
    )
    scores = in_batches(programs.nominal, look, (held.scores, held.extents))
    mean, spread = scores.mean(axis=0), spread_of(scores, axis=0)
    above = mean[0] + _HALO_SPREADS * spread[0] if held.unseen else np.inf
    return look._replace(
        score_mean=jnp.asarray(mean, jnp.float32),
        score_spread=jnp.asarray(spread, jnp.float32),
        halo_above=jnp.float32(above),
    )


def spread_of(scores: np.ndarray, axis: int | None) -> np.ndarray:
    """Standard deviations, with 1 in place of zero so that dividing by them is the identity."""
    return usable(scores.std(axis=axis))


def _sources(look: Look, streams: Sequence[Stream], *, by_block: bool) -> list:
    """Of every bank `[M]`: the images that atoms are of, or, of one image, their blocks."""
    if not by_block:
        return [origin.images for origin in look.origins]
    return [
        blocks.numbers(stream.grid)[origin.cells]
        for stream, origin in zip(streams, look.origins, strict=True)
    ]


def _score(
    programs, stream, bank, source, features, owners, machine: Services, by_block: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and owners `[B, h, w]` of squares without the atoms of their images, or blocks."""
    score = partial(_held_out, programs, bank, source, machine)
    grid = stream.grid
    found = blocks.held_out(score, grid, features) if by_block else score(features, owners)
    return tuple(x.reshape(-1, grid, grid) for x in found)


def _held_out(programs, bank, source, machine: Services, features, own) -> list[np.ndarray]:
    """The same, `[B, P]`, every process its share."""
    mine = machine.share(len(features))
    images = tuple(np.asarray(x[mine.start : mine.stop]) for x in (features, own))
    parts = []
    if len(mine):
        parts.append(in_batches(programs.held_out, (bank, source), images))
    # Out of the devices' parts, as what comes next is of all images.
    return together(machine.joined(parts))


def _glance(programs, calibrated, own, extents) -> Found:
    return Found(*in_batches(programs.glance, calibrated, (*own, extents)))


def _weights(
    of_nominal: Sequence[Found],
    of_defects: Sequence[Found],
    masks: np.ndarray,
    groups: Sequence[str],
) -> tuple[np.ndarray, np.ndarray]:
    """What each stream counts in the map and in the streams' score; alike without defects."""
    if not of_defects:
        alike = np.full(len(of_nominal), 1 / len(of_nominal))
        return alike, alike
    cells = synthetic.coarse(masks, COARSE)
    precision = np.stack([
        fusion.precisions(
            # Padding ranks last, and so counts for nothing.
            np.where(defects.shown, defects.maps, defects.maps.min()),
            cells, groups, ordinary.maps[ordinary.shown],
        )
        for defects, ordinary in zip(of_defects, of_nominal, strict=True)
    ])  # fmt: skip
    of_images = (np.stack([found.scores for found in of]) for of in (of_defects, of_nominal))
    return fusion.map_weights(precision), fusion.image_weights(*of_images)
