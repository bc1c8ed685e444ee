"""The whole method in a few calls: nominal images in, anomaly maps and scores out.

    detector = fit_detector(jax.random.key(0), images)
    found = predict(detector, new_images)

Images are arrays, uint8 `[H, W]` or `[H, W, 3]` of any size, or paths of image files.
"""

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from sgfr_jax import thresholds
from sgfr_jax.datasets import Example
from sgfr_jax.datasets import images as reading
from sgfr_jax.datasets.geometry import to_size
from sgfr_jax.datasets.types import FULL_RANGE
from sgfr_jax.detector import explaining as explanations
from sgfr_jax.detector import (
    exporting,
    fitting,
    geometries,
    growing,
    looks,
    model,
    sampling,
    splits,
    stages,
)
from sgfr_jax.detector import network as networks
from sgfr_jax.detector import settle as settling
from sgfr_jax.detector.explaining import Place
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.model import Detector
from sgfr_jax.detector.network import Network
from sgfr_jax.detector.services import PLAIN, Services
from sgfr_jax.errors import ArgumentError

Image = np.ndarray | str | os.PathLike
# Pixels of images that are held at once; more only of one image.
_PIXELS = 1 << 26


class Prediction(NamedTuple):
    """What a detector makes of an image."""

    anomaly_map: np.ndarray  # [H, W] float32, of the image's own size
    score: float  # higher is more anomalous
    p_value: float  # the share of nominal images that would score as high, by held-out ones


def fit_detector(
    key: jax.Array,
    images: Sequence[Image],
    *,
    method: Method | None = None,
    network: Network | str | None = None,
    services: Services = PLAIN,
) -> Detector:
    """Fits a detector to nominal images.

    Args:
      key: decides all that is drawn; with `jax.random.key(seed)` the scores equal the command
        line's with that `seed`.
      images: nominal: uint8 `[H, W]` or `[H, W, 3]`, or paths.
      method: what to do; None: the default, `Method()`.
      network: one of ours by name, or anybody's (`network.make`); None: the method's `backbone`.
      services: what to use of the machine.

    Raises:
      ArgumentError: if a field of the method cannot be honoured, or there is no image.
      DatasetError: names the first image that cannot be read, or has features that are not finite.
      WeightsError: if the network's weights cannot be read.
    """
    method, network = _settled(method or Method(), network)
    train = as_split(images)
    if not train.examples:
        raise ArgumentError("images=[] must hold one nominal image at least")
    kinds = geometries.of_training_images(method, train.examples)
    kinds = [found[0] for found in geometries.different(kinds, train)]
    laid = splits.laid(train, kinds)
    made = stages.make(method, network, services)
    grid = settling.coarsest_grid(method, network)
    for look in splits.looks(laid):
        num = sampling.num_patches(splits.views(look), grid)
        settling.check_patches(method, {"of these images": num})
    fitted = fitting.fit(made, key, laid)
    return model.make(made, fitting.seed_of(key), laid, kinds, fitted)


def predict(
    detector: Detector, images: Sequence[Image], *, services: Services = PLAIN
) -> list[Prediction]:
    """The anomaly maps, scores and p-values of images.

    Args:
      detector: from `fit_detector`, `load` or `update`.
      images: uint8 `[H, W]` or `[H, W, 3]`, or paths.
      services: what to use of the machine.

    Raises:
      DatasetError: names the first image that cannot be read, or has features that are not finite.
      WeightsError: if the network's weights cannot be read.
    """
    made = model.stages_of(detector, services)
    states = {detector.method.solver: services.replicate(detector.state)}
    maps, scores = [], []
    for some, shapes in _parts(images, detector.about.white):
        # Hashes name embeddings that are kept; without a place for these no file is read for them.
        hashes = ("",) * len(some) if services.kept is None else splits.hash_images(some)
        split = splits.Split(some, hashes, None)
        laid = splits.laid(split, detector.method.geometries)
        found = looks.whole_images(laid, made, states)
        for example, shape, (whole,) in zip(some, shapes, found, strict=True):
            looks.check_finite(example, [whole])
            scores.append(whole.score)
            maps.append(to_size(whole.anomaly_map, shape))
    p_values = thresholds.p_values(detector.nulls.images, np.float32(scores))
    return [
        Prediction(*of, float(p)) for *of, p in zip(maps, map(float, scores), p_values, strict=True)
    ]


def threshold(detector: Detector, false_alarm_rate: float = 0.01) -> thresholds.Threshold:
    """The score above which images are called anomalous, from nominal images alone.

    Args:
      detector: fitted.
      false_alarm_rate: the share of nominal images that may be called anomalous, in (0, 1).

    Returns:
      What `thresholds.at_false_alarm_rate` says: the score, what is to be expected, and a bound.

    Raises:
      ValueError: if the rate is not in (0, 1).
    """
    return thresholds.at_false_alarm_rate(detector.nulls.images, false_alarm_rate)


def explain(
    detector: Detector,
    images: Sequence[Image],
    *,
    least: float = math.inf,
    services: Services = PLAIN,
) -> list[tuple[Place, ...]]:
    """Where images are anomalous, and which nominal patches tried to mimic them there.

    Args:
      detector: fitted.
      images: as of `predict`.
      least: of an image's places all but the highest must have more in the anomaly map.
      services: what to use of the machine.

    Returns:
      Of every image its highest places (`explaining.Place`), at least one.

    Raises:
      DatasetError, WeightsError: as `predict`.
    """
    made = model.stages_of(detector, services)
    explainer = explanations.make_explainer(detector, made, least=least)
    found = []
    for some, _ in _parts(images, detector.about.white):
        arrays = [reading.read_native(example).image for example in some]
        found.extend(one.places for one in explainer(arrays))
    return found


def update(
    key: jax.Array, detector: Detector, images: Sequence[Image], *, services: Services = PLAIN
) -> Detector:
    """The detector after it has learned from more nominal images, without the old ones.

    Args:
      key: decides which of too many atoms stay.
      detector: fitted.
      images: nominal, as of `fit_detector`; those that it knows are left out.
      services: what to use of the machine.

    Raises:
      ArgumentError: if its atoms are learned, and none can be added, or no image is new.
      DatasetError, WeightsError: as `fit_detector`.
    """
    growing.check(detector)
    split = growing.unseen(detector, as_split(images, white=detector.about.white))
    if not split.examples:
        raise ArgumentError("`images`: the detector has learned from all of these already")
    made = model.stages_of(detector, services)
    return growing.grow(detector, made, split, key)[0]


def export(detector: Detector, *, platforms: Sequence[str] = ("cpu", "cuda", "tpu")) -> bytes:
    """The detector as one program of StableHLO, which `jax.export.deserialize` reads.

    It takes uint8 `[b, size, size, 3]` for each of `squares.sizes`, and gives a dictionary of
    `anomaly_map` `[b, S, S]` and `score` `[b]`.

    Args:
      detector: fitted with `geometry="square"`.
      platforms: that it is lowered for.

    Raises:
      ArgumentError: if it is of a kind that cannot be exported.
    """
    return exporting.to_stablehlo(detector, platforms)


def as_split(images: Sequence[Image], *, white: int = FULL_RANGE) -> splits.Split:
    """Images as a detector takes them, with content hashes."""
    examples = tuple(_example(image, number, white) for number, image in enumerate(images))
    return splits.Split(examples, splits.hash_images(examples), None)


def _example(image: Image, number: int, white: int) -> Example:
    if isinstance(image, str | os.PathLike):
        return Example(str(image), Path(image).absolute(), 0, "good", None, white=white)
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
        raise ArgumentError(
            f"images[{number}] is {array.dtype} {list(array.shape)}: images must be uint8 [H, W] or"
            " [H, W, 3], or paths"
        )
    return Example(f"image {number}", array, 0, "good", None, white=white)


def _settled(method: Method, network: Network | str | None) -> tuple[Method, Network]:
    if isinstance(network, str):
        method, network = dataclasses.replace(method, backbone=network), None
    if network is None:
        network = networks.ours(method.backbone, method.weights)
    network = networks.given(network)
    method = dataclasses.replace(method, backbone=network.name)
    return settling.settle(method, network), network


def _parts(
    images: Sequence[Image], white: int
) -> Iterator[tuple[tuple[Example, ...], tuple[tuple[int, int], ...]]]:
    """The images in order with their heights and widths, in parts that fit in memory."""
    held, pixels = [], 0
    examples = [_example(image, number, white) for number, image in enumerate(images)]
    for example, shape in zip(examples, splits.shapes(examples), strict=True):
        if held and pixels + math.prod(shape) > _PIXELS:
            yield tuple(zip(*held, strict=True))
            held, pixels = [], 0
        held.append((example, shape))
        pixels += math.prod(shape)
    if held:
        yield tuple(zip(*held, strict=True))
