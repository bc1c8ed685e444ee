"""Pixel scores on their way to the metrics: all of them while they fit, else their histogram."""

from collections.abc import Sequence

import numpy as np

from sgfr_jax import histograms, metrics
from sgfr_jax.datasets import images

# Anomaly maps of one category and solver are kept when they fit in this.
KEPT_BYTES = 1 << 30


class PixelScores:
    """Takes the maps of the images whose masks are known, and ranks their pixels at the end."""

    def __init__(self, num_images: int, size: int, *, exact: bool):
        """Makes room.

        Args:
          num_images: how many will come.
          size: of their maps, in pixels squared.
          exact: keep all scores, rather than their counts in bins.
        """
        self.exact = exact
        self.done = 0
        if exact:
            self.maps = np.empty((num_images, size, size), np.float32)
            self.masks = np.empty((num_images, size, size), bool)
        else:
            self.histogram = histograms.empty()

    def add(self, maps: np.ndarray, masks: Sequence[np.ndarray]) -> None:
        """Takes some images.

        Args:
          maps: `[n, S, S]`.
          masks: `n` times `[S, S]`; or `[H, W]`, to which the map is resized (not when `exact`).
        """
        if self.exact:
            rows = slice(self.done, self.done + len(maps))
            self.maps[rows], self.masks[rows] = maps, np.stack(masks)
            self.done = rows.stop
        elif all(mask.shape == maps.shape[1:] for mask in masks):
            self.histogram = histograms.add(self.histogram, maps, np.stack(masks))
        else:
            for found, mask in zip(maps, masks, strict=True):
                own = images.to_native(found, mask.shape)
                self.histogram = histograms.add(self.histogram, own[None], mask[None])

    def rankings(self, scores: np.ndarray, labels: np.ndarray) -> metrics.Rankings:
        """What all metrics are read off, with those of the image scores `[B]`, labels `[B]`."""
        if self.exact:
            maps, masks = self.maps[: self.done], self.masks[: self.done]
            return metrics.rankings(scores, labels, maps, masks)
        found = metrics.rankings(scores, labels)
        if not self.histogram.positives.any() or not self.histogram.negatives.any():
            return found
        pixels, regions = histograms.rankings(self.histogram)
        return found._replace(pixels=pixels, regions=regions)


def keep_all(num_images: int, size: int, num_solvers: int, choice: str) -> bool:
    """Whether `choice` (auto, exact or streaming) keeps all scores of so many maps."""
    if choice == "auto":
        return num_images * size**2 * 4 * num_solvers <= KEPT_BYTES
    return choice == "exact"
