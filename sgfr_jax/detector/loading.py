"""Reading every image before the long work starts, so that a bad one is found at once."""

import contextlib
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sgfr_jax.commands.flags.config import AUTO, Config, strides
from sgfr_jax.commands.host import processes, progress
from sgfr_jax.datasets import Category, DatasetError, Encoded, Example, batches, decoding, images
from sgfr_jax.datasets.contents import content_hash, notes_on_copies
from sgfr_jax.datasets.geometry import Geometry, Window, windows
from sgfr_jax.datasets.types import FULL_RANGE
from sgfr_jax.detector import geometries

# Images are kept from the check when they fit in this; otherwise they are read again in turn.
KEPT_BYTES = 1 << 29
# Images read at a time.
_BATCH = 16


class Split(NamedTuple):
    """The training or the test images of a category, all of them readable."""

    examples: tuple[Example, ...]
    hashes: tuple[str, ...]  # of the images' bytes, and of how they are read and what part is meant
    kept: tuple[images.Loaded, ...] | None  # in memory; None: read again when asked for
    workers: int = 0  # processes that read; 0: threads of this one
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


class Checked(NamedTuple):
    """A category ready for the long work."""

    name: str
    train: Split
    test: Split
    notes: tuple[str, ...]  # what was left out
    # Of every look at the images; with the side of a tile, if there are tiles.
    geometries: tuple[Geometry, ...] = (Geometry(),)

    def looks(self) -> list["Checked"]:
        """The category once for every way in which its images are looked at, and named by it."""
        if len(self.geometries) == 1:
            return [self]
        each = zip(self.geometries, looks(self.train), looks(self.test), strict=True)
        return [
            self._replace(name=f"{self.name} ({of.kind})", train=train, test=test, geometries=(of,))
            for of, train, test in each
        ]

    def fingerprint(self) -> list:
        """What a result depends on: the images and masks, their names, classes and order."""
        examples = (*self.train.examples, *self.test.examples)
        return fingerprint(examples, (*self.train.hashes, *self.test.hashes))


def hash_images(examples: Sequence[Example]) -> tuple[str, ...]:
    """The content hash of every image, in threads; every process reads its share.

    What is read as white is added where that is not as usual: the same file gives other pixels.
    """
    hashes = _hash_all([example.image for example in examples])
    return tuple(
        of_image if example.white == FULL_RANGE or not of_image else f"{of_image} {example.white}"
        for example, of_image in zip(examples, hashes, strict=True)
    )


def of_contents(hashes: Sequence[str]) -> tuple[str, ...]:
    """The hashes of images' bytes alone, of a split's."""
    return tuple(of_image.partition(" ")[0] for of_image in hashes)


def fingerprint(examples: Sequence[Example], hashes: Sequence[str]) -> list:
    """The names and classes of images, and the contents of them and of their masks, in order.

    Args:
      examples: the images.
      hashes: theirs, of `hash_images` or a split.
    """
    masks = _hash_all([example.mask for example in examples])
    return [
        [e.name, e.label, e.kind, of_image, of_mask]
        for e, of_image, of_mask in zip(examples, hashes, masks, strict=True)
    ]


def _hash_all(sources: Sequence[Path | Encoded | np.ndarray | None]) -> tuple[str, ...]:
    mine = processes.share(len(sources))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = list(pool.map(content_hash, sources[mine.start : mine.stop]))
    return tuple(processes.joined(hashes))


def check(
    categories: Sequence[Category],
    config: Config,
    train_hashes: Mapping[str, tuple[str, ...]],
    embedded: Collection[str],
    *,
    workers: int = 0,
) -> list[Checked]:
    """Reads all images once, but for training images that were read before; each process a share.

    Args:
      categories: as listed.
      config: of the run.
      train_hashes: category to `hash_images` of its training images.
      embedded: names of the categories whose training images are embedded already, so that they
        can be read, and need not be.
      workers: processes that read, now and later; as of `batches.batches`.

    Raises:
      DatasetError: on the first bad image, unless `config.skip_bad_images`; or when a category
        has no training image left.
    """
    total = sum(len(c.train) + len(c.test) for c in categories)
    # An image and its mask. What a process checks is not what it needs later.
    keep = total * config.image_size**2 * 4 <= KEPT_BYTES and processes.count() == 1
    checked = []
    with progress.bar("reading images", len(processes.share(total)), "images") as report:
        for category in categories:
            hashes = train_hashes[category.name]
            if category.name in embedded:
                train, bad_train = Split(category.train, hashes, None, workers), 0
                report(len(processes.share(len(category.train))))
            else:
                unread = Split(category.train, hashes, None, workers)
                train, bad_train = _check(unread, config, keep, report)
            test_hashes = hash_images(category.test)
            unread = Split(category.test, test_hashes, None, workers)
            test, bad_test = _check(unread, config, keep, report)
            if not train.examples:
                raise DatasetError(f"category {category.name} has no training image left")
            bad = bad_train + bad_test
            notes = (
                *category.notes,
                *([f"{bad} bad images skipped"] if bad else []),
                *notes_on_copies(hashes, category.test, test_hashes),
            )
            found = Checked(category.name, train, test, notes)
            checked.append(_with_windows(found, config))
    return checked


def ways(train: Sequence[Example], config: Config) -> list[Geometry]:
    """How the images of a category are looked at; of `geometries.of_images`.

    Raises:
      DatasetError: if a training image is needed to tell, and cannot be read.
    """
    shapes = () if geometries.settled(config) else _shapes(train)
    return geometries.of_images(config, shapes)


def with_windows(split: Split, geometry: Geometry) -> Split:
    """The images of a split as they are to be seen in one way."""
    if geometry.kind == "square":
        return split
    shapes = _shapes(split.examples)
    found = tuple(windows(shape, geometry) for shape in shapes)
    if all(own == (Window((0, 0, *shape)),) for own, shape in zip(found, shapes, strict=True)):
        return split  # images that are squares already
    if geometry.kind == "crop":  # what lies outside is no part of the image any more
        return _meant(split, [window for (window,) in found])
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


def _meant(split: Split, parts: Sequence[Window]) -> Split:
    """The parts of images that windows show, as images of their own; to be read anew."""
    together = list(zip(split.examples, split.hashes, parts, strict=True))
    return split._replace(
        examples=tuple(example._replace(window=window) for example, _, window in together),
        hashes=tuple(f"{of_image} {window}" for _, of_image, window in together),
        kept=None,
    )


def view_hashes(
    train: Sequence[Example], hashes: tuple[str, ...], config: Config
) -> list[tuple[str, ...]] | None:
    """The content hashes of what every look sees of training images; None if one is unreadable."""
    split = Split(tuple(train), hashes, None)
    try:
        found = ways(split.examples, config)
        return [views(with_windows(split, geometry)).split.hashes for geometry in found]
    except DatasetError:
        return None


def _shapes(examples: Sequence[Example]) -> list[tuple[int, int]]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(decoding.shape_of, (example.image for example in examples)))


def _with_windows(category: Checked, config: Config) -> Checked:
    """The category as it is to be looked at; ways that come to the same are one."""
    found = {}
    for geometry in ways(category.train.examples, config):
        train, test = (with_windows(split, geometry) for split in (category.train, category.test))
        found.setdefault((train.windows, test.windows), (geometry, train, test))
    different, trains, tests = zip(*found.values(), strict=True)
    notes = category.notes
    if config.geometry == AUTO and len(different) > 1:
        kinds = "+".join(geometry.kind for geometry in different)
        notes += (f"training images differ in size or shape: looked at as --geometry={kinds}",)
    return category._replace(
        notes=notes,
        train=trains[0]._replace(also=trains[1:]),
        test=tests[0]._replace(also=tests[1:]),
        geometries=different,
    )


def iterate(split: Split, config: Config) -> Iterator[images.Loaded]:
    """The images of a split in order, from memory or read again.

    Raises:
      DatasetError: if an image has gone bad since the check.
    """
    if split.kept and split.kept[0].image.shape[0] == config.image_size:
        yield from split.kept
        return
    for _, result in _read(split, config):
        if isinstance(result, DatasetError):
            raise result
        yield result


def _check(
    split: Split, config: Config, keep: bool, report: Callable[[int], None]
) -> tuple[Split, int]:
    """The readable images of a split, and how many were skipped."""
    good, kept, skipped = [], [], 0
    mine = processes.share(len(split.examples))
    for index, result in _read(split.take(mine), config):
        report(1)
        if not isinstance(result, DatasetError):
            good.append(mine[index])
            if keep:
                kept.append(result)
        elif config.skip_bad_images:
            print(f"skipped: {result}", file=sys.stderr)
            skipped += 1
        else:
            raise DatasetError(f"{result} (--skip_bad_images goes on without it)")
    good, skipped = processes.joined(good), sum(processes.joined([skipped]))
    readable = Split(
        tuple(split.examples[i] for i in good),
        tuple(split.hashes[i] for i in good),
        tuple(kept) if keep else None,
        split.workers,
    )
    return readable, skipped


def _read(split: Split, config: Config) -> Iterator[tuple[int, images.Loaded | DatasetError]]:
    """The images of a split in order, each in place of what is wrong with it."""
    side, min_side = config.image_size, max(strides(config))
    if any(example.window for example in split.examples):
        read = images.WindowReader(side, min_side)
    else:
        read = partial(images.read_example, size=side, min_side=min_side)
    found = batches.batches(
        split.examples, read, size=(side, side), batch_size=_BATCH, workers=split.workers
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
