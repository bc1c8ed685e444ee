"""Models that are made, not fitted: banks of noise, whose scores mean nothing but are scores."""

import dataclasses

import jax
import numpy as np

from sgfr_jax import backbones, calibration, thresholds, types
from sgfr_jax.commands.flags import config
from sgfr_jax.detector import (
    detectors,
    models,
    nulls,
    stream_maps,
    streams,
)

NUM_ATOMS = 12


def make(settings: config.Config) -> models.Model:
    """A model of a configuration from `config.resolve`, of images that are all of one size."""
    if settings.geometry == config.AUTO:
        settings = dataclasses.replace(settings, geometry="square")
    rng = np.random.default_rng(0)
    if settings.has_streams:
        planned = streams.plan(settings)
        num = len(planned)
        state = stream_maps.Fused(
            tuple(_bank(rng, stream.width) for stream in planned),
            tuple(_calibration(rng) for _ in planned),
            *(rng.uniform(0.1, 1, n).astype(np.float32) for n in (num, num, num, num, 2, 2)),
            np.float32(rng.uniform(0.1, 1)),
        )
    else:
        state = _bank(rng, config.num_features(settings))
    tally = thresholds.tally(rng.uniform(0.2, 0.4, 9).astype(np.float32))
    about = models.About(
        category="made", weights=backbones.weights_digest(settings.backbone), train=(), paths=(),
        hashes=(), data="", made_with="{}", notes=(), f1_threshold=None, record="0",
        patches=(),
    )  # fmt: skip
    origins = tuple(detectors.no_origins(NUM_ATOMS) for _ in nulls.banks(state))
    return models.Model(
        state, jax.device_get(origins), nulls.Nulls(tally, tally), settings, about
    )  # fmt: skip


def _bank(rng, width) -> types.Bank:
    """One atom of it is padding."""
    atoms = rng.normal(size=(NUM_ATOMS, width))
    atoms[-1] = 0
    weights = np.float32(np.arange(NUM_ATOMS) < NUM_ATOMS - 1)
    norms = np.maximum(np.linalg.norm(atoms, axis=1, keepdims=True), 1e-9)
    return types.Bank((atoms / norms).astype(np.float32), weights, np.arange(NUM_ATOMS))


def _calibration(rng) -> calibration.Calibration:
    sizes = (NUM_ATOMS, 3, 3)
    return calibration.Calibration(*(rng.uniform(0.5, 1, n).astype(np.float32) for n in sizes))
