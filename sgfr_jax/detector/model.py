"""A fitted detector as one value, made of what a run has fitted."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sgfr_jax import thresholds
from sgfr_jax.datasets import Example
from sgfr_jax.datasets.geometry import Geometry
from sgfr_jax.datasets.types import FULL_RANGE
from sgfr_jax.detector import geometries as ways
from sgfr_jax.detector import held_out, sampling, splits
from sgfr_jax.detector import stages as machinery
from sgfr_jax.detector.fitting import Fitted
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.network import Network
from sgfr_jax.detector.services import PLAIN, Services
from sgfr_jax.detector.splits import Split
from sgfr_jax.detector.stages import Stages
from sgfr_jax.detector.state import Nulls, State
from sgfr_jax.errors import check_type


class About(NamedTuple):
    """What a detector was made of."""

    category: str
    train: tuple[str, ...]  # names of the training images, as `Origins.images` counts them
    paths: tuple[str | None, ...]  # where they lay; None: in no file of their own
    hashes: tuple[str, ...]  # SHA-256 of their contents
    data: str  # SHA-256 of their contents and order
    notes: tuple[str, ...]
    patches: tuple[int, ...]  # that the training images have for each bank
    seed: int  # of the random key
    white: int = FULL_RANGE  # the value of 16-bit images that is read as white
    f1_threshold: float | None = None  # of labelled test images; None: there were none
    made_with: str = "{}"  # versions, as JSON
    source: str = "{}"  # the data set that the images were taken from, as JSON
    record: str = ""  # the digest of the run's record


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Detector:
    """A fitted detector: a pytree whose arrays are what it has learned; all else is static.

    The network's weights are no part of it. A detector equals itself alone, as arrays have no one
    answer to `==`.
    """

    state: State
    nulls: Nulls  # what nominal images score
    method: Method = dataclasses.field(metadata={"static": True})  # with all that was left open
    network: Network = dataclasses.field(metadata={"static": True})
    about: About = dataclasses.field(metadata={"static": True})


def make(
    stages: Stages,
    seed: int,
    train: Split,
    geometries: Sequence[Geometry],
    fitted: Fitted,
    *,
    name: str = "",
    notes: Sequence[str] = (),
    labelled: tuple[np.ndarray, np.ndarray] | None = None,
    made_with: str = "{}",
    source: str = "{}",
    record: str = "",
) -> Detector:
    """The detector of nominal images that have been fitted.

    Training images are scored once more, held out as far as can be (`held_out.nulls`).

    Args:
      stages: that fitted.
      seed: of the random key that they were fitted with (`fitting.seed_of`).
      train: the images, as they are looked at.
      geometries: in which ways.
      fitted: what was fitted to them.
      name: of the category.
      notes: on the images.
      labelled: scores `[B]` and labels `[B]` of test images, for the threshold of the best F1.
      made_with: of `About`, as are `source` and `record`.
      source: see above.
      record: see above.

    Raises:
      DatasetError: if features are not finite.
    """
    state, prefix = fitted.states[stages.method.solver], f"{name}: " if name else ""
    title = f"{prefix}held-out scores"
    nulls, note = held_out.nulls(stages, state, train, fitted.calibrated_on, seed, title)
    best = None
    if labelled is not None and labelled[1].any() and not labelled[1].all():
        best = thresholds.f1_threshold(*labelled)[0]
    about = About(
        name,
        tuple(example.name for example in train.examples),
        tuple(map(path_of, train.examples)),
        splits.of_contents(train.hashes),
        hashlib.sha256("\n".join(train.hashes).encode()).hexdigest(),
        (*notes, *fitted.notes, note),
        num_patches(train, stages),
        seed,
        train.examples[0].white,
        best,
        made_with,
        source,
        record,
    )
    method = ways.as_seen(stages.method, geometries)
    return Detector(state, nulls, method, stages.network, about)


def given(detector: Any) -> Detector:
    """The detector, after checking that it is one; raises ArgumentError otherwise."""
    check_type("detector", detector, Detector, "what `fit_detector`, `load` or `update` returns")
    return detector


def stages_of(detector: Detector, services: Services = PLAIN) -> Stages:
    """The stages that a detector was fitted with, which score, explain and embed."""
    detector = given(detector)
    return machinery.make(detector.method, detector.network, services)


def path_of(example: Example) -> str | None:
    """Where an image lies; None if it is in no file of its own."""
    return str(example.image.absolute()) if isinstance(example.image, Path) else None


def num_patches(images: Split, stages: Stages) -> tuple[int, ...]:
    """How many patches of images there are for each bank, look by look; padding has none.

    Args:
      images: as they are looked at.
      stages: of the method.
    """
    return tuple(
        sampling.num_patches(splits.views(look), stream.grid)
        for look in splits.looks(images)
        for stream in stages.streams
    )
