"""Images looked at in several ways, each with banks of its own: one map and one score.

The whole image, squeezed into one square, shows what belongs together; tiles show where exactly
something is. A detector is fitted to either (`fitting`), and what it makes of nominal
images that it has not seen says what its numbers mean. So measured, maps are averaged. Whole images
tell which of them are defective; tiles have a say in that where they find what is far from nominal,
such as a defect too small to be seen in a whole image.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax.datasets import DatasetError, Example
from sgfr_jax.datasets.geometry import to_size
from sgfr_jax.detector import assembly, detectors, loading
from sgfr_jax.detector.assembly import Whole
from sgfr_jax.maps import image_prior

# A spread below this is none.
_LEAST_SPREAD = 1e-6
# What tiles score adds to an image's score if it is so many spreads beyond nominal.
_FAR = 3.0


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
    whole: jax.Array  # [L] bool: which looks show an image whole, and not in tiles; one at least


def states(state: Any) -> tuple[Any, ...]:
    """The state for each look."""
    return state.looks if isinstance(state, Several) else (state,)


def each(function: Callable, state: Any) -> Any:
    """The state with what a function makes of every look's."""
    return with_states(state, list(map(function, states(state))))


def with_states(state: Any, new: Sequence[Any]) -> Any:
    """The state with others in the places of every look's."""
    return state._replace(looks=tuple(new)) if isinstance(state, Several) else new[0]


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
    """
    for found in apart(images, detector, fitted, seconds):
        by_solver = zip(fitted.values(), found, strict=True)
        yield tuple(together(detector, state, of_solver) for state, of_solver in by_solver)


def apart(
    images: loading.Split,
    detector: detectors.Detector,
    fitted: Mapping[str, Any],
    seconds: list[float],
) -> Iterator[tuple[tuple[Whole, ...], ...]]:
    """What every solver makes of each look at each image; arguments as of `whole_images`."""
    each_look, of_looks = loading.looks(images), []
    for i, look in enumerate(each_look):
        own = {name: states(state)[i] for name, state in fitted.items()}
        of_looks.append(_of_one_look(look, detector, own, seconds, alone=len(each_look) == 1))
    for found in zip(*of_looks, strict=True):
        yield tuple(zip(*found, strict=True))


def _of_one_look(
    images: loading.Split,
    detector: detectors.Detector,
    fitted: Mapping[str, Any],
    seconds: list[float],
    *,
    alone: bool,
) -> Iterator[tuple[Whole, ...]]:
    seen = loading.views(images)
    wholes = [
        assembly.Assembly(images, detector, *of_solver, alone=alone) for of_solver in fitted.items()
    ]
    began = time.perf_counter()
    for batch in assembly.batches(detector, seen):
        shared = time.perf_counter() - began
        found = []
        for i, (state, whole) in enumerate(zip(fitted.values(), wholes, strict=True)):
            began = time.perf_counter()
            maps, scores = jax.device_get(whole.score(state, batch.patches, batch.extents))
            found.append(whole.add(maps[: batch.num], scores[: batch.num]))
            seconds[i] += shared + time.perf_counter() - began
        yield from zip(*found, strict=True)
        began = time.perf_counter()


def together(detector: detectors.Detector, state: Any, found: Sequence[Whole]) -> Whole:
    """What all looks make of an image.

    Args:
      detector: that scores.
      state: of it.
      found: what each look makes of it.

    Returns:
      Of one look what it finds. Of several the mean of their maps, each standardized on nominal
      images, at the size of the largest; and the mean of the scores of those that show the image
      whole, also standardized, with that of tiles added as far as it is `_FAR` beyond nominal.
      The mean has `maps.breadth` and `maps.image_prior` added.
    """
    if not isinstance(state, Several):
        (alone,) = found
        return alone
    shape = max((one.anomaly_map.shape for one in found), key=np.prod)
    total = np.zeros(shape, np.float32)
    for one, (mean, divisor) in zip(found, scales(state), strict=True):
        # One map and one row at a time: photographs are large.
        for row, values in zip(total, to_size(one.anomaly_map, shape), strict=True):
            row += (values - mean) / divisor
    score = score_together(state, np.array([one.score for one in found], np.float32))
    added = image_prior(score, share=detector.image_prior)
    total += np.float32(detector.breadth * np.mean(total)) + np.asarray(added)
    return Whole(total, score)


def score_together(state: Any, scores: np.ndarray) -> np.ndarray:
    """As `together`, the scores `[...]` of images alone, of float32 `[..., L]` in every look."""
    if not isinstance(state, Several):
        return scores[..., 0]
    mean, spread = np.asarray(state.nominal.score_mean), np.asarray(state.nominal.score_spread)
    standard, whole = (scores - mean) / spread, np.asarray(state.whole)
    of_tiles = np.maximum(standard[..., ~whole] - np.float32(_FAR), 0).sum(axis=-1)
    return standard[..., whole].mean(axis=-1) + of_tiles


def scales(state: Any) -> list[tuple[float, float]]:
    """For each look the mean `m` and the divisor `d` by which its map is a part of all looks' one.

    The map that `together` makes is the sum of `(map - m) / d` over the looks, but for what the
    image as a whole adds everywhere.
    """
    if not isinstance(state, Several):
        return [(0.0, 1.0)]
    nominal = jax.device_get(state.nominal)
    divisors = nominal.map_spread * len(state.looks)
    return list(zip(nominal.map_mean.tolist(), divisors.tolist(), strict=True))


def summary(found: Sequence[Whole]) -> np.ndarray:
    """Of what each look makes of an image, what `nominal` asks: float64 `[L, 3]`."""
    return np.array([
        (np.mean(m, dtype=float), np.mean(np.square(m), dtype=float), score) for m, score in found
    ])  # fmt: skip


def nominal(summaries: np.ndarray) -> Nominal:
    """What nominal images come to; each counts as much, whatever its size.

    Args:
      summaries: `[B, L, 3]` of `B` images.
    """
    map_mean, square, score_mean = summaries.mean(axis=0).T
    map_spread = np.sqrt(np.maximum(square - map_mean**2, 0))
    score_spread = summaries[..., 2].std(axis=0)

    def usable(spread: np.ndarray) -> np.ndarray:
        # Of one image, or of images without any difference, deviations stay as large as they are.
        return np.where(spread > _LEAST_SPREAD, spread, 1)

    found = Nominal(map_mean, usable(map_spread), score_mean, usable(score_spread))
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), found)


def check_finite(example: Example, found: Sequence[Whole]) -> None:
    """Raises DatasetError if a score of an image is not finite."""
    if not np.isfinite([one.score for one in found]).all():
        raise DatasetError(
            f"{example.name}: its score is not finite, though its features are: --solver gives"
            " codes that are not; try another, such as affine_ridge"
        )
