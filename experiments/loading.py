"""Reading every image before the long work starts, so that a bad one is found at once."""

import os
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from experiments import progress
from experiments.config import Config, strides
from sgfr_jax.datasets import Category, DatasetError, Example, images

# Images are kept from the check when they fit in this; otherwise they are read again in turn.
KEPT_BYTES = 1 << 30


class Loaded(NamedTuple):
    """A category's images in memory, train and test alike in the order of its examples."""

    train: list[images.Loaded]
    test: list[images.Loaded]


class Checked(NamedTuple):
    """The categories whose images can all be read, and those images if they fit in memory."""

    categories: tuple[Category, ...]
    loaded: dict[str, Loaded]
    notes: dict[str, list[str]]  # category to what was left out of it


def check(categories: Sequence[Category], config: Config) -> Checked:
    """Reads all images once.

    Raises:
      DatasetError: on the first bad image, unless `config.skip_bad_images`; or when a category
        has no training image left.
    """
    total = sum(len(c.train) + len(c.test) for c in categories)
    # An image and its mask.
    keep = total * config.image_size**2 * 4 <= KEPT_BYTES
    fine, loaded, notes = [], {}, {}
    with progress.bar("reading images", total, "images") as report:
        for category in categories:
            splits, skipped = [], 0
            for split in (category.train, category.test):
                good = []
                for example, result in read(split, config):
                    report(1)
                    if not isinstance(result, DatasetError):
                        good.append((example, result if keep else None))
                    elif config.skip_bad_images:
                        print(f"skipped: {result}", file=sys.stderr)
                        skipped += 1
                    else:
                        raise DatasetError(f"{result} (--skip_bad_images goes on without it)")
                splits.append(good)
            train, test = splits
            if skipped:
                notes[category.name] = [f"{skipped} bad images skipped"]
            if not train:
                raise DatasetError(f"category {category.name} has no training image left")
            fine.append(
                category._replace(
                    train=tuple(example for example, _ in train),
                    test=tuple(example for example, _ in test),
                )
            )
            if keep:
                loaded[category.name] = Loaded([r for _, r in train], [r for _, r in test])
    return Checked(tuple(fine), loaded, notes)


def load(category: Category, checked: Checked, config: Config) -> Loaded:
    """The images of one checked category, from memory or read again.

    Raises:
      DatasetError: if an image has gone bad since the check.
    """
    if category.name in checked.loaded:
        return checked.loaded[category.name]
    splits = []
    for split in (category.train, category.test):
        results = [result for _, result in read(split, config)]
        for result in results:
            if isinstance(result, DatasetError):
                raise result
        splits.append(results)
    return Loaded(*splits)


def read(
    examples: Sequence[Example], config: Config
) -> Iterator[tuple[Example, images.Loaded | DatasetError]]:
    """Every example with its image, or with what is wrong with it."""
    results = images.read_examples(
        examples, config.image_size, min_side=max(strides(config)), workers=os.cpu_count() or 1
    )
    for index, result in results:
        yield examples[index], result


def fingerprint(category: Category) -> list:
    """What a record's hash holds of its data: names, classes, and the files' sizes and times."""

    def of_file(source) -> tuple | None:
        if source is None or isinstance(source, np.ndarray):
            return None
        status = source.stat()
        return status.st_size, status.st_mtime_ns

    return [
        [example.name, example.label, example.kind, of_file(example.image), of_file(example.mask)]
        for split in (category.train, category.test)
        for example in split
    ]
