"""Images looked at in several ways, each with banks of its own: one map and one score.

The whole image, squeezed into one square, shows what belongs together; tiles show where exactly
something is. A detector is fitted to either (`fitting`), and what it makes of nominal
images that it has not seen says what its numbers mean. So measured, maps are averaged. Whole images
tell which of them are defective; tiles have a say in that where they find what is far from nominal,
such as a defect too small to be seen in a whole image.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax.datasets import DatasetError, Example
from sgfr_jax.datasets.geometry import to_size
from sgfr_jax.detector import assembly, splits
from sgfr_jax.detector.assembly import Whole
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.splits import Split
from sgfr_jax.detector.stages import Stages
from sgfr_jax.detector.state import Look, Nominal, State, usable
from sgfr_jax.maps import image_prior

# Tiles add to an image's score where they score more than this number of spreads beyond nominal.
_FAR = 3.0


# Told the seconds that scoring takes, by solver.
Spent = Callable[[str, float], None]


def _untimed(solver: str, seconds: float) -> None:
    del solver, seconds


def whole_images(
    images: Split, stages: Stages, states: Mapping[str, State], spent: Spent = _untimed
) -> Iterator[tuple[Whole, ...]]:
    """What every solver makes of each image, in order.

    Args:
      images: as they are to be looked at.
      stages: that score.
      states: by solver.
      spent: told the time that scoring takes.

    Raises:
      DatasetError: if features are not finite.
    """
    for found in apart(images, stages, states, spent):
        by_solver = zip(states.values(), found, strict=True)
        yield tuple(together(stages.method, state, each) for state, each in by_solver)


def apart(
    images: Split, stages: Stages, states: Mapping[str, State], spent: Spent = _untimed
) -> Iterator[tuple[tuple[Whole, ...], ...]]:
    """What every solver makes of each look at each image; arguments as of `whole_images`."""
    every_look, each = splits.looks(images), []
    for i, split in enumerate(every_look):
        own = {solver: state.looks[i] for solver, state in states.items()}
        each.append(_one_look(split, stages, own, spent, alone=len(every_look) == 1))
    for found in zip(*each, strict=True):
        yield tuple(zip(*found, strict=True))


def _one_look(
    images: Split, stages: Stages, looks: Mapping[str, Look], spent: Spent, *, alone: bool
) -> Iterator[tuple[Whole, ...]]:
    seen = splits.views(images)
    wholes = {
        solver: assembly.Assembly(images, stages.programs[solver], look, alone=alone)
        for solver, look in looks.items()
    }
    began = time.perf_counter()
    for batch in assembly.batches(stages, seen):
        shared = time.perf_counter() - began
        found = []
        for solver, look in looks.items():
            began, whole = time.perf_counter(), wholes[solver]
            maps, scores = jax.device_get(whole.score(look, batch.patches, batch.extents))
            found.append(whole.add(maps[: batch.num], scores[: batch.num]))
            spent(solver, shared + time.perf_counter() - began)
        yield from zip(*found, strict=True)
        began = time.perf_counter()


def together(method: Method, state: State, found: Sequence[Whole]) -> Whole:
    """What all looks make of an image.

    Args:
      method: that scores.
      state: of the detector.
      found: what each look makes of the image.

    Returns:
      Of one look what it finds. Of several the mean of their maps, each standardized on nominal
      images, at the size of the largest; and the mean of the scores of looks that show the image
      whole, also standardized, to which the score of tiles is added as far as it is `_FAR` beyond
      nominal. The mean has `maps.breadth` and `maps.image_prior` added.
    """
    if len(state.looks) == 1:
        (alone,) = found
        return alone
    shape = max((one.anomaly_map.shape for one in found), key=np.prod)
    total = np.zeros(shape, np.float32)
    for one, (mean, divisor) in zip(found, scales(state), strict=True):
        # One map and one row at a time: photographs are large.
        for row, values in zip(total, to_size(one.anomaly_map, shape), strict=True):
            row += (values - mean) / divisor
    score = score_together(state, np.array([one.score for one in found], np.float32))
    added = image_prior(score, share=method.image_prior)
    total += np.float32(method.breadth * np.mean(total)) + np.asarray(added)
    return Whole(total, score)


def score_together(state: State, scores: np.ndarray) -> np.ndarray:
    """As `together`, the scores `[...]` of images alone, of float32 `[..., L]` in every look."""
    if len(state.looks) == 1:
        return scores[..., 0]
    mean, spread = np.asarray(state.nominal.score_mean), np.asarray(state.nominal.score_spread)
    standard, whole = (scores - mean) / spread, np.asarray(state.whole)
    of_tiles = np.maximum(standard[..., ~whole] - np.float32(_FAR), 0).sum(axis=-1)
    return standard[..., whole].mean(axis=-1) + of_tiles


def scales(state: State) -> list[tuple[float, float]]:
    """For each look the mean `m` and the divisor `d` by which its map is a part of all looks' one.

    The map that `together` makes is the sum of `(map - m) / d` over the looks, but for what the
    image as a whole adds everywhere.
    """
    if len(state.looks) == 1:
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

    found = Nominal(map_mean, usable(map_spread), score_mean, usable(score_spread))
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), found)


def check_finite(example: Example, found: Sequence[Whole]) -> None:
    """Raises DatasetError if a score of an image is not finite."""
    if not np.isfinite([one.score for one in found]).all():
        raise DatasetError(
            f"{example.name}: its score is not finite, though its features are: the `solver` gives"
            " codes that are not; try another, such as affine_ridge"
        )
