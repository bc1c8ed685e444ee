"""Validation without a label: held-out nominal training images, with and without drawn defects."""

from collections.abc import Iterator, Sequence

import numpy as np

from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.flags.config import Config
from sgfr_jax.datasets import Category, DatasetError, Example, images
from sgfr_jax.datasets.defects import DEFECTS
from sgfr_jax.detector import geometries, resolution, streams, synthetic
from sgfr_jax.detector.method import AUTO
from sgfr_jax.detector.splits import Split

# Extents relative to the shorter side of an image: those that detectors are weighed by, and most of
# the image, as what is wrong with a product may be.
SIZES = (*synthetic.SIZES, 0.8)
_OTHER_SEEDS = 2**32
_COPIES, _DEMO_COPIES = 1, 5  # of each kind and size, and of each of the demo's kinds


def of_category(
    category: Category,
    share: float,
    seed: int,
    *,
    size: int = 256,
    most_pixels: int | None = None,
    least_side: int = 0,
) -> Category:
    """The category whose test set is made of training images: some as they are, some spoilt.

    Args:
      category: of which only `train` is looked at.
      share: of the training images that validate; at least one, and not all.
      seed: of the split and of the defects.
      size: the largest `image_size` of a candidate.
      most_pixels: of a spoilt image, which is kept in memory; as of `synthetic.draw`.
      least_side: the side of the largest square that a candidate sees; as there.

    Raises:
      ConfigError: if there are fewer than two training images.
    """
    train = category.train
    if len(train) < 2:
        raise ConfigError(
            f"category {category.name} has {len(train)} training image: choosing needs at least two"
        )
    order = np.random.default_rng(seed).permutation(len(train))
    held = min(len(train) - 1, max(1, round(share * len(train))))
    nominal = tuple(train[i] for i in sorted(order[:held]))
    # Drawn on the held-out images alone, and not with the seed by which a detector draws its own.
    drawn = synthetic.draw(
        Split(nominal, (), None), seed + _OTHER_SEEDS, size, sizes=SIZES, copies=_COPIES,
        most_pixels=most_pixels, least_side=least_side,
    )  # fmt: skip
    others = _with_demo_defects(nominal, seed + _OTHER_SEEDS)
    if most_pixels is not None:
        least_side = synthetic.least_shorter_side(size, least_side)
        others = (synthetic.shrunk(example, most_pixels, least_side) for example in others)
    fitting = tuple(train[i] for i in sorted(order[held:]))
    return Category(category.name, fitting, (*nominal, *drawn.seen.split.examples, *others))


def _with_demo_defects(nominal: Sequence[Example], seed: int) -> Iterator[Example]:
    """The demo's kinds of defects, which no detector weighs its levels by."""
    for number, kind in enumerate(sorted(DEFECTS) * _DEMO_COPIES):
        rng = np.random.default_rng([seed, number])
        source = nominal[int(rng.integers(len(nominal)))]
        changed, mask = DEFECTS[kind](rng, images.read_native(source).image)
        if mask.any():
            name = f"demo/{kind}/{number} on {source.name}"
            yield Example(name, changed, 1, kind, mask.astype(np.uint8))


def of_all(
    categories: Sequence[Category], candidates: Sequence[Config], share: float, seed: int
) -> list[Category]:
    """The validation categories of some candidates; arguments as of `of_category`.

    Large spoilt images are shrunk, unless a candidate looks at pixels in their own size.
    """
    methods = [settings.method for settings in candidates]
    largest = [m if m.large_image_size is None else resolution.enlarged(m) for m in methods]
    sides = [
        streams.sizes(streams.plan(method, of.network))
        for method, of in zip(largest, candidates, strict=True)
    ]
    bound = {
        "size": max(method.image_size for method in largest),
        "least_side": max(max(found) for found in sides),
    }
    native = any(settings.evaluation.native for settings in candidates)
    as_they_are = native or any(method.tiled for method in methods)
    left_open = [method for method in methods if method.geometry == AUTO]

    def tiled(category: Category) -> bool:
        try:
            ways = geometries.of_training_images(left_open[0], category.train)
        except DatasetError:  # an image that --skip_bad_images may leave out
            return True
        return any(way.kind == "tile" for way in ways)

    found = []
    for category in categories:
        kept = as_they_are or (bool(left_open) and tiled(category))
        most = None if kept else synthetic.MOST_PIXELS
        found.append(of_category(category, share, seed, most_pixels=most, **bound))
    return found
