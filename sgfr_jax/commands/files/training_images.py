"""The images that a model was fitted on, read again from where they lay."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sgfr_jax.commands.files import inputs
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.flags.config import Config
from sgfr_jax.datasets import DatasetError, Example, images
from sgfr_jax.datasets.contents import content_hash
from sgfr_jax.detector.model import Detector

# Images held at a time.
_HELD = 64


def make_reader(detector: Detector) -> Callable[[int], np.ndarray | None]:
    """What reads a training image again by its number: uint8 `[H, W]` or `[H, W, 3]`.

    None where it cannot be had: the file is gone or is another by now.
    """
    about = detector.about

    @functools.cache
    def without_files() -> dict[str, Example]:
        """Those of a data set that is built in or prepared, by name."""
        data = {
            n: tuple(v) if isinstance(v, list) else v for n, v in json.loads(about.source).items()
        }
        settings = Config.of(**data, seed=about.seed).replace(categories=(about.category,))
        try:
            (category,) = inputs.load_data(settings)
        except (ConfigError, DatasetError):  # a prepared data set that is gone
            return {}
        return {example.name: example for example in category.train}

    @functools.lru_cache(_HELD)
    def read(number: int) -> np.ndarray | None:
        name, path = about.train[number], about.paths[number]
        if path is not None:
            example = Example(name, Path(path), 0, "", None)
        else:
            example = without_files().get(name)
        # The hash is empty of an image that cannot be read, or that was not hashed.
        if example is None or content_hash(example.image) != about.hashes[number]:
            return None
        try:
            return images.read_native(example._replace(white=about.white)).image
        except DatasetError:
            return None

    return read
