"""Four products made by rule, with the shapes and sizes of defects that the demo lacks.

  circuit: fine sharp tracks of one layout; defects of 5 to 15 pixels.
  plate: ground metal under many exposures; large and faint defects, 60 to 150 pixels.
  washer: a part that lies anywhere, at any turn, on a table; defects of 14 to 60 pixels.
  weave: fine cloth of unequal threads; small and thin defects.

They serve to judge a choice of detector that was made without them: their defects are their own
(`experiments.imitations`), and no pixel is in two images.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.imitations import circuit, plate, washer, weave
from sgfr_jax.datasets.types import Category, Example

PRODUCTS = {"circuit": circuit, "plate": plate, "washer": washer, "weave": weave}
NUM_TRAIN, NUM_GOOD, NUM_PER_KIND = 100, 20, 8


def draw(seed: int) -> Iterator[Category]:
    """Draws circuit, plate, washer and weave: images uint8 `[256, 256]` or `[256, 256, 3]`.

    Every image has a generator of its own, seeded with `seed`, its category and its place, so that
    an image does not depend on which others are made.
    """
    for name in sorted(PRODUCTS):
        yield _category(name, seed)


def write(directory: Path, seed: int) -> None:
    """Writes the products as the data set `folder` has them, masks included.

    Raises:
      FileExistsError: if the directory is there.
    """
    directory.mkdir(parents=True)
    for category in draw(seed):
        for example in (*category.train, *category.test):
            path = directory / category.name / f"{example.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(example.image).save(path)
            if example.mask is not None:
                of_mask = Path("ground_truth", example.kind, f"{path.stem}_mask.png")
                mask = directory / category.name / of_mask
                mask.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(example.mask.astype(np.uint8) * 255).save(mask)


def _category(name: str, seed: int) -> Category:
    product = PRODUCTS[name]
    place = sorted(PRODUCTS).index(name)

    def example(part: str, group: int, kind: str | None, i: int) -> Example:
        image, mask = product.make(np.random.default_rng((seed, place, group, i)), kind)
        named = kind or "good"
        return Example(f"{part}/{named}/{i:03d}", image, int(kind is not None), named, mask)

    train = [example("train", 0, None, i) for i in range(NUM_TRAIN)]
    test = [example("test", 1, None, i) for i in range(NUM_GOOD)]
    for group, kind in enumerate(product.KINDS, start=2):
        test += [example("test", group, kind, i) for i in range(NUM_PER_KIND)]
    return Category(name, tuple(train), tuple(test))
