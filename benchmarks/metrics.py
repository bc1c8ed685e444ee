"""Evaluating a test set: image and pixel AUROC, AP, F1-max and AUPRO, exact, at 38.2M pixels.

Ours twice: exact, and from a histogram that sees 16 images at a time, as a run does whose maps do
not fit in memory. Against anomalib's metrics (the same list, torchmetrics' exact curves), adeval
(AUROC, AP and AUPRO of pixels from 1,000 bins, approximate) and scikit-learn (AUROC and AP of
pixels alone, exact). All see the same maps and masks in memory; their values are in the JSON.

    taskset -c 0 python -m benchmarks.metrics --peers=.venv-peers/bin/python
"""

import argparse
from functools import partial

import numpy as np
from scipy import ndimage

from benchmarks import machine, report, timing, workers
from sgfr_jax import histograms, metrics

_STREAMING = f"{report.OURS}, streaming"
_BATCH = 16  # images


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this benchmark."""
    parser.add_argument("--images", type=int, default=583)
    parser.add_argument("--size", type=int, default=256, help="pixels per side")


def measure(options: argparse.Namespace, peers: workers.Peers) -> list[report.Row]:
    """Measures one evaluation of all metrics."""
    maps, masks = made_maps(options.images, options.size)
    scores, labels = maps.max(axis=(1, 2)), masks.any(axis=(1, 2))
    given = {"maps": maps, "masks": masks}
    contenders = {
        report.OURS: timing.contender(partial(metrics.evaluate, scores, labels, maps, masks)),
        _STREAMING: timing.contender(partial(streamed, maps, masks)),
        **peers.contender("anomalib", "scores:anomalib_metrics", **given),
        **peers.contender("adeval", "scores:adeval_metrics", **given),
        **peers.contender("scikit-learn", "scores:scikit_learn_metrics", **given),
    }
    timed = timing.alternate(contenders, repeats=options.repeats)
    values = {who: found.value for who, found in timed.items()}
    values[report.OURS] = values[report.OURS]._asdict()
    return report.rows(
        f"metrics of {maps.size / 1e6:.1f}M pixels",
        timed,
        # Every score and label read once; how much sorting must cost is not a number.
        work=machine.Work(0.0, maps.nbytes + masks.nbytes),
        notes={
            report.OURS: "exact, 8 metrics",
            _STREAMING: "5 of them, from 2^20 bins",
            "anomalib": "exact, 7 of them",
            "adeval": "3 of them, from 1,000 bins",
            "scikit-learn": "2 of them, exact",
        },
        values=values,
    )


def streamed(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """Pixel metrics from a histogram of maps that come a batch at a time."""
    histogram = histograms.empty()
    for start in range(0, len(maps), _BATCH):
        batch = slice(start, start + _BATCH)
        histogram = histograms.add(histogram, maps[batch], masks[batch])
    pixels, regions = histograms.rankings(histogram)
    return {
        "pixel_auroc": metrics.roc_area(pixels),
        "pixel_ap": metrics.average_precision(pixels),
        "pixel_f1_max": metrics.f1_max(pixels)[0],
        "aupro": metrics.roc_area(regions, max_fpr=0.3),
        "aupro_05": metrics.roc_area(regions, max_fpr=0.05),
    }


def made_maps(num_images: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth noise with a faint bump at each defect; two images in three are defective.

    Returns:
      Maps float32 and masks bool, `[num_images, size, size]`.
    """
    rng = np.random.default_rng(0)
    maps = np.empty((num_images, size, size), np.float32)
    masks = np.zeros(maps.shape, bool)
    rows, columns = np.ogrid[:size, :size]
    for i in range(num_images):
        noise = ndimage.gaussian_filter(rng.standard_normal((size, size), np.float32), 4.0)
        maps[i] = 1 + noise
        for _ in range(rng.integers(1, 4) if i % 3 else 0):
            y, x = rng.integers(0, size, 2)
            radius = rng.uniform(0.02, 0.12) * size
            away = (rows - y) ** 2 + (columns - x) ** 2
            masks[i] |= away < radius**2
            maps[i] += np.float32(rng.uniform(0.02, 0.2)) * np.exp(-away / (2 * radius**2))
    return maps, masks


if __name__ == "__main__":
    report.run(measure, __doc__, add_flags=add_flags, repeats=3)
