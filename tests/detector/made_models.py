"""Detectors that are made, not fitted: banks of noise, whose scores mean nothing but are scores."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax import calibration, thresholds, types
from sgfr_jax.commands.flags.config import Config
from sgfr_jax.detector import model, network, state, streams
from sgfr_jax.detector.method import AUTO, Method
from sgfr_jax.detector.network import Network

NUM_ATOMS = 12


def make(settings: Config) -> model.Detector:
    """A detector of a configuration from `config.resolve`, of images that are all of one size."""
    found = network.ours(settings.method.backbone, settings.method.weights)
    return of(settings.method, found, seed=settings.evaluation.seed)


def of(method: Method, seen_through: Network, *, seed: int = 0) -> model.Detector:
    """A detector of a method from `settle.settle`, of images that are all of one size."""
    if method.geometry == AUTO:
        method = dataclasses.replace(method, geometry="square")
    rng, planned = np.random.default_rng(0), streams.plan(method, seen_through)
    banks = tuple(_bank(rng, stream.width) for stream in planned)
    look = state.plain_look(banks, tuple(state.no_origins(NUM_ATOMS) for _ in banks))
    if method.has_streams:
        num = len(planned)
        numbers = (jnp.asarray(rng.uniform(0.1, 1, n), jnp.float32) for n in (*[num] * 4, 2, 2))
        calibrations = tuple(_calibration(rng) for _ in planned)
        above = jnp.float32(rng.uniform(0.1, 1))
        look = state.Look(look.banks, look.origins, calibrations, *numbers, above)
    tally = thresholds.tally(rng.uniform(0.2, 0.4, 9).astype(np.float32))
    about = model.About(
        category="made", train=(), paths=(), hashes=(), data="", notes=(), patches=(), seed=seed,
        record="0",
    )  # fmt: skip
    fitted = jax.device_get(state.alone(look))
    return model.Detector(fitted, state.Nulls(tally, tally), method, seen_through, about)


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
