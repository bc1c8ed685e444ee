"""Synthetic defects on training images, from which a detector is chosen or weighed.

They are drawn by `sgfr_jax.datasets.synthesis`: every kind at several sizes, each a few times.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments import loading
from sgfr_jax.datasets import Example, images, synthesis

# Extents relative to the shorter side of an image, from a few pixels to nearly half of it.
SIZES = (0.04, 0.1, 0.2, 0.4)
# Of every kind and size.
COPIES = 3
_ATTEMPTS = 4


class Drawn(NamedTuple):
    """Images with one defect each."""

    # One square of each image, that which shows most of the defect; the owners are the training
    # images that they were drawn on.
    seen: loading.Views
    masks: np.ndarray  # [B, S, S] bool
    groups: list[str]  # the kind and size of each defect


def draw(train: loading.Split, seed: int, size: int, *, copies: int = COPIES) -> Drawn:
    """Draws every kind of defect at every size on training images chosen at random.

    Args:
      train: nominal images; those with defects are seen through windows like theirs.
      seed: of the choice of images and of the defects.
      size: the side of the square that masks are resized to.
      copies: how many of each kind and size.

    Returns:
      The images; fewer where a kind leaves no trace, as blurring an even surface does, and none
      where no kind does.
    """
    examples, groups, sources = [], [], []
    for number, (kind, extent, copy) in enumerate(
        (kind, extent, copy)
        for kind in sorted(synthesis.KINDS)
        for extent in SIZES
        for copy in range(copies)
    ):
        rng = np.random.default_rng([seed, number])
        for _ in range(_ATTEMPTS):
            source, donor = (int(i) for i in rng.integers(len(train.examples), size=2))
            image = images.read_native(train.examples[source]).image
            other = images.read_native(train.examples[donor]).image
            changed, mask = synthesis.draw(rng, image, kind, extent, donor=other)
            if mask.any():
                break
        else:
            continue
        group = f"{kind} {extent:g}"
        name = f"synthetic/{kind}/{extent:g}_{copy} on {train.examples[source].name}"
        examples.append(Example(name, changed, 1, group, mask.astype(np.uint8)))
        groups.append(group)
        sources.append(source)
    split = loading.Split(tuple(examples), tuple(map(_hash, examples)), None)
    seen = loading.views(loading.with_windows(split, train.geometry))
    masks = [images.read_example(example, size).mask for example in seen.split.examples]
    best = _most_defect(seen.owners, masks)
    stacked = np.stack([masks[i] for i in best]) if best else np.zeros((0, size, size), bool)
    # In the order of the images: the owners become what these were drawn on.
    return Drawn(seen.take(best)._replace(owners=np.array(sources, int)), stacked, groups)


def _most_defect(owners: np.ndarray, masks: Sequence[np.ndarray]) -> list[int]:
    """Of each image's squares, in order, the one with the most of the mask."""
    areas = np.array([mask.sum() for mask in masks])
    squares = (np.flatnonzero(owners == image) for image in np.unique(owners))
    return [int(own[np.argmax(areas[own])]) for own in squares]


def coarse(masks: np.ndarray, step: int) -> np.ndarray:
    """Which cells of `step x step` pixels hold any of a mask, `[B, H // step, W // step]`."""
    rows, columns = (n - n % step for n in masks.shape[1:])
    cells = masks[:, :rows, :columns].reshape(len(masks), rows // step, step, columns // step, step)
    return cells.any(axis=(2, 4))


def _hash(example: Example) -> str:
    return loading.content_hash(example.image)
