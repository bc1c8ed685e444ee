"""Images scored by a fitted detector: the same compiled functions as fit it, so the same scores."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sgfr_jax.datasets import Example
from sgfr_jax.datasets.geometry import assemble
from sgfr_jax.detector import looks, splits
from sgfr_jax.detector.assembly import Whole
from sgfr_jax.detector.model import Detector
from sgfr_jax.detector.stages import Stages


def make_scorer(
    detector: Detector, stages: Stages
) -> Callable[[Sequence[np.ndarray]], Iterator[Whole]]:
    """What scores images: `[uint8 [H, W] or [H, W, 3], ...] -> Whole, ...`, in order.

    Args:
      detector: fitted.
      stages: of it, from `model.stages_of`: their programs take long to compile.
    """
    states = {detector.method.solver: stages.services.replicate(detector.state)}

    def score(images: Sequence[np.ndarray]) -> Iterator[Whole]:
        split = splits.laid(splits.of_arrays(images), detector.method.geometries)
        found = looks.whole_images(split, stages, states)
        for example, (whole,) in zip(split.examples, found, strict=True):
            yield with_surroundings(whole, example)

    return score


def with_surroundings(found: Whole, example: Example) -> Whole:
    """With the map of the whole image, where a part of it was looked at."""
    if example.window is None:
        return found
    shape = example.image.shape[:2]
    return found._replace(anomaly_map=assemble(found.anomaly_map[None], [example.window], shape))
