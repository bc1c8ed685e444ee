"""The images that a model was fitted on, read again from where they lay."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sgfr_jax.commands import run
from sgfr_jax.datasets import DatasetError, Example, images
from sgfr_jax.detector import loading
from sgfr_jax.detector.choices import ConfigError
from sgfr_jax.detector.models import Model

# Images held at a time.
_HELD = 64


def make_reader(model: Model) -> Callable[[int], np.ndarray | None]:
    """What reads a training image again by its number: uint8 `[H, W]` or `[H, W, 3]`.

    None where it cannot be had: the file is gone or is another by now.
    """
    about = model.about

    @functools.cache
    def without_files() -> dict[str, Example]:
        """Those of a data set that is built in or prepared, by name."""
        settings = dataclasses.replace(model.config, categories=(about.category,))
        try:
            (category,) = run.load_data(settings)
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
        # The hash of what cannot be read is empty, as is that of an image that was not hashed.
        if example is None or loading.content_hash(example.image) != about.hashes[number]:
            return None
        try:
            return images.read_native(example._replace(white=about.white)).image
        except DatasetError:
            return None

    return read
