"""Patches of nominal images to a bank: which patches count, where they lie, which are chosen."""

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax import extents as of_squares
from sgfr_jax import sharding, streaming, types
from sgfr_jax.commands.flags.config import Config, num_features
from sgfr_jax.commands.host import devices, processes
from sgfr_jax.detector import choices, detectors, loading
from sgfr_jax.detector.embedding import Embedder, pad

# Choices between two reports of a sampler's progress.
SAMPLER_STRIDE = 512
# Points that a round of k-center over several devices goes through, and those of each at least.
_POOL, _LEAST_POOL = 2048, 8
# Images whose embeddings are read at a time when all of them are wanted.
CACHED_IMAGES = 128
# Patches that a streaming sampler holds beside its core: at least this many.
STREAM_PATCHES = 1 << 16

Report = Callable[[int], None]
Progress = Callable[[], AbstractContextManager[Report]]


def patch_weights(seen: loading.Views, grid: int) -> np.ndarray:
    """1 for every patch that shows an image, 0 for one of padding; `[V, P]` float32."""
    if seen.extents is None:
        return np.ones((len(seen.owners), grid**2), np.float32)
    shown = jax.device_get(of_squares.inside(seen.extents, (grid, grid)))
    return shown.reshape(len(shown), -1).astype(np.float32)


def pick(draws: np.ndarray, shown: np.ndarray, num: int) -> np.ndarray:
    """Of each square the patches of its `num` smallest draws, `[V, min(num, P)]`, in that order.

    Args:
      draws: `[V, P]` in [0, 1).
      shown: `[V, P]`; those that are 0 come last.
      num: see above.
    """
    # NumPy's sort: XLA's takes several times as long on a CPU.
    return np.argsort(np.where(shown > 0, draws, 2), axis=1, kind="stable")[:, :num]


def num_patches(seen: loading.Views, grid: int) -> int:
    """How many patches show an image."""
    if seen.extents is None:
        return len(seen.owners) * grid**2
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
        return bank, notes, seconds._replace(sample=seconds.sample + learning)

    start = time.perf_counter()
    with embedding() as report:
        points = gather(embedder, train.split, report)
    embedded = time.perf_counter()
    with sampling() as report:
        made = make_bank(config, key, points, weights.reshape(-1), num_atoms, report)
        bank = jax.block_until_ready(made)
    return (
        processes.agreed(bank),
        [],
        detectors.Seconds(embedded - start, time.perf_counter() - embedded),
    )


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
    # Of the configuration alone: another size of batch, or number of devices, is the same bank.
    images_held = max(1, -(-max(STREAM_PATCHES, 3 * num_atoms) // patches_each))
    held = images_held * patches_each

    fold = jax.jit(streaming.fold, donate_argnums=1)
    core = streaming.empty(num_atoms, features)
    block, filled = jnp.zeros((held, features), jnp.float32), 0
    waiting = weights.reshape(-1)  # of the patches that have not been folded in
    start, sample_seconds = time.perf_counter(), 0.0
    parts = _cut(embedder.batches(split), images_held)
    for batch in itertools.chain(parts, [None]):
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


def _cut(batches: Iterator[np.ndarray], every: int) -> Iterator[np.ndarray]:
    """Batches `[n, ...]` in parts of which none goes over a multiple of `every` images."""
    done = 0
    for batch in batches:
        while len(batch):
            part = batch[: every - done % every]
            yield part
            done, batch = done + len(part), batch[len(part) :]


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
