"""A fitted detector as a thing of its own: made of a run, saved, loaded, ready to score.

    model = models.load("runs/demo/models/brick")
    scorer = models.make_scorer(model)
    for found in scorer([image, other]):    # uint8 [H, W] or [H, W, 3], any size
        found.score, found.anomaly_map

A `Model` is a pytree: its arrays are the fitted state, its configuration is static. The backbone is
no part of it; it is named by the digest of its weights, and no other will do.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import jax
import numpy as np

from sgfr_jax import backbones, calibration, checked_json, saving, thresholds, types
from sgfr_jax.backbones import hub
from sgfr_jax.commands.flags.config import Config, num_features
from sgfr_jax.commands.host import devices
from sgfr_jax.datasets import Example
from sgfr_jax.datasets.geometry import Geometry, assemble
from sgfr_jax.datasets.types import FULL_RANGE
from sgfr_jax.detector import (
    assembly,
    choices,
    detectors,
    loading,
    looks,
    nulls,
    sampling,
    stream_maps,
    streams,
)
from sgfr_jax.saving import SavingError


class _Described(TypedDict):
    """What `save` says of a model, in JSON's types."""

    category: str
    record: str
    config: Config
    streams: list[list[Any]]  # `layout`
    preprocessing: dict[str, Any]
    backbone: dict[str, str]
    data: "_Data"
    thresholds: "_Thresholds"
    made_with: dict[str, Any]
    notes: list[str]


class _Data(TypedDict):
    """The training images, as `About` has them."""

    train_sha256: str
    train: list[str]
    paths: list[str | None]
    sha256: list[str]
    patches: list[int]


class _Thresholds(TypedDict):
    """For readers of the file; any other rate follows from the nulls."""

    f1: float | None
    false_alarm_rates: list[dict[str, Any]]
    pixel_false_alarm_rates: list[dict[str, float]]


class About(NamedTuple):
    """What a model was made of."""

    category: str
    weights: str  # SHA-256 of the backbone's file
    train: tuple[str, ...]  # names of the training images, as `Origins.images` counts them
    paths: tuple[str | None, ...]  # where they lay; None: in no file of their own
    hashes: tuple[str, ...]  # SHA-256 of their contents
    data: str  # SHA-256 of their contents and order
    made_with: str  # versions, as JSON
    notes: tuple[str, ...]
    f1_threshold: float | None  # of the labelled test images; None: there were none
    record: str  # the digest of the run's record
    patches: tuple[int, ...]  # that the training images have for each bank
    white: int = FULL_RANGE  # the value of 16-bit images that is read as white


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Model:
    """A fitted detector with one solver."""

    # A `types.Bank`, or a `stream_maps.Fused` of one for each stream; `looks.Several` of these.
    state: Any
    origins: tuple[detectors.Origins, ...]  # of every bank
    nulls: nulls.Nulls
    config: Config = dataclasses.field(metadata={"static": True})
    about: About = dataclasses.field(metadata={"static": True})


def make(
    config: Config,
    category: loading.Checked,
    detector: detectors.Detector,
    fitted: detectors.Fitted,
    *,
    scores: np.ndarray,
    weights: str,
    made_with: Mapping[str, Any],
    record: str,
) -> Model:
    """The model of a category that a run has fitted and scored.

    Training images are scored once more, held out as far as can be (`nulls.held_out`).

    Args:
      config: of the run.
      category: that was fitted.
      detector: that fitted it.
      fitted: its state.
      scores: `[B]` of the test images.
      weights: the digest of the backbone's weights.
      made_with: from `environment.describe`.
      record: the digest of the run's record.

    Raises:
      DatasetError: if features are not finite.
    """
    held_out, note = nulls.held_out(detector, config.solver, fitted, category, config.seed)
    labels = np.array([example.label for example in category.test.examples], bool)
    best = None
    if labels.any() and not labels.all():
        best = thresholds.f1_threshold(scores, labels)[0]
    train = category.train
    about = About(
        category.name,
        weights,
        tuple(example.name for example in train.examples),
        tuple(map(path_of, train.examples)),
        loading.of_contents(train.hashes),
        hashlib.sha256("\n".join(train.hashes).encode()).hexdigest(),
        json.dumps(made_with, sort_keys=True),
        (*category.notes, *fitted.notes, note),
        best,
        record,
        num_patches(train, config),
        train.examples[0].white,
    )
    config = _as_seen(dataclasses.replace(config, baselines=()), category.geometries)
    return Model(fitted.states[config.solver], fitted.origins, held_out, config, about)


def _as_seen(config: Config, geometries: Sequence[Geometry]) -> Config:
    """The configuration that says how a category's images were looked at, and nothing else."""
    kinds = "+".join(geometry.kind for geometry in geometries)
    sides = {geometry.kind: geometry.tile for geometry in geometries}
    overlap = config.overlap if "tile" in sides else Config.overlap
    return dataclasses.replace(config, geometry=kinds, tile=sides.get("tile"), overlap=overlap)


def save(path: str | os.PathLike, model: Model) -> None:
    """Writes a model as one directory, whole or not at all.

    Args:
      path: of the directory; a model that lies there is replaced, nothing else is.
      model: from `make` or `load`.

    Raises:
      SavingError: if something that is no model is there.
      OSError: if it cannot be written.
    """
    description = {
        "category": model.about.category,
        "record": model.about.record,
        "config": dataclasses.asdict(model.config),
        "streams": layout(model.config),
        "preprocessing": _preprocessing(model.config) | {"white": model.about.white},
        "backbone": {"name": model.config.backbone, "weights_sha256": model.about.weights},
        "data": {
            "train_sha256": model.about.data,
            "train": model.about.train,
            "paths": model.about.paths,
            "sha256": model.about.hashes,
            "patches": model.about.patches,
        },
        "thresholds": _described_thresholds(model),
        "made_with": json.loads(model.about.made_with),
        "notes": model.about.notes,
    }
    tree = (model.state, model.origins, model.nulls)
    saving.save(path, tree, description)


def load(path: str | os.PathLike, weights: str | None = None) -> Model:
    """Reads a model, and checks that its backbone's weights are at hand.

    Args:
      path: of the directory.
      weights: where the weights lie now, if they are not where they were.

    Raises:
      SavingError: if it is no model of this version, or is damaged, or the weights are others.
      WeightsError: if the weights cannot be read.
    """
    if weights is not None and not hub.is_address(weights):
        weights = str(choices.path("weights", weights))
    arrays, description = saving.load(path)
    try:
        checked_json.check(_Described, description)
        config, about = _config(description["config"]), _about(description)
        if weights is not None:
            config = dataclasses.replace(config, weights=weights)
        seen = layout(config)
    except (KeyError, ValueError) as error:
        raise _other_version(path, str(error)) from error
    if seen != description["streams"]:
        raise _other_version(path, "its streams are others")
    model = Model(*saving.restore(_like(config, len(seen)), arrays), config, about)
    digest = backbones.weights_digest(config.backbone, config.weights)
    if digest != about.weights:
        raise SavingError(
            f"the model '{path}' was fitted with other weights of {config.backbone} (SHA-256"
            f" {about.weights[:12]}..., these are {digest[:12]}...): give --weights=FILE of those"
        )
    return model


def saved_by(path: str | os.PathLike) -> str | None:
    """The digest of the record that the model at `path` belongs to; None where there is none."""
    try:
        return saving.describe(path).get("record")
    except SavingError:
        return None


def make_detector(
    model: Model, batch_size: int = 16, mesh: str = devices.AUTO
) -> detectors.Detector:
    """The stages that a model was fitted with, which score, explain and embed.

    Args:
      model: from `load`, `make`.
      batch_size: images embedded at a time.
      mesh: which devices, as of `--mesh`.
    """
    from sgfr_jax.commands import run

    resources = run.Resources(Path(), batch_size=batch_size, mesh=mesh)
    return run.make_detector(model.config, resources)[0]


def make_scorer(
    model: Model, batch_size: int = 16, detector: detectors.Detector | None = None
) -> Callable[[Sequence], Iterator[assembly.Whole]]:
    """What scores images: `[uint8 [H, W] or [H, W, 3], ...] -> assembly.Whole, ...`, in order.

    The same compiled functions on the same shapes as in the run, so the same scores.

    Args:
      model: from `load`, `make`.
      batch_size: images embedded at a time, by a detector that is made for this.
      detector: from `make_detector`, for whoever has one: its programs take long to compile.
    """
    detector = detector or make_detector(model, batch_size)
    states = {model.config.solver: looks.each(detector.place, model.state)}

    def score(images: Sequence[np.ndarray]) -> Iterator[assembly.Whole]:
        split = loading.laid(as_split(images), model.config.geometries)
        found = looks.whole_images(split, detector, states, [0.0])
        for example, (whole,) in zip(split.examples, found, strict=True):
            yield with_surroundings(whole, example)

    return score


def as_split(images: Sequence[np.ndarray]) -> loading.Split:
    """Images, uint8 `[H, W]` or `[H, W, 3]` each, as a detector takes them."""
    examples = tuple(Example(str(i), image, -1, "", None) for i, image in enumerate(images))
    return loading.Split(examples, ("",) * len(examples), None)


def with_surroundings(found: assembly.Whole, example: Example) -> assembly.Whole:
    """With the map of the whole image, where a part of it was looked at."""
    if example.window is None:
        return found
    shape = example.image.shape[:2]
    return found._replace(anomaly_map=assemble(found.anomaly_map[None], [example.window], shape))


def path_of(example: Example) -> str | None:
    """Where an image lies; None if it is in no file of its own."""
    return str(example.image.absolute()) if isinstance(example.image, Path) else None


def layout(config: Config) -> list[list]:
    """What each bank of a look sees: image size, levels, grid, in JSON's types."""
    if config.has_streams:
        return [[s.image_size, s.level, s.grid] for s in streams.plan(config)]
    return [[config.image_size, "+".join(config.layers), config.grid]]


def num_patches(images: loading.Split, config: Config) -> tuple[int, ...]:
    """How many patches of images there are for each bank, look by look; padding has none.

    Args:
      images: as they are looked at.
      config: of the model.
    """
    return tuple(
        sampling.num_patches(loading.views(look), grid)
        for look in loading.looks(images)
        for _, _, grid in layout(config)
    )


def _preprocessing(config: Config) -> dict[str, Any]:
    return {
        "image_sizes": sorted({size for size, _, _ in layout(config)}),
        "geometries": [dataclasses.asdict(geometry) for geometry in config.geometries],
        "resize": "antialiased bilinear (Pillow)",
        "unit_norm": config.unit_norm,
        "features": None if config.has_streams else num_features(config),
        "map_size": config.image_size,
        "sigma": config.sigma,
        "halo": config.halo if config.has_streams else 0.0,
        "breadth": 0.0 if config.one_bank else config.breadth,
        "image_prior": 0.0 if config.one_bank else config.image_prior,
    }


def _described_thresholds(model: Model) -> _Thresholds:
    return {
        "f1": model.about.f1_threshold,
        "false_alarm_rates": [
            thresholds.at_false_alarm_rate(model.nulls.images, rate)._asdict()
            for rate in (0.01, 0.05)
        ],
        "pixel_false_alarm_rates": [
            {"wanted": rate, "score": thresholds.pixel_threshold(model.nulls.pixels, rate)}
            for rate in (0.001, 0.01)
        ],
    }


def _config(fields: Mapping[str, Any]) -> Config:
    """The configuration that was saved, with tuples for JSON's lists."""
    return Config(**{n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()})


def _about(description: Mapping[str, Any]) -> About:
    return About(
        description["category"],
        description["backbone"]["weights_sha256"],
        tuple(description["data"]["train"]),
        tuple(description["data"]["paths"]),
        tuple(description["data"]["sha256"]),
        description["data"]["train_sha256"],
        json.dumps(description["made_with"], sort_keys=True),
        tuple(description["notes"]),
        description["thresholds"]["f1"],
        description["record"],
        tuple(description["data"]["patches"]),
        int(description["preprocessing"]["white"]),
    )


def _like(config: Config, num_banks: int) -> tuple:
    """The structure of what `save` gives to be saved, with so many banks for each look."""

    def blank(kind: type) -> Any:
        return kind(*[0] * len(kind._fields))

    state = blank(types.Bank)
    if config.has_streams:
        state = blank(stream_maps.Fused)._replace(
            banks=(blank(types.Bank),) * num_banks,
            calibrations=(blank(calibration.Calibration),) * num_banks,
        )
    num_looks = len(config.geometries)
    if num_looks > 1:
        state = looks.Several((state,) * num_looks, blank(looks.Nominal), 0)
    tallies = nulls.Nulls(*[blank(thresholds.Tally)] * 2)
    return state, (blank(detectors.Origins),) * (num_looks * num_banks), tallies


def _other_version(path: str | os.PathLike, why: str) -> SavingError:
    return SavingError(
        f"the model '{path}' was saved by a version that this one does not understand ({why}):"
        " fit it again, or install that version"
    )
