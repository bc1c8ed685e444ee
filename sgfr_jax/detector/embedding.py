"""Images to patches, by a network or from the cache."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax import backbones, filters, linalg, patches
from sgfr_jax.commands.files import cache
from sgfr_jax.commands.flags.config import Config, num_features
from sgfr_jax.commands.host import devices, processes
from sgfr_jax.datasets import DatasetError, geometry, images
from sgfr_jax.detector import loading, streams
from sgfr_jax.detector.streams import Stream

# What an embedding follows from, beside the functions of this module that make it.
_EMBEDDING = (backbones, patches, filters, linalg, geometry, images, streams)


class Embedder(NamedTuple):
    """Embeds images, or finds them embedded."""

    config: Config
    load: Callable[[], backbones.Backbone]  # called when the first image must be embedded
    digest: str  # of the weights
    compiled: Callable  # (backbone, images [B, S, S, 3]) -> (patches [B, P, D], finite [B])
    batch_size: int
    cache_dir: Path | None
    cache_bytes: int
    shape: tuple[int, int] | None = None  # `patch_shape`, if it is not that of config
    layout: devices.Layout | None = None  # of the run's devices; no part of what embeddings are

    @property
    def patch_shape(self) -> tuple[int, int]:
        """Of an image's embedding: `[P, D]`."""
        return self.shape or (self.config.grid**2, num_features(self.config))

    def entry(self, hashes: tuple[str, ...]) -> str:
        """The name in the cache of the embeddings of images with these content hashes."""
        config = self.config
        return cache.key(
            images=hashes,
            backbone=config.backbone,
            weights=self.digest,
            layers=config.layers,
            image_size=config.image_size,
            grid=config.grid,
            unit_norm=config.unit_norm,
            # Any edit of what embeds, or of which streams there are, makes other entries.
            code=cache.source_digest(
                *_EMBEDDING, make_embedding, make_stream_embedding, _merged, cache.write_through
            ),
            platform=jax.default_backend(),
        )

    def known(self, hashes: tuple[str, ...] | None) -> bool:
        """Whether the embeddings of these training images are in the cache, each process's own."""
        if self.cache_dir is None or hashes is None:
            return False
        mine = devices.share(len(hashes), self.layout)
        name = self.entry(hashes[mine.start : mine.stop])
        return all(processes.joined([not mine or cache.holds(self.cache_dir, name)]))

    def batches(self, split: loading.Split, *, cached: int | None = None) -> Iterator[np.ndarray]:
        """The patches of a split, `[n, P, D]` float32 at a time; `n` is the batch size but last.

        Args:
          split: the images, each one square: of `loading.views`, where there are windows.
          cached: how many images at a time come from the cache; the batch size by default.

        Raises:
          DatasetError: names the first image with features that are not finite.
        """
        made = self._embedded(split)
        if self.cache_dir is None or not split.examples:
            return made
        found = self.cached(split, cached or self.batch_size)
        if found is not None:
            return found
        name, shape = self.entry(split.hashes), (len(split.examples), *self.patch_shape)
        return cache.write_through(self.cache_dir, name, shape, made, self.cache_bytes)

    def cached(self, split: loading.Split, rows: int) -> Iterator[np.ndarray] | None:
        """The patches of a split from the cache, so many images at a time; None: they are not."""
        if self.cache_dir is None:
            return None
        return cache.read(self.cache_dir, self.entry(split.hashes), rows)

    def _embedded(self, split: loading.Split) -> Iterator[np.ndarray]:
        pixels = (loaded.image for loaded in loading.iterate(split, self.config))
        done = 0
        while batch := list(itertools.islice(pixels, self.batch_size)):
            features, finite = self.compiled(self.load(), pad(np.stack(batch), self.batch_size))
            finite = np.asarray(finite)[: len(batch)]
            if not finite.all():
                name = split.examples[done + int(np.argmin(finite))].name
                raise DatasetError(
                    f"{name}: its features are NaN, infinite or too large for float32; look at the"
                    " image and at --weights"
                )
            yield np.asarray(features)[: len(batch)]
            done += len(batch)


def make_embedding(config: Config, layout: devices.Layout | None = None) -> Callable:
    """What an `Embedder` calls: `(backbone, images) -> (patches, finite)`, compiled once."""

    def embed(state, images, *, apply):
        features, finite = _merged(config, apply(state, images), config.grid)
        return features.reshape(features.shape[0], -1, features.shape[-1]), finite

    return _compiled(embed, layout)


def make_stream_embedding(
    config: Config, streams: Sequence[Stream], layout: devices.Layout | None = None
) -> Callable:
    """The same for streams of one image size, whose patches lie one after the other.

    The patches are `[B, 1, F]` with `F = sum h w D`.
    """

    def embed(state, images, *, apply):
        levels = apply(state, images)
        found = [_merged(config, {s.level: levels[s.level]}, s.grid) for s in streams]
        flat = [features.reshape(features.shape[0], 1, -1) for features, _ in found]
        return jnp.concatenate(flat, axis=-1), jnp.all(jnp.stack([ok for _, ok in found]), axis=0)

    return _compiled(embed, layout)


def _merged(config: Config, levels: Mapping[str, jax.Array], grid: int):
    """The patches of some levels, `[B, h, w, D]`, and which images' are finite, `[B]`."""
    features = patches.merge_levels(levels, (grid, grid))
    # Squares, as distances need them; and before the norm could hide anything.
    finite = jnp.all(jnp.isfinite(jnp.sum(features**2, axis=-1)), axis=(1, 2))
    return patches.unit_norm(features) if config.unit_norm else features, finite


def _compiled(embed: Callable, layout: devices.Layout | None) -> Callable:
    compiled = devices.spread(embed, layout, static=("apply",))
    return lambda backbone, images: compiled(backbone.state, images, apply=backbone.embed)


def pad(batch: np.ndarray, size: int) -> np.ndarray:
    """A batch `[n, ...]` with zeros up to `[size, ...]`, so that one shape compiles once."""
    missing = size - len(batch)
    return np.pad(batch, ((0, missing), *[(0, 0)] * (batch.ndim - 1))) if missing else batch
