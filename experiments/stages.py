"""The compiled stages of a run: embed, sample, score, a batch at a time."""

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import (
    cache,
    choices,
    detectors,
    devices,
    loading,
    processes,
    progress,
    streams,
)
from experiments.config import Config, num_features
from experiments.streams import Stream
from sgfr_jax import (
    backbones,
    filters,
    linalg,
    maps,
    patches,
    pipeline,
    sharding,
    streaming,
    types,
)
from sgfr_jax import extents as of_squares
from sgfr_jax.datasets import DatasetError, geometry, images

# Choices between two reports of a sampler's progress.
SAMPLER_STRIDE = 512
# Points that a round of k-center over several devices goes through, and those of each at least.
_POOL, _LEAST_POOL = 2048, 8
# Patches coded at a time: what keeps a CPU's caches, or an accelerator, busy.
CODING_CHUNK = {"cpu": 256}
ACCELERATOR_CHUNK = 8192
# Images whose embeddings are read at a time when all of them are wanted.
CACHED_IMAGES = 128
# Patches that a streaming sampler holds beside its core: at least this many.
STREAM_PATCHES = 1 << 16

# What an embedding follows from, beside the functions of this module that make it.
_EMBEDDING = (backbones, patches, filters, linalg, geometry, images, streams)

Report = Callable[[int], None]
Progress = Callable[[], AbstractContextManager[Report]]


class Coding(NamedTuple):
    """How patches are coded."""

    code: pipeline.MakeCode
    chunk_size: int  # patches at a time


class Embedder(NamedTuple):
    """Embeds images, or finds them embedded."""

    config: Config
    load: Callable[[], backbones.Backbone]  # called when the first image must be embedded
    digest: str  # of the weights
    compiled: Callable  # (backbone, images [B, S, S, 3]) -> (patches [B, P, D], finite [B])
    batch_size: int
    cache_dir: Path | None
    cache_bytes: int
    shape: tuple[int, int] | None = None  # `patch_shape`, if it is not that of config
    layout: devices.Layout | None = None  # of the run's devices; no part of what embeddings are

    @property
    def patch_shape(self) -> tuple[int, int]:
        """Of an image's embedding: `[P, D]`."""
        return self.shape or (self.config.grid**2, num_features(self.config))

    def entry(self, hashes: tuple[str, ...]) -> str:
        """The name in the cache of the embeddings of images with these content hashes."""
        config = self.config
        return cache.key(
            images=hashes,
            backbone=config.backbone,
            weights=self.digest,
            layers=config.layers,
            image_size=config.image_size,
            grid=config.grid,
            unit_norm=config.unit_norm,
            # Any edit of what embeds, or of which streams there are, makes other entries.
            code=cache.source_digest(*_EMBEDDING, make_embedding, make_stream_embedding, _merged),
            platform=jax.default_backend(),
        )

    def known(self, hashes: tuple[str, ...] | None) -> bool:
        """Whether the embeddings of these training images are in the cache, each process's own."""
        if self.cache_dir is None or hashes is None:
            return False
        mine = devices.share(len(hashes), self.layout)
        name = self.entry(hashes[mine.start : mine.stop])
        return all(processes.joined([not mine or cache.holds(self.cache_dir, name)]))

    def batches(self, split: loading.Split, *, cached: int | None = None) -> Iterator[np.ndarray]:
        """The patches of a split, `[n, P, D]` float32 at a time; `n` is the batch size but last.

        Args:
          split: the images, each one square: of `loading.views`, where there are windows.
          cached: how many images at a time come from the cache; the batch size by default.

        Raises:
          DatasetError: names the first image with features that are not finite.
        """
        made = self._embedded(split)
        if self.cache_dir is None or not split.examples:
            return made
        found = self.cached(split, cached or self.batch_size)
        if found is not None:
            return found
        name, shape = self.entry(split.hashes), (len(split.examples), *self.patch_shape)
        return cache.write_through(self.cache_dir, name, shape, made, self.cache_bytes)

    def cached(self, split: loading.Split, rows: int) -> Iterator[np.ndarray] | None:
        """The patches of a split from the cache, so many images at a time; None: they are not."""
        if self.cache_dir is None:
            return None
        return cache.read(self.cache_dir, self.entry(split.hashes), rows)

    def _embedded(self, split: loading.Split) -> Iterator[np.ndarray]:
        pixels = (loaded.image for loaded in loading.iterate(split, self.config))
        done = 0
        while batch := list(itertools.islice(pixels, self.batch_size)):
            padded = np.zeros((self.batch_size, *batch[0].shape), np.uint8)
            padded[: len(batch)] = batch
            features, finite = self.compiled(self.load(), padded)
            finite = np.asarray(finite)[: len(batch)]
            if not finite.all():
                name = split.examples[done + int(np.argmin(finite))].name
                raise DatasetError(
                    f"{name}: its features are NaN, infinite or too large for float32; look at the"
                    " image and at --weights"
                )
            yield np.asarray(features)[: len(batch)]
            done += len(batch)


def make_embedding(config: Config, layout: devices.Layout | None = None) -> Callable:
    """What an `Embedder` calls: `(backbone, images) -> (patches, finite)`, compiled once."""

    def embed(state, images, *, apply):
        features, finite = _merged(config, apply(state, images), config.grid)
        return features.reshape(features.shape[0], -1, features.shape[-1]), finite

    return _compiled(embed, layout)


def make_stream_embedding(
    config: Config, streams: Sequence[Stream], layout: devices.Layout | None = None
) -> Callable:
    """The same for streams of one image size, whose patches lie one after the other.

    The patches are `[B, 1, F]` with `F = sum h w D`.
    """

    def embed(state, images, *, apply):
        levels = apply(state, images)
        found = [_merged(config, {s.level: levels[s.level]}, s.grid) for s in streams]
        flat = [features.reshape(features.shape[0], 1, -1) for features, _ in found]
        return jnp.concatenate(flat, axis=-1), jnp.all(jnp.stack([ok for _, ok in found]), axis=0)

    return _compiled(embed, layout)


def _merged(config: Config, levels: Mapping[str, jax.Array], grid: int):
    """The patches of some levels, `[B, h, w, D]`, and which images' are finite, `[B]`."""
    features = patches.merge_levels(levels, (grid, grid))
    # Squares, as distances need them; and before the norm could hide anything.
    finite = jnp.all(jnp.isfinite(jnp.sum(features**2, axis=-1)), axis=(1, 2))
    return patches.unit_norm(features) if config.unit_norm else features, finite


def _compiled(embed: Callable, layout: devices.Layout | None) -> Callable:
    compiled = devices.spread(embed, layout, static=("apply",))
    return lambda backbone, images: compiled(backbone.state, images, apply=backbone.embed)


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


def pad(batch: np.ndarray, size: int) -> np.ndarray:
    """A batch `[n, ...]` with zeros up to `[size, ...]`, so that one shape compiles once."""
    missing = size - len(batch)
    return np.pad(batch, ((0, missing), *[(0, 0)] * (batch.ndim - 1))) if missing else batch


def make_detector(embedder: Embedder) -> detectors.Detector:
    """The detector with one bank, of the levels that the embedder's configuration names."""
    config = embedder.config

    def fit_category(category: loading.Checked) -> detectors.Fitted:
        train = loading.views(category.train)
        num_atoms = config.num_atoms(num_patches(train, config.grid))
        num_own = len(devices.share(len(train.owners), embedder.layout))
        embedding = partial(progress.bar, f"{category.name}: embedding", num_own, "images")
        sampling = partial(progress.bar, f"{category.name}: sampling", num_atoms, "atoms")
        bank, notes, seconds = fit(embedder, train, embedding, sampling)
        states = dict.fromkeys(config.solvers, bank)
        origins = bank_origins(config, bank, train)
        return detectors.Fitted(states, int(jnp.sum(bank.weights > 0)), notes, seconds, (origins,))

    layout = embedder.layout
    scorers = {solver: make_scorer(config, solver, layout=layout) for solver in config.solvers}
    parts = {solver: partial(_only_part, scorer) for solver, scorer in scorers.items()}
    put = partial(devices.put, layout=layout)
    place = partial(
        devices.place_bank, config=config, layout=layout, chunk_size=chunk_size(config.solver)
    )
    return detectors.Detector(
        fit_category, embedder.batches, scorers, embedder.batch_size, parts, put, place
    )


def _only_part(scorer: Callable, bank: types.Bank, features: jax.Array) -> jax.Array:
    """What the one bank adds to the maps: all of them."""
    return scorer(bank, features)[0][None]


def patch_weights(seen: loading.Views, grid: int) -> np.ndarray:
    """1 for every patch that shows an image, 0 for one of padding; `[V, P]` float32."""
    if seen.extents is None:
        return np.ones((len(seen.owners), grid**2), np.float32)
    shown = jax.device_get(of_squares.inside(seen.extents, (grid, grid)))
    return shown.reshape(len(shown), -1).astype(np.float32)


def num_patches(seen: loading.Views, grid: int) -> int:
    """How many patches show an image."""
    return int(patch_weights(seen, grid).sum())


def bank_origins(config: Config, bank: types.Bank, train: loading.Views) -> detectors.Origins:
    """Of a bank that was chosen from all patches of all images."""
    if config.subspaces != "implicit":
        return detectors.no_origins(len(bank.weights))
    cells = np.arange(config.grid**2)
    picks = np.broadcast_to(cells, (len(train.owners), len(cells)))
    return detectors.origins(bank.indices, picks, train.owners)


def fit(
    embedder: Embedder, train: loading.Views, embedding: Progress, sampling: Progress
) -> tuple[types.Bank, list[str], detectors.Seconds]:
    """The bank of a category's training images.

    Args:
      embedder: for the images.
      train: what is seen of the training images.
      embedding: makes a context in which images embedded are reported.
      sampling: and one for atoms chosen.

    Returns:
      The bank, notes on how it was made, and the time it took.

    Raises:
      DatasetError: if features are not finite.
    """
    config, weights = embedder.config, patch_weights(train, embedder.config.grid)
    num_atoms = config.num_atoms(int(weights.sum()))
    key = jax.random.key(config.seed)
    if config.sampler == choices.STREAMING:
        with embedding() as report:
            bank, notes, seconds = _fit_streaming(
                key, embedder, train.split, weights, num_atoms, report
            )
        start = time.perf_counter()
        bank = jax.block_until_ready(learn(config, key, bank))
        learning = time.perf_counter() - start
        bank = devices.place_bank(bank, config, embedder.layout, chunk_size(config.solver))
        return bank, notes, seconds._replace(sample=seconds.sample + learning)

    start = time.perf_counter()
    with embedding() as report:
        points = gather(embedder, train.split, report)
    embedded = time.perf_counter()
    with sampling() as report:
        made = make_bank(config, key, points, weights.reshape(-1), num_atoms, report)
        bank = jax.block_until_ready(made)
    bank = processes.agreed(bank)
    bank = devices.place_bank(bank, config, embedder.layout, chunk_size(config.solver))
    return bank, [], detectors.Seconds(embedded - start, time.perf_counter() - embedded)


def make_bank(
    config: Config,
    key: jax.Array,
    points: jax.Array | devices.Rows,
    weights: np.ndarray,
    num_atoms: int,
    report: Report,
) -> types.Bank:
    """The bank that coders run on: patches chosen from `points [N, D]`, or what is learned.

    Those of weight 0, of `weights [N]`, do not count.
    """
    if config.subspaces == "dictionary":
        learned = jax.jit(choices.make_dictionary(config), static_argnums=3)
        bank = learned(key, points, weights, num_atoms)
        report(num_atoms)
        return bank
    if isinstance(points, devices.Rows):
        bank = _sample_spread(key, points, weights, num_atoms, report)
    else:
        bank = sample(choices.make_sampler(config), key, points, weights, num_atoms, report)
    return learn(config, key, bank)


def learn(config: Config, key: jax.Array, bank: types.Bank) -> types.Bank:
    """The bank of the subspaces that a bank of patches lies in; `implicit` leaves it as it is."""
    if config.subspaces not in choices.SUBSPACE_LEARNERS:
        return bank
    return jax.jit(choices.make_learner(config))(jax.random.fold_in(key, 1), bank)


def sample(
    sampler: choices.Sampler,
    key: jax.Array,
    points: jax.Array,
    weights: np.ndarray,
    num_atoms: int,
    report: Report,
) -> types.Bank:
    """The bank that a sampler chooses, as `pipeline.fit` would, with progress."""
    advance = jax.jit(sampler.advance, donate_argnums=0)
    selection = jax.jit(sampler.start, static_argnums=3)(key, points, weights, num_atoms)
    selection = _in_steps(advance, selection, points, num_atoms, report)
    return types.make_bank(points, selection)


def _in_steps(advance: Callable, state: Any, points: jax.Array, num_atoms: int, report: Report):
    """Calls `advance(state, points, upto)` until all slots are filled, telling how far it is."""
    done = 0
    for step in range(1, math.ceil(num_atoms / SAMPLER_STRIDE) + 1):
        state = advance(state, points, min(step * SAMPLER_STRIDE, num_atoms))
        count = int(state.count)
        report(count - done)
        done = count
    return state


def _sample_spread(
    key: jax.Array, points: devices.Rows, weights: np.ndarray, num_atoms: int, report: Report
) -> types.Bank:
    """The bank that k-center chooses of patches that no device holds all of; whole on the host."""
    start, advance = spread_sampler(points.padded.sharding.mesh)
    state = start(key, points.padded, devices.place_weights(weights, points), num_atoms)
    state = _in_steps(advance, state, points.padded, num_atoms, report)
    # Of a run's own devices, wherever it was chosen.
    return jax.tree.map(jnp.asarray, jax.device_get(sharding.bank_of(state)))


@functools.lru_cache(1)
def spread_sampler(mesh: jax.sharding.Mesh) -> tuple[Callable, Callable]:
    """k-center in two parts, compiled for points that are spread over a mesh."""
    # Every device goes through the pools of all, which together are to be those of one device.
    pool_size = max(_LEAST_POOL, _POOL // mesh.size)

    def start_over_patches(key, points, weights, num_atoms):
        return sharding.k_center_start_over_patches(key, points, weights, num_atoms, mesh=mesh)

    def advance_over_patches(state, points, upto):
        return sharding.k_center_advance_over_patches(
            state, points, upto, mesh=mesh, pool_size=pool_size
        )

    return (
        jax.jit(start_over_patches, static_argnums=3),
        jax.jit(advance_over_patches, donate_argnums=0),
    )


def place(
    config: Config, points: np.ndarray, shape: tuple[int, int], layout: devices.Layout | None
) -> jax.Array | devices.Rows:
    """Patches where `make_bank` wants them: on the device, or spread over all.

    Args:
      config: of the run.
      points: `[n, D]`: those of this process's share of the training images.
      shape: how many training images there are, and patches of each.
      layout: of the run.
    """
    if not devices.is_spread(config, layout):
        return jnp.asarray(processes.concatenated(points))
    return devices.place([points], layout, shape, points.shape[1])


def gather(embedder: Embedder, split: loading.Split, report: Report) -> jax.Array | devices.Rows:
    """All patches of a split, `[N, D]`, image after image: on the device, or spread over all."""
    patches_each, features = embedder.patch_shape
    num_images = len(split.examples)
    split = split.take(devices.share(num_images, embedder.layout))
    if not devices.is_spread(embedder.config, embedder.layout):
        points = _gather(embedder, split, report)
        if processes.count() == 1:
            return points
        return jnp.asarray(processes.concatenated(np.asarray(points)))

    def blocks() -> Iterator[np.ndarray]:
        for batch in embedder.batches(split, cached=CACHED_IMAGES):
            yield batch.reshape(-1, features)
            report(len(batch))

    return devices.place(blocks(), embedder.layout, (num_images, patches_each), features)


def _gather(embedder: Embedder, split: loading.Split, report: Report) -> jax.Array:
    patches_each, features = embedder.patch_shape
    stored = jnp.empty((len(split.examples) * patches_each, features), jnp.float32)
    done = 0
    for batch in embedder.batches(split, cached=CACHED_IMAGES):
        stored = _put(stored, batch.reshape(-1, features), done * patches_each)
        done += len(batch)
        report(len(batch))
    return stored


def _fit_streaming(
    key: jax.Array,
    embedder: Embedder,
    split: loading.Split,
    weights: np.ndarray,
    num_atoms: int,
    report: Report,
) -> tuple[types.Bank, list[str], detectors.Seconds]:
    """Folds the patches into the bank block by block; memory does not grow with the images."""
    config = embedder.config
    patches_each, features = config.grid**2, num_features(config)
    images_held = max(1, -(-max(STREAM_PATCHES, 3 * num_atoms) // patches_each))
    images_held = -(-images_held // embedder.batch_size) * embedder.batch_size
    held = images_held * patches_each

    fold = jax.jit(streaming.fold, donate_argnums=1)
    core = streaming.empty(num_atoms, features)
    block, filled = jnp.zeros((held, features), jnp.float32), 0
    waiting = weights.reshape(-1)  # of the patches that have not been folded in
    start, sample_seconds = time.perf_counter(), 0.0
    batches = embedder.batches(split)
    for batch in itertools.chain(batches, [None]):
        if batch is not None:
            block = _put(block, batch.reshape(-1, features), filled)
            filled += len(batch) * patches_each
            report(len(batch))
        if filled == held or (batch is None and filled):
            began = time.perf_counter()
            own, waiting = pad(waiting[:filled], held), waiting[filled:]
            core = jax.block_until_ready(fold(key, core, block, own))
            sample_seconds += time.perf_counter() - began
            filled = 0
    began = time.perf_counter()
    covered = _covered(embedder, split, weights, core)
    radius = float(streaming.covering_radius(core if covered is None else covered))
    sample_seconds += time.perf_counter() - began
    notes = [
        f"streamed: every nominal patch lies within {radius:.4g} of an atom"
        + (" (a bound: the embeddings are not cached)" if covered is None else " (measured)")
    ]
    spent = time.perf_counter() - start
    return streaming.to_bank(core), notes, detectors.Seconds(spent - sample_seconds, sample_seconds)


def _covered(
    embedder: Embedder, split: loading.Split, weights: np.ndarray, core: streaming.Core
) -> streaming.Core | None:
    """The core with its reach measured in a second pass; None if that would embed once more."""
    blocks = embedder.cached(split, CACHED_IMAGES)
    if blocks is None:
        return None
    cover = jax.jit(streaming.cover)
    core, done = streaming.uncovered(core), 0
    for block in blocks:
        rows = pad(block, CACHED_IMAGES).reshape(-1, block.shape[-1])
        own = pad(weights[done : done + len(block)], CACHED_IMAGES).reshape(-1)
        core = cover(core, rows, own)
        done += len(block)
    return core


@partial(jax.jit, donate_argnums=0)
def _put(stored: jax.Array, rows: jax.Array, start: int) -> jax.Array:
    """Writes rows into a buffer in place."""
    return jax.lax.dynamic_update_slice_in_dim(stored, rows, start, axis=0)
