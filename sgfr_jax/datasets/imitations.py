"""Four products made by rule, with the shapes and sizes of defects that the demo lacks.

  circuit: fine sharp tracks of one layout; defects of 5 to 15 pixels.
  plate: ground metal under many exposures; large and faint defects, 60 to 150 pixels.
  washer: a part that lies anywhere, at any turn, on a table; defects of 14 to 60 pixels.
  weave: fine cloth of unequal threads; small and thin defects.

They serve to judge a choice of detector that was made without them: their defects are their own
(`sgfr_jax.datasets.products`), and no pixel is in two images.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sgfr_jax.datasets.products import circuit, plate, washer, weave
from sgfr_jax.datasets.selection import select_categories
from sgfr_jax.datasets.types import Category, DatasetError, Example

PRODUCTS = {"circuit": circuit, "plate": plate, "washer": washer, "weave": weave}
NUM_TRAIN, NUM_GOOD, NUM_PER_KIND = 100, 20, 8


def list_imitation(
    data_dir: Path | None, *, categories: Sequence[str] | None, split_seed: int
) -> tuple[Category, ...]:
    """Returns circuit, plate, washer and weave, images uint8 `[256, 256]` or `[256, 256, 3]`.

    Every image has a generator of its own, seeded with `split_seed`, its category and its place, so
    an image does not depend on which others are made.
    """
    if data_dir is not None:
        raise DatasetError(
            f"data set 'imitation' is built in and takes no data directory "
            f"(data_dir='{data_dir}'); for your own images use data set 'folder'."
        )
    names = select_categories(PRODUCTS, categories, dataset="imitation")
    return tuple(_category(name, split_seed) for name in names)


def _category(name: str, split_seed: int) -> Category:
    product = PRODUCTS[name]
    seed = (split_seed, sorted(PRODUCTS).index(name))

    def example(part: str, group: int, kind: str | None, i: int) -> Example:
        image, mask = product.make(np.random.default_rng((*seed, group, i)), kind)
        named = kind or "good"
        return Example(f"{part}/{named}/{i:03d}", image, int(kind is not None), named, mask)

    train = [example("train", 0, None, i) for i in range(NUM_TRAIN)]
    test = [example("test", 1, None, i) for i in range(NUM_GOOD)]
    for group, kind in enumerate(product.KINDS, start=2):
        test += [example("test", group, kind, i) for i in range(NUM_PER_KIND)]
    return Category(name, tuple(train), tuple(test))
