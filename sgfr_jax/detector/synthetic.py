"""Synthetic defects on training images, from which a detector is chosen or weighed.

They are drawn by `sgfr_jax.datasets.synthesis`: every kind at several sizes, each a few times.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from sgfr_jax.datasets import Example, contents, images, synthesis
from sgfr_jax.datasets.geometry import Geometry
from sgfr_jax.detector import splits
from sgfr_jax.detector.splits import Split, Views

# Extents relative to the shorter side of an image, from a few pixels to nearly half of it.
SIZES = (0.04, 0.1, 0.2, 0.4)
# Of every kind and size.
COPIES = 3
_ATTEMPTS = 4
# Of an image that is kept until all are embedded: 3 MB each, where a photograph may have 36.
MOST_PIXELS = 1 << 20
# Twice the side of usual squares: with fewer pixels small defects would be lost.
_LEAST_SIDE = 512


class Drawn(NamedTuple):
    """Images with one defect each."""

    # One square of each image, that which shows most of the defect; the owners are the training
    # images that they were drawn on.
    seen: Views
    masks: np.ndarray  # [B, S, S] bool
    groups: list[str]  # the kind and size of each defect


def num_drawn() -> int:
    """How many images `draw` makes by default, at most."""
    return len(synthesis.KINDS) * len(SIZES) * COPIES


def draw(
    train: Split,
    seed: int,
    size: int,
    *,
    sizes: Sequence[float] | None = None,
    copies: int = COPIES,
    most_pixels: int | None = None,
    least_side: int = 0,
) -> Drawn:
    """Draws every kind of defect at every size on training images chosen at random.

    Args:
      train: nominal images; those with defects are seen through windows like theirs.
      seed: of the choice of images and of the defects.
      size: the side of the square that masks are resized to.
      sizes: extents of the defects, relative to the shorter side of an image; None: `SIZES`.
      copies: how many of each kind and size.
      most_pixels: what has more is kept with fewer, shrunk by a whole factor, but its shorter side
        to no less than twice `size`, or `_LEAST_SIDE`; None keeps all.
      least_side: the side of the largest square that a network sees, which the shorter side does
        not fall below either.

    Returns:
      The images; fewer where a kind leaves no trace, as blurring an even surface does, and none
      where no kind does.
    """
    least_side = least_shorter_side(size, least_side)
    seen, masks, groups, sources = [], [], [], []
    for number, (kind, extent, copy) in enumerate(
        (kind, extent, copy)
        for kind in sorted(synthesis.KINDS)
        for extent in (SIZES if sizes is None else sizes)
        for copy in range(copies)
    ):
        rng = np.random.default_rng([seed, number])
        for _ in range(_ATTEMPTS):
            source, donor = (int(i) for i in rng.integers(len(train.examples), size=2))
            image = images.read_native(train.examples[source]).image
            other = _like(image, images.read_native(train.examples[donor]).image)
            changed, mask = synthesis.draw(rng, image, kind, extent, donor=other)
            if mask.any():
                break
        else:
            continue
        group = f"{kind} {extent:g}"
        name = f"synthetic/{kind}/{extent:g}_{copy} on {train.examples[source].name}"
        drawn = Example(name, changed, 1, group, mask.astype(np.uint8))
        example, mask = _where_most_is_seen(drawn, train.geometry, size)
        seen.append(example if most_pixels is None else shrunk(example, most_pixels, least_side))
        masks.append(mask)
        groups.append(group)
        sources.append(source)
    split = Split(tuple(seen), tuple(map(_hash, seen)), None)
    extents = np.array([_extent(example) for example in seen], np.float32).reshape(-1, 2)
    return Drawn(
        Views(split, np.array(sources, int), None if (extents == 1).all() else extents),
        np.stack(masks) if masks else np.zeros((0, size, size), bool),
        groups,
    )


def _like(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The other image in the channels of the image, where one is grey and one has colours."""
    if image.ndim == 3:
        return other if other.ndim == 3 else np.repeat(other[..., None], 3, axis=2)
    return other if other.ndim == 2 else np.asarray(Image.fromarray(other).convert("L"))


def _where_most_is_seen(
    drawn: Example, geometry: Geometry, size: int
) -> tuple[Example, np.ndarray]:
    """Of an image's squares the one with the most of the mask, and the mask in it.

    The rest of the image is let go: there are many, and of any size.
    """
    split = splits.with_windows(Split((drawn,), ("",), None), geometry)
    squares = splits.views(split).split.examples
    masks = [images.read_example(square, size).mask for square in squares]
    best = int(np.argmax([mask.sum() for mask in masks]))
    return _alone(squares[best]), masks[best]


def _alone(example: Example) -> Example:
    """The part of an image that a window shows, as an image that is seen whole."""
    if example.window is None:
        return example
    part = images.read_native(example)
    return _of_pixels(example, part.image.copy(), part.mask)


def _of_pixels(example: Example, image: np.ndarray, mask: np.ndarray) -> Example:
    """The example with other pixels, all of which its window shows."""
    box = (0, 0, *image.shape[:2])
    window = None if example.window is None else example.window._replace(box=box)
    return example._replace(image=image, mask=mask.astype(np.uint8), window=window)


def _extent(example: Example) -> tuple[float, float]:
    return (1.0, 1.0) if example.window is None else example.window.extent


def least_shorter_side(size: int, least_side: int) -> int:
    """What the shorter side of an image is not shrunk below; arguments as of `draw`."""
    return max(min(2 * size, _LEAST_SIDE), least_side)


def shrunk(example: Example, most_pixels: int, least_side: int) -> Example:
    """An example of no more pixels, if its sides stay long enough; the means of squares of them.

    Args:
      example: whose image and mask are arrays.
      most_pixels: that it is to have.
      least_side: which its shorter side is not to fall below.
    """
    height, width = example.image.shape[:2]
    wanted = math.ceil(math.sqrt(height * width / most_pixels))
    factor = min(wanted, min(height, width) // least_side)
    if factor <= 1:
        return example
    image = np.asarray(Image.fromarray(example.image).reduce(factor))
    mask = np.asarray(Image.fromarray(255 * example.mask).reduce(factor)) > 0
    return _of_pixels(example, image, mask)


def coarse(masks: np.ndarray, step: int) -> np.ndarray:
    """Which cells of `step x step` pixels hold any of a mask, `[B, H // step, W // step]`."""
    rows, columns = (n - n % step for n in masks.shape[1:])
    cells = masks[:, :rows, :columns].reshape(len(masks), rows // step, step, columns // step, step)
    return cells.any(axis=(2, 4))


def _hash(example: Example) -> str:
    content = contents.content_hash(example.image)
    return content if example.window is None else f"{content} {example.window}"
