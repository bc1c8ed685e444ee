"""How large the squares of a category are, and its banks: large where its photographs are."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from sgfr_jax.datasets import Example
from sgfr_jax.datasets.geometry import Geometry
from sgfr_jax.detector import splits, streams
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.network import Network


def is_large(
    method: Method, network: Network, ways: Sequence[Geometry], train: Sequence[Example]
) -> bool:
    """Whether the photographs of a category have the pixels for large squares.

    They have if half of them have as many as the largest square that a stream would see. What
    tiles show is large already: there are large squares only where whole images are all that is
    seen, and squeezed.

    Args:
      method: from `settle.settle`.
      network: that it looks through.
      ways: in which the images are looked at, of `geometries.of_training_images`.
      train: the training images, whose shapes decide.

    Raises:
      DatasetError: if a training image is needed to tell, and cannot be read.
    """
    if method.large_image_size in (None, method.image_size):
        return False
    if [way.kind for way in ways] != ["square"]:
        return False
    needed = max(streams.sizes(streams.plan(enlarged(method), network)))
    pixels = [height * width for height, width in splits.shapes(train)]
    return bool(np.median(pixels) >= needed**2)


def enlarged(method: Method) -> Method:
    """The method with large squares: also with more streams and, unless it says how many, atoms."""
    return dataclasses.replace(method, image_size=method.large_image_size)
