"""A detector fitted to a category, in every way that its images are looked at."""

import itertools
import time
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from sgfr_jax.commands.host import processes, progress
from sgfr_jax.detector import (
    detectors,
    loading,
    looks,
    nulls,
)

# Training images, each scored without the atoms it gave, that say what the looks' numbers mean.
NOMINAL_IMAGES = 100


def fit(detector: detectors.Detector, category: loading.Checked, seed: int) -> detectors.Fitted:
    """Fits a detector to a category; where there are several looks, to each of them.

    Args:
      detector: to fit.
      category: of which only the training images are looked at.
      seed: of the choice of images that make the looks comparable.

    Raises:
      DatasetError: if features are not finite.
    """
    each = [detector.fit(look) for look in category.looks()]
    if len(each) == 1:
        return each[0]
    began = time.perf_counter()
    states = {solver: _several(detector, solver, each, category, seed) for solver in each[0].states}
    seconds = np.sum([fitted.seconds for fitted in each], axis=0)
    seconds[-1] += time.perf_counter() - began
    kinds = [geometry.kind for geometry in category.geometries]
    return detectors.Fitted(
        states,
        sum(fitted.num_atoms for fitted in each),
        [f"{kind}: {note}" for kind, f in zip(kinds, each, strict=True) for note in f.notes],
        detectors.Seconds(*seconds.tolist()),
        tuple(itertools.chain.from_iterable(fitted.origins for fitted in each)),
        tuple(sorted(set().union(*(fitted.calibrated_on for fitted in each)))),
    )


def _several(
    detector: detectors.Detector,
    solver: str,
    each: Sequence[detectors.Fitted],
    category: loading.Checked,
    seed: int,
) -> looks.Several:
    """The states of one solver, and what nominal images come to in each look."""
    known = set().union(*(fitted.calibrated_on for fitted in each))
    num_images = len(category.train.examples)
    chosen = nulls.choose(num_images, known, seed, at_most=NOMINAL_IMAGES)
    mine = [chosen[i] for i in processes.share(len(chosen))]
    givers = nulls.givers(mine, num_images)
    states = [fitted.states[solver] for fitted in each]
    origins = [fitted.origins for fitted in each]
    split, found = category.train.take(mine), []
    with progress.bar(f"{category.name}: comparing looks", len(mine), "images") as report:
        wholes = nulls.of_looks(detector, solver, states, origins, split, givers)
        for example, of_image in zip(split.examples, wholes, strict=True):
            looks.check_finite(example, of_image)
            found.append(looks.summary(of_image))
            report(1)
    nominal = looks.nominal(np.array(processes.joined(found)))
    whole = jnp.array([geometry.kind != "tile" for geometry in category.geometries])
    return looks.Several(tuple(states), nominal, whole)


def apart(fitted: detectors.Fitted) -> list[detectors.Fitted]:
    """What is fitted to each look, with the banks and their origins alone."""
    state = next(iter(fitted.states.values()))
    found = []
    for i, own in enumerate(nulls.by_look(state, fitted.origins)):
        states = {solver: looks.states(s)[i] for solver, s in fitted.states.items()}
        found.append(fitted._replace(states=states, origins=own))
    return found
