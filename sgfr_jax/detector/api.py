"""The whole method in a few calls: nominal images in, anomaly maps and scores out.

    detector = fit_detector(jax.random.key(0), images)
    found = predict(detector, new_images)

Images are arrays, uint8 `[H, W]` or `[H, W, 3]` of any size, or paths of image files.
"""

import dataclasses
import math
import numbers
import os
from collections.abc import Iterable, Iterator, Sequence
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
    resolution,
    sampling,
    splits,
    stages,
)
from sgfr_jax.detector import method as methods
from sgfr_jax.detector import network as networks
from sgfr_jax.detector import settle as settling
from sgfr_jax.detector.explaining import Place
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.model import Detector
from sgfr_jax.detector.network import Network
from sgfr_jax.detector.services import PLAIN, Services
from sgfr_jax.errors import ArgumentError, shown

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
      ArgumentError: if an argument or a field of the method cannot be honoured, or there is no
        image.
      DatasetError: names the first image that cannot be read, or has features that are not finite.
      WeightsError: if the network's weights cannot be read.
    """
    fitting.check_key(key)
    method, network = _settled(methods.given(method), network)
    train = as_split(images)
    if not train.examples:
        raise ArgumentError("images=[] must hold one nominal image at least")
    kinds = geometries.of_training_images(method, train.examples)
    kinds = [found[0] for found in geometries.different(kinds, train)]
    laid = splits.laid(train, kinds)
    if resolution.is_large(method, network, kinds, train.examples):
        method = resolution.enlarged(method)
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
      ArgumentError: if an argument is no such thing; it names the first image that is none.
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
      ArgumentError: if the rate is not in (0, 1).
    """
    detector = model.given(detector)
    check_rate(false_alarm_rate)
    return thresholds.at_false_alarm_rate(detector.nulls.images, false_alarm_rate)


def check_rate(false_alarm_rate: float) -> None:
    """Raises ArgumentError for a rate that no threshold has."""
    if not isinstance(false_alarm_rate, numbers.Real) or not 0 < false_alarm_rate < 1:
        raise ArgumentError(f"false_alarm_rate={false_alarm_rate!r} must lie between 0 and 1")


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
      ArgumentError, DatasetError, WeightsError: as `predict`.
    """
    made = model.stages_of(detector, services)
    explainer = explanations.make_explainer(detector, made, least=least)
    found = []
    for some, _ in _parts(images, detector.about.white):
        arrays = [reading.read_native(example).image for example in some]
        names = [example.name for example in some]
        found.extend(one.places for one in explainer(arrays, names))
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
      ArgumentError: as `fit_detector`; if its atoms are learned, and none can be added; or if no
        image is new.
      DatasetError, WeightsError: as `fit_detector`.
    """
    fitting.check_key(key)
    growing.check(model.given(detector))
    split = growing.unseen(detector, as_split(images, white=detector.about.white))
    if not split.examples:
        raise ArgumentError("`images`: the detector has learned from all of these already")
    made = model.stages_of(detector, services)
    return growing.grow(detector, made, split, key)[0]


def export(detector: Detector, *, platforms: Sequence[str] | str = ("cpu", "cuda", "tpu")) -> bytes:
    """The detector as one program of StableHLO, which `jax.export.deserialize` reads.

    It takes uint8 `[b, size, size, 3]` for each of `squares.sizes`, and gives a dictionary of
    `anomaly_map` `[b, S, S]` and `score` `[b]`.

    Args:
      detector: fitted with `geometry="square"`.
      platforms: that it is lowered for, of `exporting.PLATFORMS`; one, or several.

    Raises:
      ArgumentError: if it is of a kind that cannot be exported, or a platform is not known.
      WeightsError: if the network's weights cannot be read.
    """
    return exporting.to_stablehlo(model.given(detector), platforms)


def as_split(images: Sequence[Image], *, white: int = FULL_RANGE) -> splits.Split:
    """Images as a detector takes them, with content hashes."""
    examples = _examples(images, white)
    return splits.Split(examples, splits.hash_images(examples), None)


def _examples(images: Sequence[Image], white: int) -> tuple[Example, ...]:
    shape = getattr(images, "shape", (0,))
    one = isinstance(images, str | os.PathLike) or len(shape) in (0, 2)
    # An array [H, W, 3] is one image of colours: none is three pixels wide.
    if one or not isinstance(images, Iterable) or (len(shape) == 3 and shape[2] == 3):
        raise ArgumentError(
            f"images={shown(images)} must be a list of images: write [image] for a single one"
        )
    return tuple(_example(image, number, white) for number, image in enumerate(images))


def _example(image: Image, number: int, white: int) -> Example:
    if isinstance(image, str | os.PathLike):
        path = Path(os.path.expanduser(image)).absolute()
        return Example(str(image), path, 0, "good", None, white=white)
    array = np.asarray(image)
    channels = array.shape[2:]
    if array.dtype != np.uint8 or array.ndim < 2 or not array.size or channels not in ((), (3,)):
        raise ArgumentError(
            f"images[{number}] is {shown(array)}: images must be uint8 [H, W] or [H, W, 3], or"
            " paths"
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
    examples = _examples(images, white)
    for example, shape in zip(examples, splits.shapes(examples), strict=True):
        if held and pixels + math.prod(shape) > _PIXELS:
            yield tuple(zip(*held, strict=True))
            held, pixels = [], 0
        held.append((example, shape))
        pixels += math.prod(shape)
    if held:
        yield tuple(zip(*held, strict=True))
