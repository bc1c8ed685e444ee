"""Images as a detector takes them: listed, hashed, seen through windows, and read in turn."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sgfr_jax.datasets import DatasetError, Encoded, Example, batches, decoding, images
from sgfr_jax.datasets.contents import content_hash
from sgfr_jax.datasets.geometry import Geometry, Window, windows
from sgfr_jax.datasets.types import FULL_RANGE
from sgfr_jax.detector.services import PLAIN, Services

# Images read at a time.
_BATCH = 16


class Split(NamedTuple):
    """Some images, such as the training images of a category."""

    examples: tuple[Example, ...]
    hashes: tuple[str, ...]  # of the images' bytes, and of how they are read and what part is meant
    kept: tuple[images.Loaded, ...] | None  # in memory; None: read again when asked for
    # Through which each image is seen, and how they were laid; None: each as one full square.
    windows: tuple[tuple[Window, ...], ...] | None = None
    geometry: Geometry = Geometry()
    also: tuple["Split", ...] = ()  # the same images, as they are looked at besides

    def take(self, chosen: Sequence[int]) -> "Split":
        """Some of the images."""

        def some(items):
            return None if items is None else tuple(items[i] for i in chosen)

        return self._replace(
            examples=some(self.examples),
            hashes=some(self.hashes),
            kept=some(self.kept),
            windows=some(self.windows),
            also=tuple(split.take(chosen) for split in self.also),
        )


class Views(NamedTuple):
    """The `V` squares that a network sees of the images of a split, image by image."""

    split: Split  # whose examples they are
    owners: np.ndarray  # [V]: which image each shows
    extents: np.ndarray | None  # [V, 2] float32: the shares they fill; None: all are full

    def take(self, chosen: Sequence[int]) -> "Views":
        """Some of the squares."""
        extents = None if self.extents is None else self.extents[chosen]
        return Views(self.split.take(chosen), self.owners[chosen], extents)


def of_arrays(arrays: Sequence[np.ndarray], names: Sequence[str] | None = None) -> Split:
    """Images, uint8 `[H, W]` or `[H, W, 3]` each, without hashes; numbered if they have no name."""
    names = names or [f"image {number}" for number in range(len(arrays))]
    each = zip(names, arrays, strict=True)
    examples = tuple(Example(name, image, -1, "", None) for name, image in each)
    return Split(examples, ("",) * len(examples), None)


def hash_images(examples: Sequence[Example], services: Services = PLAIN) -> tuple[str, ...]:
    """The content hash of every image, in threads; every process reads its share.

    What is read as white is added where that is not as usual: the same file gives other pixels.
    """
    hashes = hash_all([example.image for example in examples], services)
    return tuple(
        hashed if example.white == FULL_RANGE or not hashed else f"{hashed} {example.white}"
        for example, hashed in zip(examples, hashes, strict=True)
    )


def of_contents(hashes: Sequence[str]) -> tuple[str, ...]:
    """The hashes of images' bytes alone, of a split's."""
    return tuple(hashed.partition(" ")[0] for hashed in hashes)


def fingerprint(
    examples: Sequence[Example], hashes: Sequence[str], services: Services = PLAIN
) -> list:
    """The names and classes of images, and the contents of them and of their masks, in order.

    Args:
      examples: the images.
      hashes: theirs, of `hash_images` or a split.
      services: whose processes share the work.
    """
    masks = hash_all([example.mask for example in examples], services)
    return [
        [e.name, e.label, e.kind, of_image, of_mask]
        for e, of_image, of_mask in zip(examples, hashes, masks, strict=True)
    ]


def hash_all(
    sources: Sequence[Path | Encoded | np.ndarray | None], services: Services = PLAIN
) -> tuple[str, ...]:
    """The content hash of every source; empty for None."""
    mine = services.share(len(sources))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = list(pool.map(content_hash, sources[mine.start : mine.stop]))
    return tuple(services.joined(hashes))


def with_windows(split: Split, geometry: Geometry) -> Split:
    """The images of a split as they are to be seen in one way."""
    if geometry.kind == "square":
        return split
    sides = shapes(split.examples)
    found = tuple(windows(shape, geometry) for shape in sides)
    squares = all(own == (Window((0, 0, *of)),) for own, of in zip(found, sides, strict=True))
    if geometry.kind == "crop":  # what lies outside is no part of the image any more
        return split if squares else _meant(split, [window for (window,) in found])
    if squares:
        return split._replace(geometry=geometry)
    return split._replace(windows=found, geometry=geometry)


def laid(split: Split, each: Sequence[Geometry]) -> Split:
    """The images of a split as they are to be looked at, in one way or several."""
    first, *others = (with_windows(split, geometry) for geometry in each)
    return first._replace(also=tuple(others))


def looks(split: Split) -> tuple[Split, ...]:
    """The images of a split once for every way in which they are looked at."""
    return (split._replace(also=()), *split.also)


def views(split: Split) -> Views:
    """The squares that a network sees of a split, in the first way in which it is looked at."""
    split = split._replace(also=())
    if split.windows is None:
        return Views(split, np.arange(len(split.examples)), None)
    owners = np.repeat(np.arange(len(split.examples)), [len(found) for found in split.windows])
    flat = [window for found in split.windows for window in found]
    extents = np.array([window.extent for window in flat], np.float32).reshape(-1, 2)
    full = bool((extents == 1).all())
    of_views = _meant(split.take(owners)._replace(windows=None), flat)
    return Views(of_views, owners, None if full else extents)


def num_views(split: Split) -> int:
    """How many `views` a split has."""
    return len(split.examples) if split.windows is None else sum(map(len, split.windows))


def shapes(examples: Sequence[Example]) -> list[tuple[int, int]]:
    """Heights and widths of images, as their files' headers say.

    Raises:
      DatasetError: if one cannot be read.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(decoding.shape_of, (example.image for example in examples)))


def iterate(
    split: Split, image_size: int, min_side: int, *, workers: int = 0
) -> Iterator[images.Loaded]:
    """The images of a split in order as squares, from memory or read again.

    Args:
      split: the images.
      image_size: the squares' side.
      min_side: an image with a shorter side is an error.
      workers: processes that read; 0: threads of this one.

    Raises:
      DatasetError: names the first image that cannot be read.
    """
    if split.kept and split.kept[0].image.shape[0] == image_size:
        yield from split.kept
        return
    for _, result in read(split, image_size, min_side, workers=workers):
        if isinstance(result, DatasetError):
            raise result
        yield result


def read(
    split: Split, image_size: int, min_side: int, *, workers: int = 0
) -> Iterator[tuple[int, images.Loaded | DatasetError]]:
    """As `iterate`, with the number of each image, and its error in place of a bad one."""
    if any(example.window for example in split.examples):
        reader = images.WindowReader(image_size, min_side)
    else:
        reader = partial(images.read_example, size=image_size, min_side=min_side)
    found = batches.batches(
        split.examples, reader, size=(image_size, image_size), batch_size=_BATCH, workers=workers
    )
    with contextlib.closing(found):
        for batch in found:
            for i, index in enumerate(batch.indices[batch.indices >= 0]):
                if batch.errors[i] is not None:
                    yield int(index), batch.errors[i]
                    continue
                # Copies: whoever keeps one image should not keep its batch.
                mask = batch.masks[i].copy() if batch.masked[i] else None
                yield int(index), images.Loaded(batch.images[i].copy(), mask)


def _meant(split: Split, parts: Sequence[Window]) -> Split:
    """The parts of images that windows show, as images of their own; to be read anew."""
    together = list(zip(split.examples, split.hashes, parts, strict=True))
    return split._replace(
        examples=tuple(example._replace(window=window) for example, _, window in together),
        hashes=tuple(f"{hashed} {window}" for _, hashed, window in together),
        kept=None,
    )
