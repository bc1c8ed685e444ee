"""What a command lends to the stages of a detector: its devices, processes, bars and cache."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sgfr_jax import backbones, filters, linalg, patches
from sgfr_jax.commands.files import cache
from sgfr_jax.commands.host import devices, processes, progress
from sgfr_jax.datasets import geometry, images
from sgfr_jax.detector import embedding, streams
from sgfr_jax.detector.embedding import Embedder
from sgfr_jax.detector.services import Services

# What an embedding follows from: any edit of these makes other entries.
_EMBEDDING = (backbones, patches, filters, linalg, geometry, images, embedding, streams, cache)


class Resources(NamedTuple):
    """What a run may use and where it writes; none of it changes a number."""

    workdir: Path
    batch_size: int = 16
    workers: int = 0  # processes that read images; 0: threads of this one
    num_figures: int = 2
    num_review: int = 16  # pictures kept for a report's page: of the worst misses, and alarms
    save_maps: bool = False
    save_model: bool = False
    diagnose: bool = False
    cache_dir: Path | None = None  # of embeddings; None: none are kept
    cache_bytes: int = 0
    accept_license: bool = False  # what is missing may be downloaded
    mesh: str = devices.AUTO  # which devices; see `devices.parse`


class Kept(NamedTuple):
    """Embeddings in a directory, as `services.Kept` has them."""

    directory: Path
    limit: int  # bytes

    def read(self, described: Mapping[str, Any], rows: int) -> Iterator[np.ndarray] | None:
        """What was kept under a description, `rows` rows at a time; None where there is nothing."""
        return cache.read(self.directory, self.name(described), rows)

    def write(
        self, described: Mapping[str, Any], shape: tuple[int, ...], blocks: Iterator[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Passes on blocks, and keeps them when all have gone by."""
        return cache.write_through(self.directory, self.name(described), shape, blocks, self.limit)

    def name(self, described: Mapping[str, Any]) -> str:
        """The name of an entry: a hash of what it follows from, the code included."""
        code, platform = cache.source_digest(*_EMBEDDING), jax.default_backend()
        return cache.key(described=described, code=code, platform=platform)


def services(resources: Resources) -> Services:
    """The services of the machine as some resources allow.

    Raises:
      ConfigError: if there are too few devices.
    """
    layout = devices.lay_out(resources.mesh)
    kept = None
    if resources.cache_dir is not None:
        kept = Kept(resources.cache_dir, resources.cache_bytes)
    found = Services(
        batch_size=devices.round_up(resources.batch_size, layout),
        workers=resources.workers,
        progress=progress.bar,
        kept=kept,
        share=processes.share,
        share_images=processes.share,
        joined=processes.joined,
        agreed=processes.agreed,
    )
    if layout is None:
        return found
    return found._replace(
        compile=devices.Compiler(layout),
        put=partial(devices.put, layout=layout),
        replicate=partial(devices.replicate, layout=layout),
        sample=partial(devices.choose, layout=layout),
        share_images=partial(devices.share, layout=layout),
    )


def is_embedded(embedder: Embedder, hashes: tuple[str, ...]) -> bool:
    """Whether the embeddings of these training images are kept, each process's own."""
    kept = embedder.services.kept
    if kept is None or not all(hashes):
        return False
    mine = embedder.services.share_images(len(hashes))
    name = kept.name(embedder.described(hashes[mine.start : mine.stop]))
    return all(processes.joined([not mine or cache.holds(kept.directory, name)]))
