"""The scorers of one bank, compiled, and the detector that they make."""

import functools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sgfr_jax import maps, pipeline, sharding, types
from sgfr_jax.commands.flags.config import Config
from sgfr_jax.commands.host import devices, progress
from sgfr_jax.detector import (
    choices,
    detectors,
    loading,
    sampling,
)
from sgfr_jax.detector.embedding import Embedder

# Patches coded at a time: what keeps a CPU's caches, or an accelerator, busy.
CODING_CHUNK = {"cpu": 256}
ACCELERATOR_CHUNK = 8192


class Coding(NamedTuple):
    """How patches are coded."""

    code: pipeline.MakeCode
    chunk_size: int  # patches at a time


def chunk_size(solver: str) -> int:
    """Patches that a solver codes at a time."""
    usual = CODING_CHUNK.get(jax.default_backend(), ACCELERATOR_CHUNK)
    return max(usual, choices.SOLVERS[solver].chunk_size)


def usual_coding(config: Config, solver: str) -> Coding:
    """What suits the devices of this process."""
    return Coding(choices.make_coder(solver, config), chunk_size(solver))


def make_scorer(
    config: Config,
    solver: str,
    coding: Coding | None = None,
    layout: devices.Layout | None = None,
) -> Callable:
    """A compiled `(bank, patches [B, P, D], extents) -> (maps [B, S, S], image scores [B])`.

    `extents`, `[B, 2]` or None, are the shares that images fill: see `sgfr_jax.extents`.

    Args:
      config: of the run.
      solver: what codes the patches.
      coding: how; the usual way by default.
      layout: the devices that share the images; None: there is one.
    """
    code, chunk = coding or usual_coding(config, solver)

    def score(bank: types.Bank, batch: tuple[jax.Array, jax.Array | None]):
        features, extents = batch
        flat = features.reshape(-1, features.shape[-1])
        scores = pipeline.score(bank, flat, code=code, chunk_size=chunk)
        return _maps(config, scores.reshape(-1, config.grid, config.grid), extents)

    with_whole_bank = devices.spread(score, layout)

    def call(bank: types.Bank, features: jax.Array, extents: jax.Array | None = None):
        if layout is not None:
            mesh = devices.bank_mesh(bank, layout)
            if mesh.shape[sharding.ATOMS] > 1:
                return _scorer_over_atoms(config, solver, mesh)(bank, (features, extents))
        return with_whole_bank(bank, (features, extents))

    return call


def _maps(
    config: Config, scores: jax.Array, extents: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """The anomaly maps of patch scores `[B, h, w]`, and their image scores."""
    size = (config.image_size, config.image_size)
    found = maps.anomaly_map(scores, size, sigma=config.sigma, extents=extents)
    return found, maps.image_score(found, extents)


@functools.lru_cache(8)
def _scorer_over_atoms(config: Config, solver: str, mesh: jax.sharding.Mesh) -> Callable:
    """As `make_scorer`, of a bank that is split over a mesh's atoms axis, and of whole batches."""
    # What makes a local coder: how many atoms, and the penalty on their coefficients.
    bound = choices.make_coder(solver, config).keywords
    residuals = partial(
        sharding.score_over_atoms, mesh=mesh, chunk_size=chunk_size(solver),
        num_neighbors=bound["num_neighbors"], solve=bound["solve"],
    )  # fmt: skip
    make_maps = sharding.data_parallel(lambda _, batch: _maps(config, *batch), mesh)

    @jax.jit
    def score(bank: types.Bank, batch: tuple[jax.Array, jax.Array | None]):
        features, extents = batch
        scores = residuals(bank, features.reshape(-1, features.shape[-1]))
        return make_maps((), (scores.reshape(-1, config.grid, config.grid), extents))

    return devices.in_whole_parts(score, mesh)


def make_detector(embedder: Embedder) -> detectors.Detector:
    """The detector with one bank, of the levels that the embedder's configuration names."""
    config = embedder.config

    def fit_category(category: loading.Checked) -> detectors.Fitted:
        train = loading.views(category.train)
        num_atoms = config.num_atoms(sampling.num_patches(train, config.grid))
        num_own = len(devices.share(len(train.owners), embedder.layout))
        embedded = partial(progress.bar, f"{category.name}: embedding", num_own, "images")
        sampled = partial(progress.bar, f"{category.name}: sampling", num_atoms, "atoms")
        bank, notes, seconds = sampling.fit(embedder, train, embedded, sampled)
        bank = place(bank)
        states = dict.fromkeys(config.solvers, bank)
        origins = sampling.bank_origins(config, bank, train)
        return detectors.Fitted(states, int(jnp.sum(bank.weights > 0)), notes, seconds, (origins,))

    layout = embedder.layout
    scorers = {solver: make_scorer(config, solver, layout=layout) for solver in config.solvers}
    parts = {solver: partial(_only_part, scorer) for solver, scorer in scorers.items()}
    put = partial(devices.put, layout=layout)
    place = partial(
        devices.place_bank, config=config, layout=layout, chunk_size=chunk_size(config.solver)
    )
    return detectors.Detector(
        fit_category, embedder.batches, scorers, embedder.batch_size,
        parts=parts, put=put, place=place, breadth=config.breadth,
        image_prior=config.image_prior,
    )  # fmt: skip


def _only_part(
    scorer: Callable, bank: types.Bank, features: jax.Array, extents: jax.Array | None = None
) -> jax.Array:
    """What the one bank adds to the maps: all of them."""
    return scorer(bank, features, extents)[0][None]
