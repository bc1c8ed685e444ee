"""Fitted detectors on disk: one directory each, as of `sgfr_jax.saving`."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from sgfr_jax import calibration, checked_json, saving, thresholds, types
from sgfr_jax.backbones.architectures import ARCHITECTURES
from sgfr_jax.detector import network as networks
from sgfr_jax.detector import streams
from sgfr_jax.detector.method import AT, Method
from sgfr_jax.detector.model import About, Detector, given
from sgfr_jax.detector.network import Network
from sgfr_jax.detector.state import Look, Nominal, Nulls, Origins, State
from sgfr_jax.errors import ArgumentError
from sgfr_jax.saving import SavingError


class _Described(TypedDict):
    """What `save` says of a detector, in JSON's types."""

    category: str
    record: str
    seed: int
    method: Method
    streams: list[list[Any]]  # image size, levels and grid of each
    preprocessing: dict[str, Any]
    network: dict[str, str]
    data: "_Data"
    thresholds: "_Thresholds"
    made_with: dict[str, Any]
    source: dict[str, Any]
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


def save(path: str | os.PathLike, detector: Detector) -> None:
    """Writes a detector as one directory, whole or not at all.

    Args:
      path: of the directory; a detector that lies there is replaced, nothing else is.
      detector: from `fit_detector` or `load`.

    Raises:
      ArgumentError: if it is no detector.
      SavingError: if something that is no detector is there, or no directory can be.
      OSError: if it cannot be written.
    """
    method, about = given(detector).method, detector.about
    description = {
        "category": about.category,
        "record": about.record,
        "seed": about.seed,
        "method": dataclasses.asdict(method),
        "streams": _layout(method, detector.network),
        "preprocessing": _preprocessing(method, detector.network) | {"white": about.white},
        "network": {"name": detector.network.name, "weights_sha256": detector.network.digest},
        "data": {
            "train_sha256": about.data,
            "train": about.train,
            "paths": about.paths,
            "sha256": about.hashes,
            "patches": about.patches,
        },
        "thresholds": _described_thresholds(detector),
        "made_with": json.loads(about.made_with),
        "source": json.loads(about.source),
        "notes": about.notes,
    }
    saving.save(path, (detector.state, detector.nulls), description)


def load(
    path: str | os.PathLike, *, weights: str | None = None, network: Network | None = None
) -> Detector:
    """Reads a detector, and checks that its network's weights are at hand.

    Args:
      path: of the directory.
      weights: where the weights of a network of ours lie now, if not where they were.
      network: that the detector was fitted through, if it is none of ours. Its name and its levels
        are compared with those of the model. If it has a digest, the weights are compared too.

    Raises:
      ArgumentError: if `network` is none.
      SavingError: if it is no detector of this version, or is damaged, or the network or the
        weights are others.
      WeightsError: if the weights cannot be read.
    """
    if isinstance(network, str):
        raise ArgumentError(
            f"network={network!r} must be left out for a network of ours, which the model names; of"
            " any other it is what `make_network` returns"
        )
    if network is not None:
        networks.given(network)
    arrays, description = saving.load(path)
    try:
        checked_json.check(_Described, description)
        method, about = _method(description["method"]), _about(description)
        wanted, name = (description["network"][of] for of in ("weights_sha256", "name"))
        recorded = _seen(description["streams"], description["preprocessing"]["features"])
    except (KeyError, ValueError) as error:
        raise _other_version(path, str(error)) from error
    if weights is not None:
        method = dataclasses.replace(method, weights=os.path.expanduser(weights))
    if network is None and method.backbone not in ARCHITECTURES:
        raise SavingError(
            f"the model '{path}' was fitted through '{method.backbone}', which is no network of"
            " ours: give `network`"
        )
    remedy = "give weights=FILE of those"
    if network is not None:
        remedy = "give the `network` that has those"
        _check_network(path, method, network, name, recorded)
    try:
        layout = _layout(method, network or networks.describe(method.backbone))
    except (KeyError, ValueError) as error:
        raise _other_version(path, str(error)) from error
    if layout != description["streams"]:
        raise _other_version(path, "its streams are others")
    restored = saving.restore(_like(method, len(layout)), arrays)
    if network is None:
        network = networks.ours(method.backbone, method.weights)
    if network.digest != wanted:
        raise SavingError(
            f"the model '{path}' was fitted with other weights of {network.name} (SHA-256"
            f" {wanted[:12]}..., these are {network.digest[:12]}...): {remedy}"
        )
    return Detector(*restored, method, network, about)


def _check_network(
    path: str | os.PathLike, method: Method, network: Network, name: str, recorded: str
) -> None:
    """Raises SavingError for a network with another name, or other levels, than was recorded."""
    if network.name != name:
        raise SavingError(
            f"the model '{path}' was fitted through '{name}', and `network` is '{network.name}':"
            " give the one that it was fitted through"
        )
    try:
        found = _seen(_layout(method, network), _preprocessing(method, network)["features"])
    except KeyError as error:
        found = f"no level {error}"
    if found != recorded:
        raise SavingError(
            f"the model '{path}' was fitted through a '{name}' that gives {recorded}, and `network`"
            f" gives {found}: give the one that it was fitted through"
        )


def _seen(layout: Sequence[Sequence[Any]], features: Sequence[int]) -> str:
    """What a network gives each bank: levels, image size, patches per side and features."""
    return ", ".join(
        f"{levels}{AT}{size} of {grid} x {grid} x {width}"
        for (size, levels, grid), width in zip(layout, features, strict=True)
    )


def saved_by(path: str | os.PathLike) -> str | None:
    """The digest of the record that the detector at `path` belongs to; None where there is none."""
    try:
        return saving.describe(path).get("record")
    except SavingError:
        return None


def _layout(method: Method, network: Network) -> list[list]:
    """What each bank of a look sees, in JSON's types."""
    planned = streams.plan(method, network)
    return [[stream.image_size, "+".join(stream.levels), stream.grid] for stream in planned]


def _preprocessing(method: Method, network: Network) -> dict[str, Any]:
    planned = streams.plan(method, network)
    return {
        "image_sizes": list(streams.sizes(planned)),
        "geometries": [dataclasses.asdict(geometry) for geometry in method.geometries],
        "resize": "antialiased bilinear (Pillow)",
        "unit_norm": method.unit_norm,
        "features": [stream.width for stream in planned],
        "map_size": method.image_size,
        "sigma": method.sigma,
        "halo": method.halo if method.has_streams else 0.0,
        "breadth": 0.0 if method.one_bank else method.breadth,
        "image_prior": 0.0 if method.one_bank else method.image_prior,
    }


def _described_thresholds(detector: Detector) -> _Thresholds:
    return {
        "f1": detector.about.f1_threshold,
        "false_alarm_rates": [
            thresholds.at_false_alarm_rate(detector.nulls.images, rate)._asdict()
            for rate in (0.01, 0.05)
        ],
        "pixel_false_alarm_rates": [
            {"wanted": rate, "score": thresholds.pixel_threshold(detector.nulls.pixels, rate)}
            for rate in (0.001, 0.01)
        ],
    }


def _method(fields: Mapping[str, Any]) -> Method:
    """The method that was saved, with tuples for JSON's lists."""
    return Method(**{n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()})


def _about(description: Mapping[str, Any]) -> About:
    data = description["data"]
    return About(
        description["category"],
        tuple(data["train"]),
        tuple(data["paths"]),
        tuple(data["sha256"]),
        data["train_sha256"],
        tuple(description["notes"]),
        tuple(data["patches"]),
        description["seed"],
        int(description["preprocessing"]["white"]),
        description["thresholds"]["f1"],
        json.dumps(description["made_with"], sort_keys=True),
        json.dumps(description["source"], sort_keys=True),
        description["record"],
    )


def _like(method: Method, num_banks: int) -> tuple:
    """The tree that `save` writes, with a number of banks for each look; its leaves are blank."""

    def blank(kind: type) -> Any:
        return kind(*[0] * len(kind._fields))

    calibrated = num_banks if method.has_streams else 0
    look = blank(Look)._replace(
        banks=(blank(types.Bank),) * num_banks,
        origins=(blank(Origins),) * num_banks,
        calibrations=(blank(calibration.Calibration),) * calibrated,
    )
    state = State((look,) * len(method.geometries), blank(Nominal), 0)
    return state, Nulls(*[blank(thresholds.Tally)] * 2)


def _other_version(path: str | os.PathLike, why: str) -> SavingError:
    return SavingError(
        f"the model '{path}' was saved by a version that this one does not understand ({why}):"
        " fit it again, or install that version"
    )
