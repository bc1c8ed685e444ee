"""Images to patches, by a network or from where they are kept."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax import patches
from sgfr_jax.datasets import DatasetError
from sgfr_jax.detector import splits
from sgfr_jax.detector.network import Embed, Loaded, Network
from sgfr_jax.detector.services import PLAIN, Services, pad
from sgfr_jax.detector.splits import Split
from sgfr_jax.detector.streams import Stream, by_size
from sgfr_jax.errors import ArgumentError, shown

# Programs that stay compiled: of a few networks, sizes and devices.
_PROGRAMS = 8


class Embedder(NamedTuple):
    """Embeds images at one size for all streams of that size, or finds them embedded."""

    network: Network
    streams: tuple[Stream, ...]  # of one image size
    unit_norm: bool
    load: Callable[[], Loaded]  # called when the first image must be embedded
    services: Services

    @property
    def image_size(self) -> int:
        """The side of the squares that it embeds, in pixels."""
        return self.streams[0].image_size

    @property
    def min_side(self) -> int:
        """The shortest side that an image may have, in pixels: the largest stride."""
        return max(stride for stream in self.streams for stride in stream.strides)

    def described(self, hashes: tuple[str, ...]) -> dict[str, Any]:
        """What the embeddings of images with these content hashes follow from."""
        return {
            "images": hashes,
            "network": self.network.name,
            "weights": self.network.digest,
            "streams": [[s.image_size, s.levels, s.grid] for s in self.streams],
            "unit_norm": self.unit_norm,
        }

    def batches(self, split: Split) -> Iterator[list[np.ndarray]]:
        """The patches `[n, P, D]` of every stream, of some images at a time.

        Args:
          split: the images, each one square: of `splits.views`, where there are windows.

        Raises:
          DatasetError: names the first image with features that are not finite.
        """
        for flat in self._flat(split):
            yield part(flat, [stream.shape for stream in self.streams])

    def _flat(self, split: Split) -> Iterator[np.ndarray]:
        """The same with the patches of all streams in a row: `[n, F]` float32."""
        made, kept = self._embedded(split), self.services.kept
        if kept is None or not split.examples or not all(split.hashes):
            return made
        described = self.described(split.hashes)
        found = kept.read(described, self.services.batch_size)
        if found is not None:
            return found
        features = sum(num * width for num, width in (stream.shape for stream in self.streams))
        return kept.write(described, (len(split.examples), features), made)

    def _embedded(self, split: Split) -> Iterator[np.ndarray]:
        services, size = self.services, self.services.batch_size
        loaded = splits.iterate(split, self.image_size, self.min_side, workers=services.workers)
        pixels = (image.image for image in loaded)
        program, done = make_program(services.compile, self.streams, self.unit_norm), 0
        while batch := list(itertools.islice(pixels, size)):
            network = self.load()
            squares = pad(np.stack(batch), size)
            features, finite = program(network.state, squares, apply=network.embed)
            finite = np.asarray(finite)[: len(batch)]
            if not finite.all():
                name = split.examples[done + int(np.argmin(finite))].name
                raise DatasetError(
                    f"{name}: its features are NaN, infinite or too large for float32; look at the"
                    " image and at the network's `weights`"
                )
            yield np.asarray(features)[: len(batch)]
            done += len(batch)


def make_embedders(
    network: Network, streams: Sequence[Stream], *, unit_norm: bool, services: Services = PLAIN
) -> tuple[Embedder, ...]:
    """An embedder for each image size of some streams, which share the network's weights."""

    @functools.cache
    def load() -> Loaded:
        found = network.load(wanted_levels(network, streams))
        return found._replace(state=services.replicate(found.state))

    return tuple(Embedder(network, group, unit_norm, load, services) for group in by_size(streams))


def wanted_levels(network: Network, streams: Sequence[Stream]) -> tuple[str, ...]:
    """The levels that some streams see: of one in the order in which it merges them."""
    if len(streams) == 1:
        return streams[0].levels
    seen = {level for stream in streams for level in stream.levels}
    return tuple(level for level in network.strides if level in seen)


@functools.lru_cache(_PROGRAMS)
def make_program(compile: Callable, streams: tuple[Stream, ...], unit_norm: bool) -> Callable:
    """`(state, images [B, S, S, 3], apply) -> (patches [B, F], finite [B])`, compiled once."""

    def embed(state: Any, images: jax.Array, *, apply: Embed):
        found, finite = embed_squares(state, images, apply, streams, unit_norm=unit_norm)
        flat = [features.reshape(features.shape[0], -1) for features in found]
        return jnp.concatenate(flat, axis=-1), finite

    return compile(embed, static=("apply",))


def embed_squares(
    state: Any, images: jax.Array, apply: Embed, streams: Sequence[Stream], *, unit_norm: bool
) -> tuple[list[jax.Array], jax.Array]:
    """The patches of every stream, `[B, P, D]`, and which images' features are finite, `[B]`.

    Args:
      state: of the network.
      images: `[B, S, S, 3]`, uint8 or float in 0..255, of the streams' image size.
      apply: the network.
      streams: of one image size.
      unit_norm: whether patches are scaled to unit norm.
    """
    levels = apply(state, images)
    _check_levels(levels, images, streams)
    found = [
        merged({name: levels[name] for name in stream.levels}, stream.grid, unit_norm=unit_norm)
        for stream in streams
    ]
    each = [
        features.reshape(features.shape[0], *stream.shape)
        for (features, _), stream in zip(found, streams, strict=True)
    ]
    return each, jnp.all(jnp.stack([finite for _, finite in found]), axis=0)


def _check_levels(
    levels: Mapping[str, jax.Array], images: jax.Array, streams: Sequence[Stream]
) -> None:
    """Raises ArgumentError where feature maps are not as the network's levels say."""
    gives, (num, size) = "`network`: its embed function gives", images.shape[:2]
    if not isinstance(levels, Mapping):
        raise ArgumentError(
            f"{gives} {type(levels).__name__}, which should be a mapping of levels to [B, h, w, D]"
        )
    for stream in streams:
        for name, width, stride in zip(stream.levels, stream.widths, stream.strides, strict=True):
            found, side = levels.get(name), -(-size // stride)
            shape = getattr(found, "shape", None)
            if shape != (num, side, side, width) or not jnp.issubdtype(found.dtype, jnp.floating):
                raise ArgumentError(
                    f"{gives} {shown(found)} for level '{name}', which should be [B, h, w, {width}]"
                    f" and floating, of {num} images with h = w = {side}: mend it, or its `strides`"
                    " and `widths`"
                )


def merged(
    levels: Mapping[str, jax.Array], grid: int, *, unit_norm: bool
) -> tuple[jax.Array, jax.Array]:
    """The patches of some levels, `[B, h, w, D]`, and which images' are finite, `[B]`."""
    features = patches.merge_levels(levels, (grid, grid))
    # Squares, as distances need them; and before the norm could hide anything.
    finite = jnp.all(jnp.isfinite(jnp.sum(features**2, axis=-1)), axis=(1, 2))
    return patches.unit_norm(features) if unit_norm else features, finite


def part(flat: np.ndarray, shapes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """The patches `[n, P, D]` of the streams whose embeddings `[n, F]` hold them in a row."""
    ends = itertools.accumulate(num_patches * width for num_patches, width in shapes)
    begins = itertools.pairwise((0, *ends))
    return [
        flat[:, begin:end].reshape(flat.shape[0], *shape)
        for (begin, end), shape in zip(begins, shapes, strict=True)
    ]
