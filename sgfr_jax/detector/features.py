"""The default method for features of your own: levels of any network, as arrays.

    look = fit_banks(key, levels)                        # levels: [B, h, w, D] each, nominal images
    look, held = calibrate(look, levels)
    drawn = draw_defects(key, images)
    look = weigh(look, held, defective, drawn.sources, drawn.masks, drawn.groups)
    maps, scores = score(look, new_levels)

`defective` are the levels of `drawn.images`. Where there are none, leave `weigh` out: all levels
then count alike.

Every cell of a level is a patch as it is, scaled to unit norm if the method says so. The cells of a
network are made patches first, as `fit_detector` does, by the mean of 3 x 3 of them:
`merge_levels({"level": level}, level.shape[1:3])`.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from sgfr_jax import patches
from sgfr_jax.detector import (
    fitting,
    programs,
    sampling,
    settle,
    splits,
    squares,
    synthetic,
    weighing,
)
from sgfr_jax.detector import method as methods
from sgfr_jax.detector import state as states
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.services import PLAIN, Services
from sgfr_jax.detector.state import Look
from sgfr_jax.detector.streams import Stream
from sgfr_jax.detector.weighing import HeldOut, Squares
from sgfr_jax.errors import ArgumentError, check_type, shown

Levels = Sequence[jax.Array]  # `[B, h, w, D]` each, of the same images
_SIZE = 256  # of anomaly maps, where the method has no `image_size`


class Defective(NamedTuple):
    """`B` images with a synthetic defect each, and what `weigh` is told of them."""

    images: np.ndarray  # [B, H, W] or [B, H, W, 3] uint8
    sources: np.ndarray  # [B]: the nominal image that each is made from
    masks: np.ndarray  # [B, S, S] bool: where the defects are
    groups: list[str]  # the kind and size of each defect


def fit_banks(
    key: jax.Array, levels: Levels, method: Method | None = None, machine: Services = PLAIN
) -> Look:
    """A bank of atoms for each level, chosen from nominal images.

    Args:
      key: consumed.
      levels: of nominal images.
      method: which sampler and how many atoms; None: the default.
      machine: services of the machine.

    Returns:
      A `Look` that is not calibrated.

    Raises:
      ArgumentError: if levels are not of the same images, or not square.
    """
    fitting.check_key(key)
    method, _, features = _prepared(levels, method)
    owners, banks, origins = np.arange(len(levels[0])), [], []
    for number, of_stream in enumerate(features):
        num_images, each, width = of_stream.shape
        num = method.num_atoms(num_images * each)
        bank = sampling.make_bank(
            method, jax.random.fold_in(key, number), of_stream.reshape(-1, width),
            np.ones(num_images * each, np.float32), num, machine=machine,
            shape=(num_images, each),
        )  # fmt: skip
        banks.append(bank)
        picks = sampling.every_patch(num_images, each)
        origins.append(sampling.origins(method, bank, picks, owners))
    return states.plain_look(tuple(banks), tuple(origins))


def calibrate(
    look: Look, levels: Levels, method: Method | None = None, machine: Services = PLAIN
) -> tuple[Look, HeldOut]:
    """Calibrates the banks on the nominal images that they are chosen from, each held out.

    Args:
      look: from `fit_banks`.
      levels: of the same images in the same order.
      method: how patches are coded; None: the default.
      machine: services of the machine.

    Returns:
      The look, whose streams count alike, and what nominal images come to, which `weigh` takes.

    Raises:
      ArgumentError: as `fit_banks`, and if the look has other levels.
    """
    method, streams, features = _prepared(levels, method)
    _check_look(look, levels, calibrated=False)
    made = programs.make(method, streams, machine)
    nominal = Squares(features, np.arange(len(levels[0])))
    look, held = weighing.calibrate(made, streams, look, nominal, machine)
    alike = Squares((), np.zeros(0, int))
    return weighing.weigh(made, streams, look, held, alike, np.zeros(0), (), machine), held


def draw_defects(key: jax.Array, images: np.ndarray, method: Method | None = None) -> Defective:
    """Draws synthetic defects of many kinds and sizes on nominal images, as `fit_detector` does.

    Args:
      key: decides which images and what defects.
      images: nominal: uint8 `[N, H, W]` or `[N, H, W, 3]`, those that levels were made of.
      method: whose `image_size` is the masks' side; None: the default.

    Returns:
      Up to `synthetic.num_drawn()` images; fewer where a kind of defect leaves no trace.

    Raises:
      ArgumentError: if the images are no such array.
    """
    fitting.check_key(key)
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)):
        raise ArgumentError(
            f"images={images.dtype} {list(images.shape)} must be uint8 [N, H, W] or [N, H, W, 3]"
        )
    size, seed = _filled_in(method).image_size, fitting.seed_of(key)
    drawn = synthetic.draw(splits.of_arrays(images), seed, size)
    found = np.array([example.image for example in drawn.seen.split.examples], np.uint8)
    found = found.reshape(-1, *images.shape[1:])
    return Defective(found, drawn.seen.owners, drawn.masks, drawn.groups)


def weigh(
    look: Look,
    held: HeldOut,
    defective: Levels,
    sources: np.ndarray,
    masks: np.ndarray,
    groups: Sequence[str],
    method: Method | None = None,
    machine: Services = PLAIN,
) -> Look:
    """Says what each level counts, by how well it tells defects from nominal images.

    Args:
      look: from `calibrate`.
      held: from the same.
      defective: levels of images with a defect each.
      sources: `[B]`: the nominal image that each is made from; -1: none.
      masks: `[B, S, S]` bool: where the defects are, `S` being the method's `image_size`.
      groups: of every image the kind of its defect: each kind counts as much.
      method: as of `calibrate`.
      machine: services of the machine.

    Raises:
      ArgumentError: as `calibrate`, and if the look is not calibrated.
    """
    method, streams, features = _prepared(defective, method)
    _check_look(look, defective, calibrated=True)
    made = programs.make(method, streams, machine)
    drawn = Squares(features, np.asarray(sources))
    return weighing.weigh(made, streams, look, held, drawn, masks, groups, machine)


def score(look: Look, levels: Levels, method: Method | None = None) -> tuple[jax.Array, jax.Array]:
    """The anomaly maps `[B, S, S]` and scores `[B]` of images; a pure function to be compiled.

    Args:
      look: from `weigh`, or `calibrate`.
      levels: of the images.
      method: as of `calibrate`.

    Raises:
      ArgumentError: as `weigh`.
    """
    method, streams, features = _prepared(levels, method)
    _check_look(look, levels, calibrated=True)
    return squares.score_patches(method, streams, look, features)


def _prepared(
    levels: Levels, method: Method | None
) -> tuple[Method, tuple[Stream, ...], list[jax.Array]]:
    """The method filled in, a stream for each level, and its patches `[B, P, D]`."""
    method = _filled_in(method)
    if not len(levels):
        raise ArgumentError("levels=[] must be one level at least, [B, h, w, D]")
    streams, found = [], []
    shapes = [np.shape(level) for level in levels]
    for number, (level, shape) in enumerate(zip(levels, shapes, strict=True)):
        if len(shape) != 4 or shape[1] != shape[2] or shape[0] != shapes[0][0]:
            raise ArgumentError(
                f"levels={shown(shapes)} must be [B, h, w, D] of the same images, with h = w"
            )
        num_images, grid, _, width = shape
        streams.append(Stream(method.image_size, (f"level{number}",), grid, (width,)))
        own = patches.unit_norm(level) if method.unit_norm else level
        found.append(own.reshape(num_images, grid**2, width))
    return method, tuple(streams), found


def _check_look(look: Look, levels: Levels, *, calibrated: bool) -> None:
    """Raises ArgumentError for a look of other levels, or not calibrated where it must be."""
    check_type("look", look, Look, "what `fit_banks`, `calibrate` or `weigh` returns")
    if len(look.banks) != len(levels):
        raise ArgumentError(
            f"`levels` are {len(levels)}, and `look` has {len(look.banks)} banks: give the levels"
            " that it was fitted to"
        )
    if calibrated and not look.calibrations:
        raise ArgumentError("`look` is not calibrated: give what `calibrate` or `weigh` returns")


def _filled_in(method: Method | None) -> Method:
    method = settle.with_sampler(settle.with_types(methods.given(method)))
    settle.check(method)
    return dataclasses.replace(method, image_size=method.image_size or _SIZE)
