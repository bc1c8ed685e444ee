"""Foreseeing that memory will not do, before the work that would be lost."""

import collections
from collections.abc import Mapping

import jax
import psutil

from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.flags.config import Config
from sgfr_jax.detector import fitting, streams, synthetic

# Of every patch the samplers hold its features, and a block of distances and products.
_BLOCK_FLOATS = 160


def needed(config: Config, num_images: int) -> int:
    """Bytes that sampling from all patches of `num_images` images at once takes."""
    # Patches are read, and then put where samplers want them; a dictionary learns from all.
    copies = 3 if config.method.subspaces == "dictionary" else 2
    (stream,) = streams.plan(config.method, config.network)
    return 4 * num_images * stream.grid**2 * (copies * stream.width + _BLOCK_FLOATS)


def needed_by_streams(config: Config, num_squares: int, of_an_image: int = 1) -> int:
    """Bytes of the host's memory that streams take for `num_squares` squares of training images.

    They hold some images whole, of which one has `of_an_image` squares.
    """
    planned = streams.plan(config.method, config.network)
    each = sum(stream.grid**2 * stream.width for stream in planned)
    held = max(min(num_squares, fitting.CALIBRATION_IMAGES), of_an_image) + synthetic.num_drawn()
    by_size = collections.Counter()
    for stream in planned:
        patches = min(num_squares * stream.grid**2, fitting.SAMPLED_PATCHES)
        by_size[stream.image_size] += patches * stream.width
    # Read in batches, which are then put together: for a moment all is there twice.
    return 8 * (held * each + max(by_size.values()))


def available() -> int:
    """Bytes free on the device that JAX computes on, as far as it tells."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    return psutil.virtual_memory().available


def check_batch(config: Config, batch_size: int) -> None:
    """Checks that a batch of images fits in memory, whatever a network makes of them.

    Args:
      config: from `config.resolve`.
      batch_size: images embedded at a time.

    Raises:
      ConfigError: names the flag.
    """
    planned = streams.plan(config.method, config.network)
    side = planned[-1].image_size
    floats = max(stream.grid**2 * stream.width for stream in planned)
    # The images as uint8 and float32, and their features.
    need = batch_size * (15 * side**2 + 4 * floats)
    free = psutil.virtual_memory().available
    if need > free:
        raise ConfigError(
            f"--batch_size={batch_size} squares of {side} pixels a side take {need / 1e9:.1f} GB"
            f" with their features, and {free / 1e9:.1f} GB are free: lower it, --image_size or"
            " --grid"
        )


def check(
    config: Config, num_train: Mapping[str, int], num_parts: int = 1, of_an_image: int = 1
) -> None:
    """Checks that the device can hold the patches of the largest category, or its part of them.

    Args:
      config: from `config.resolve`.
      num_train: category to its number of training images, or of squares that show them.
      num_parts: memories that the patches are spread over.
      of_an_image: squares that show one image, at most.

    Raises:
      ConfigError: says what is needed, what there is and which flag to change.
    """
    category = max(num_train, key=num_train.__getitem__)
    if config.method.has_streams:
        _check_streams(config, category, num_train[category], of_an_image)
        return
    need, free = needed(config, num_train[category]) / num_parts, available()
    if need > free:
        raise ConfigError(
            f"category {category} needs about {need / 1e9:.1f} GB"
            + (" on every device" if num_parts > 1 else "")
            + f" to sample from all patches of {num_train[category]} images at once, and"
            f" {free / 1e9:.1f} GB are free: --layers=auto samples from a bounded number of"
            " patches, or lower --grid"
        )


def _check_streams(config: Config, category: str, num_squares: int, of_an_image: int) -> None:
    need = needed_by_streams(config, num_squares, of_an_image)
    free = psutil.virtual_memory().available
    if need > free:
        side = streams.plan(config.method, config.network)[-1].image_size
        raise ConfigError(
            f"category {category} needs about {need / 1e9:.1f} GB to weigh what streams see of"
            f" images up to {side} pixels a side, and {free / 1e9:.1f} GB are free: lower"
            " --image_size or the scales of --layers"
        )
