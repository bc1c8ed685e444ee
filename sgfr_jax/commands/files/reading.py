"""Reading every image before the long work starts, so that a bad one is found at once."""

import dataclasses
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from sgfr_jax.commands.flags.checking import as_flags
from sgfr_jax.commands.flags.config import Config
from sgfr_jax.commands.host import processes, progress
from sgfr_jax.datasets import Category, DatasetError, Example
from sgfr_jax.datasets.contents import notes_on_copies
from sgfr_jax.datasets.geometry import Geometry
from sgfr_jax.detector import geometries, resolution, settle, splits
from sgfr_jax.detector.method import AUTO
from sgfr_jax.detector.services import Services
from sgfr_jax.detector.splits import Split

# Images are kept from the check when they fit in this; otherwise they are read again in turn.
KEPT_BYTES = 1 << 29


class Checked(NamedTuple):
    """A category ready for the long work."""

    name: str
    train: Split
    test: Split
    notes: tuple[str, ...]  # what was left out
    # Of every look at the images; with the side of a tile, if there are tiles.
    geometries: tuple[Geometry, ...] = (Geometry(),)
    large: bool = False  # whether its images have the pixels for large squares

    def settings(self, config: Config) -> Config:
        """The configuration as it is for this category."""
        if not self.large:
            return config
        return dataclasses.replace(config, method=resolution.enlarged(config.method))

    def looks(self) -> list["Checked"]:
        """The category once for every way in which its images are looked at, and named by it."""
        if len(self.geometries) == 1:
            return [self]
        each = zip(self.geometries, splits.looks(self.train), splits.looks(self.test), strict=True)
        return [
            self._replace(name=f"{self.name} ({of.kind})", train=train, test=test, geometries=(of,))
            for of, train, test in each
        ]

    def fingerprint(self, services: Services) -> list:
        """What a result depends on: the images and masks, their names, classes and order."""
        examples = (*self.train.examples, *self.test.examples)
        hashes = (*self.train.hashes, *self.test.hashes)
        return splits.fingerprint(examples, hashes, services)


def check(
    categories: Sequence[Category],
    config: Config,
    train_hashes: Mapping[str, tuple[str, ...]],
    embedded: Collection[str],
    services: Services,
) -> list[Checked]:
    """Reads all images once, but for training images that were read before; each process a share.

    Args:
      categories: as listed.
      config: of the run.
      train_hashes: category to `splits.hash_images` of its training images.
      embedded: names of the categories whose training images are embedded already, so that they
        can be read, and need not be.
      services: of the machine.

    Raises:
      DatasetError: on the first bad image, unless `skip_bad_images`; or when a category has no
        training image left.
    """
    total = sum(len(c.train) + len(c.test) for c in categories)
    # An image and its mask. What a process checks is not what it needs later.
    keep = total * config.method.image_size**2 * 4 <= KEPT_BYTES and processes.count() == 1
    checked = []
    with progress.bar("reading images", len(processes.share(total)), "images") as report:
        for category in categories:
            hashes = train_hashes[category.name]
            unread = Split(category.train, hashes, None)
            if category.name in embedded:
                train, bad_train = unread, 0
                report(len(processes.share(len(category.train))))
            else:
                train, bad_train = _check(unread, config, keep, services, report)
            test_hashes = splits.hash_images(category.test, services)
            unread = Split(category.test, test_hashes, None)
            test, bad_test = _check(unread, config, keep, services, report)
            if not train.examples:
                raise DatasetError(f"category {category.name} has no training image left")
            bad = bad_train + bad_test
            notes = (
                *category.notes,
                *([f"{bad} bad images skipped"] if bad else []),
                *notes_on_copies(hashes, category.test, test_hashes),
            )
            found = Checked(category.name, train, test, notes)
            checked.append(_as_looked_at(found, config))
    return checked


def view_hashes(
    train: Sequence[Example], hashes: tuple[str, ...], config: Config
) -> tuple[list[tuple[str, ...]], bool] | None:
    """The content hashes of what every look sees of training images, and whether squares are large.

    None if an image is unreadable.
    """
    split = Split(tuple(train), hashes, None)
    try:
        found = geometries.of_training_images(config.method, split.examples)
        large = resolution.is_large(config.method, config.network, found, split.examples)
        seen = (splits.with_windows(split, geometry) for geometry in found)
        return [splits.views(of_look).split.hashes for of_look in seen], large
    except DatasetError:
        return None


def _as_looked_at(category: Checked, config: Config) -> Checked:
    """The category as it is to be looked at; ways that come to the same are one."""
    wanted = geometries.of_training_images(config.method, category.train.examples)
    found = geometries.different(wanted, category.train, category.test)
    different, trains, tests = zip(*found, strict=True)
    notes = category.notes
    if config.method.geometry == AUTO and len(different) > 1:
        kinds = "+".join(geometry.kind for geometry in different)
        notes += (
            "training images are long, or differ in size or shape: looked at as"
            f" --geometry={kinds}",
        )
    train = category.train.examples
    large = resolution.is_large(config.method, config.network, different, train)
    if large:
        seen, usual = config.method.large_image_size, config.method.image_size
        notes += (
            f"training images have the pixels for large squares, of {seen} pixels: these take"
            f" several times as long as --image_size={usual} would",
        )
    return category._replace(
        notes=notes,
        train=trains[0]._replace(also=trains[1:]),
        test=tests[0]._replace(also=tests[1:]),
        geometries=different,
        large=large,
    )


def _check(
    split: Split, config: Config, keep: bool, services: Services, report: Callable[[int], None]
) -> tuple[Split, int]:
    """The readable images of a split, and how many were skipped."""
    good, kept, skipped = [], [], 0
    mine = processes.share(len(split.examples))
    min_side = settle.largest_stride(config.method, config.network)
    for index, result in splits.read(
        split.take(mine), config.method.image_size, min_side, workers=services.workers
    ):
        report(1)
        if not isinstance(result, DatasetError):
            good.append(mine[index])
            if keep:
                kept.append(result)
        elif config.data.skip_bad_images:
            print(as_flags(f"skipped: {result}"), file=sys.stderr)
            skipped += 1
        else:
            raise DatasetError(f"{result} (--skip_bad_images goes on without it)")
    good, skipped = processes.joined(good), sum(processes.joined([skipped]))
    readable = Split(
        tuple(split.examples[i] for i in good),
        tuple(split.hashes[i] for i in good),
        tuple(kept) if keep else None,
    )
    return readable, skipped
