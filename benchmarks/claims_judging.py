"""Banks, scores and figures of `benchmarks.claims`."""

import functools
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import sgfr_jax as sgfr
from benchmarks import kernel_codes
from benchmarks.claims_data import Images
from sgfr_jax import metrics, pipeline, types

RIDGE = 1e-3
SAMPLERS = {
    "uniform": sgfr.uniform,
    "k_center": sgfr.greedy_k_center,
    "k_medoids": partial(sgfr.k_medoids, start=sgfr.greedy_k_center, num_iterations=10),
    "support_frequency": partial(
        sgfr.support_frequency, code=partial(sgfr.omp, sparsity=5), chunk_size=64
    ),
    "self_representation": sgfr.self_representation,
}
# Of these the first `m` of `M` choices are the choice of `m`, given the same key.
NESTED = ("uniform", "k_center", "support_frequency", "self_representation")


def choose(sampler: str, seed: int, points: jax.Array, num: int, **more) -> jax.Array:
    """Indices of `num` of the points `[N, D]` in the order of choice."""
    sample = _sample(sampler, num, **more)
    return sample(jax.random.key(seed), points, jnp.ones(len(points))).indices


def bank_of(points: jax.Array, indices: jax.Array) -> types.Bank:
    """The bank of some points."""
    return types.Bank(points[indices], jnp.ones(len(indices)), indices)


@functools.cache
def affine(num_neighbors: int = 10, ridge: float = RIDGE) -> Callable:
    """The coder that most claims are about."""
    return partial(
        sgfr.local_code, num_neighbors=num_neighbors, solve=partial(sgfr.affine_ridge, ridge=ridge)
    )


def scores(images: Images, bank: types.Bank, code: Callable) -> np.ndarray:
    """Residuals `[B, P]`."""
    return _score(code)(bank, jnp.asarray(images.patches))[0].reshape(images.features.shape[:2])


def both_scores(images: Images, bank: types.Bank, num_neighbors: int = 10):
    """Residuals `[B, P]` of the nearest atom and of the affine code: one search serves both."""
    code = affine(min(num_neighbors, len(bank.atoms)))
    targets = jnp.asarray(images.patches)
    found, owner = _score(code)(bank, targets)
    nearest = _distance(targets, bank.atoms, owner)
    shape = images.features.shape[:2]
    return np.asarray(nearest).reshape(shape), np.asarray(found).reshape(shape)


def kernel(images: Images, bank: types.Bank, bandwidth: float, num_neighbors: int) -> np.ndarray:
    """Kernel codes' residuals `[B, P]`."""
    targets = jnp.asarray(images.patches)
    found = _kernel(num_neighbors)(targets, bank, jnp.float32(bandwidth))
    return np.asarray(found).reshape(images.features.shape[:2])


def judge(images: Images, found: np.ndarray) -> dict[str, float]:
    """The four metrics of a test set, x 100."""
    maps, labels = _maps(images, found), images.kinds != "good"
    result = metrics.evaluate(maps.max(axis=(1, 2)), labels, maps, images.masks)
    return {
        "pixel AP": 100 * result.pixel_ap,
        "pixel AUROC": 100 * result.pixel_auroc,
        "AUPRO": 100 * result.aupro,
        "image AUROC": 100 * result.image_auroc,
    }


def false_alarms(images: Images, found: np.ndarray) -> dict[str, float]:
    """False positive rates at given detection, x 100: pixels are those of nominal images."""
    maps, labels = _maps(images, found), images.kinds != "good"
    detected = maps[labels][images.masks[labels]]
    nominal = maps[~labels].ravel()
    pixels = metrics.rank(
        np.concatenate([detected, nominal]), np.arange(detected.size + nominal.size) < detected.size
    )
    whole = metrics.rank(maps.max(axis=(1, 2)), labels)
    return {
        "image FPR at 90% TPR": 100 * _false_rate(whole, 0.9),
        "pixel FPR at 90% TPR": 100 * _false_rate(pixels, 0.9),
        "pixel FPR at 50% TPR": 100 * _false_rate(pixels, 0.5),
        "image AUROC": 100 * metrics.roc_area(whole),
    }


def covered(images: Images, share: float = 0.25) -> np.ndarray:
    """Which patches `[B, P]` lie to that share in a defect."""
    side = round(images.features.shape[1] ** 0.5)
    cell = images.masks.shape[1] // side
    cells = images.masks.reshape(-1, side, cell, side, cell).mean(axis=(2, 4))
    return cells.reshape(len(cells), -1) >= share


def _false_rate(ranking, recall):
    return float(
        ranking.false_positives[np.argmax(ranking.recall >= recall)] / ranking.num_negatives
    )


def _maps(images, found):
    side = round(found.shape[1] ** 0.5)
    size = images.masks.shape[1]
    maps = _blur(jnp.asarray(found).reshape(-1, side, side), size)
    return np.asarray(maps)


@functools.cache
def _sample(sampler, num, **more):
    return jax.jit(partial(SAMPLERS[sampler], num=num, **more))


@functools.cache
def _score(code):
    return jax.jit(partial(pipeline.score_and_owner, code=code))


@functools.cache
def _kernel(num_neighbors):
    def of_all(targets, bank, bandwidth):
        def of_chunk(chunk):
            return kernel_codes.kernel_scores(
                chunk, bank, num_neighbors=num_neighbors, ridge=RIDGE, bandwidth=bandwidth
            )

        chunk = 256 if len(targets) % 256 == 0 else len(targets)
        return jax.lax.map(of_chunk, targets.reshape(-1, chunk, targets.shape[1])).reshape(-1)

    return jax.jit(of_all)


@jax.jit
def _distance(targets, atoms, owner):
    return jnp.linalg.norm(targets - atoms[owner], axis=-1)


@functools.partial(jax.jit, static_argnums=1)
def _blur(grids, size):
    # Sigma 4 at 256 pixels.
    return sgfr.anomaly_map(grids, (size, size), sigma=size / 64)
