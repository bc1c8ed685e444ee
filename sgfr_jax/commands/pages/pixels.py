"""Pixel scores on their way to the metrics: all of them while they fit, else their histogram."""

from collections.abc import Sequence

import numpy as np

from sgfr_jax import histograms, metrics
from sgfr_jax.datasets.geometry import to_size

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

    def add(self, maps: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> None:
        """Takes some images.

        Args:
          maps: `n` times `[S, S]`, or of any size (not when `exact`).
          masks: `n` times `[H, W]`, to which maps are resized.
        """
        if self.exact:
            rows = slice(self.done, self.done + len(maps))
            self.maps[rows], self.masks[rows] = np.stack(maps), np.stack(masks)
            self.done = rows.stop
        elif len({x.shape for x in (*maps, *masks)}) == 1:
            self.histogram = histograms.add(self.histogram, np.stack(maps), np.stack(masks))
        else:
            for found, mask in zip(maps, masks, strict=True):
                own = to_size(found, mask.shape)
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
    """Whether `choice` (auto, exact or streaming) keeps all scores of the maps."""
    if choice == "auto":
        return num_images * size**2 * 4 * num_solvers <= KEPT_BYTES
    return choice == "exact"
