"""Images looked at in several ways, each with banks of its own: one map and one score.

The whole image, squeezed into one square, shows what belongs together; tiles show where exactly
something is. A detector is fitted to either (`experiments.fitting`), and what it makes of nominal
images that it has not seen says what its numbers mean. So measured, maps and scores are averaged.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import assembly, detectors, loading
from experiments.assembly import Whole
from sgfr_jax.datasets import DatasetError, Example
from sgfr_jax.datasets.geometry import to_size

# A spread below this is none.
_LEAST_SPREAD = 1e-6


class Nominal(NamedTuple):
    """What nominal images come to in each of `L` looks; float32 `[L]`."""

    map_mean: jax.Array
    map_spread: jax.Array
    score_mean: jax.Array
    score_spread: jax.Array


class Several(NamedTuple):
    """The state of a detector for each look, where there are several."""

    looks: tuple[Any, ...]
    nominal: Nominal


def states(state: Any) -> tuple[Any, ...]:
    """The state for each look."""
    return state.looks if isinstance(state, Several) else (state,)


def whole_images(
    images: loading.Split,
    detector: detectors.Detector,
    fitted: Mapping[str, Any],
    seconds: list[float],
) -> Iterator[tuple[Whole, ...]]:
    """What every solver makes of each image, in order.

    Args:
      images: as they are to be looked at.
      detector: that scores.
      fitted: its states, by the solvers' names.
      seconds: of each solver; the time that scoring takes is added to it.

    Raises:
      DatasetError: if a score is not finite.
    """
    of_looks = [
        _of_one_look(look, detector, {name: states(s)[i] for name, s in fitted.items()}, seconds)
        for i, look in enumerate(loading.looks(images))
    ]
    for found in zip(*of_looks, strict=True):
        by_solver = zip(fitted.values(), zip(*found, strict=True), strict=True)
        yield tuple(together(state, of_solver) for state, of_solver in by_solver)


def _of_one_look(
    images: loading.Split,
    detector: detectors.Detector,
    fitted: Mapping[str, Any],
    seconds: list[float],
) -> Iterator[tuple[Whole, ...]]:
    seen = loading.views(images)
    wholes = [assembly.Assembly(images, detector, *of_solver) for of_solver in fitted.items()]
    viewed, began = 0, time.perf_counter()
    for batch in assembly.batches(detector, seen):
        shared = time.perf_counter() - began
        found = []
        for i, (state, whole) in enumerate(zip(fitted.values(), wholes, strict=True)):
            began = time.perf_counter()
            maps, scores = jax.device_get(whole.score(state, batch.patches, batch.extents))
            _check_finite(scores[: batch.num], seen.split.examples[viewed:])
            found.append(whole.add(maps[: batch.num], scores[: batch.num]))
            seconds[i] += shared + time.perf_counter() - began
        viewed += batch.num
        yield from zip(*found, strict=True)
        began = time.perf_counter()


def together(state: Any, found: Sequence[Whole]) -> Whole:
    """What all looks make of an image.

    Args:
      state: of the detector.
      found: what each look makes of it.

    Returns:
      Of one look what it finds. Of several the means of their maps and of their scores, each
      standardized on nominal images; the map has the size of the largest.
    """
    if not isinstance(state, Several):
        (alone,) = found
        return alone
    nominal = jax.tree.map(np.asarray, state.nominal)
    shape = max((one.anomaly_map.shape for one in found), key=np.prod)
    maps = np.stack([to_size(one.anomaly_map, shape) for one in found])
    maps = (maps - nominal.map_mean[:, None, None]) / nominal.map_spread[:, None, None]
    scores = np.array([one.score for one in found], np.float32)
    scores = (scores - nominal.score_mean) / nominal.score_spread
    return Whole(maps.mean(axis=0), scores.mean())


def summary(found: Sequence[Whole]) -> np.ndarray:
    """Of what each look makes of an image, what `nominal` asks: float64 `[L, 3]`."""
    maps = [one.anomaly_map.astype(float) for one in found]
    return np.array([
        (m.mean(), np.square(m).mean(), one.score) for m, one in zip(maps, found, strict=True)
    ])  # fmt: skip


def nominal(summaries: np.ndarray) -> Nominal:
    """What nominal images come to; each counts as much, whatever its size.

    Args:
      summaries: `[B, L, 3]` of `B` images.
    """
    map_mean, square, score_mean = summaries.mean(axis=0).T
    map_spread = np.sqrt(np.maximum(square - map_mean**2, 0))
    score_spread = summaries[..., 2].std(axis=0)
    # Of one image, or of images without any difference, deviations stay as large as they are.
    spreads = (np.where(x > _LEAST_SPREAD, x, 1) for x in (map_spread, score_spread))
    map_spread, score_spread = spreads
    return Nominal(
        *(jnp.asarray(x, jnp.float32) for x in (map_mean, map_spread, score_mean, score_spread))
    )


def _check_finite(scores: np.ndarray, examples: Sequence[Example]) -> None:
    finite = np.isfinite(scores.reshape(len(scores), -1)).all(axis=1)
    if not finite.all():
        name = examples[int(np.argmin(finite))].name
        raise DatasetError(
            f"{name}: its score is not finite, though its features are: --solver gives codes that"
            " are not; try another, such as affine_ridge"
        )
