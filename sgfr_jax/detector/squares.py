"""Squares to maps and scores as pure functions, for `jit`, `vmap`, `grad`, `shard_map`, `export`.

    score = jax.jit(partial(score_squares, detector))
    maps, scores = score(detector.state, squares)

Nothing here is compiled or checked against a machine: the caller says what is static, what is
mapped and what is sharded. States of detectors of one method can be stacked and mapped over.
"""

from collections.abc import Sequence

import jax
import numpy as np

from sgfr_jax.detector import embedding, model, scoring, streams
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.model import Detector
from sgfr_jax.detector.network import Loaded
from sgfr_jax.detector.scoring import Coding, Scoring
from sgfr_jax.detector.state import Look, State
from sgfr_jax.detector.streams import Stream
from sgfr_jax.errors import ArgumentError, shown


def load_network(detector: Detector) -> Loaded:
    """The network that a detector looks through, in memory: what embeds, and its weights.

    Raises:
      WeightsError: if the weights cannot be read.
    """
    planned = _planned(detector)
    return detector.network.load(embedding.wanted_levels(detector.network, planned))


def sizes(detector: Detector) -> tuple[int, ...]:
    """The sides of the squares, in pixels, that a detector wants its images resized to."""
    return streams.sizes(_planned(detector))


def score_squares(
    detector: Detector,
    state: State,
    squares: Sequence[jax.Array],
    *,
    loaded: Loaded | None = None,
    extents: jax.Array | None = None,
    coding: Coding | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The anomaly maps and scores of images that are seen as one square each.

    Args:
      detector: whose method and network are meant; its arrays do not matter.
      state: `detector.state`, or another of the same method: of one look.
      squares: the images at every one of `sizes`: `[B, size, size, 3]` each, uint8 or float in
        0..255.
      loaded: the network, from `load_network`; None loads it, and its weights become constants of
        whatever is compiled.
      extents: `[B, 2]`: the shares of the squares that images fill; None: all.
      coding: how patches are coded; None: as suits the platform.

    Returns:
      Maps `[B, S, S]` float32 with `S = method.image_size`, and scores `[B]`.

    Raises:
      ArgumentError: if the detector looks at images in several ways, or squares are not `sizes`.
    """
    planned = _planned(detector)
    if len(state.looks) > 1:
        raise ArgumentError(
            f"geometry={detector.method.geometry} looks at images in several ways, and squares"
            " show one: fit with geometry=square"
        )
    patches = embed(detector, loaded or load_network(detector), squares)
    return score_patches(detector.method, planned, state.looks[0], patches, extents, coding)


def embed(detector: Detector, loaded: Loaded, squares: Sequence[jax.Array]) -> list[jax.Array]:
    """The patches `[B, P, D]` of every stream; arguments as of `score_squares`."""
    planned = _planned(detector)
    wanted, shapes = streams.sizes(planned), [np.shape(images) for images in squares]
    if not shapes or shapes != [(*shapes[0][:1], size, size, 3) for size in wanted]:
        raise ArgumentError(
            f"squares={shown(shapes)} must be [B, size, size, 3] each, with sizes {wanted}, of the"
            " same images"
        )
    found = []
    for group, images in zip(streams.by_size(planned), squares, strict=True):
        each, _ = embedding.embed_squares(
            loaded.state, images, loaded.embed, group, unit_norm=detector.method.unit_norm
        )
        found += each
    return found


def _planned(detector: Detector) -> tuple[Stream, ...]:
    model.given(detector)
    return streams.plan(detector.method, detector.network)


def score_patches(
    method: Method,
    planned: Sequence[Stream],
    look: Look,
    patches: Sequence[jax.Array],
    extents: jax.Array | None = None,
    coding: Coding | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The anomaly maps `[B, S, S]` and scores `[B]` of embedded squares.

    Args:
      method: from `settle.settle`.
      planned: its `S` streams.
      look: fitted.
      patches: `[B, P, D]` of every stream.
      extents: as of `score_squares`.
      coding: likewise.
    """
    functions = Scoring(method, coding or scoring.usual_coding(method, method.solver))
    found = scoring.every_map(functions.stream_maps, planned, look, patches, extents)
    return functions.fuse(look, (found, extents))
