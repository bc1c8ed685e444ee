"""Metrics of the peers; each returns the values that it defines, under our names."""

from collections.abc import Callable

import numpy as np


def anomalib_metrics(maps: np.ndarray, masks: np.ndarray) -> Callable[[], dict[str, float]]:
    """anomalib's AUROC, AUPR, F1Max and AUPRO of pixels, and the first three of images."""
    import torch
    from anomalib.metrics.aupr import _AUPR
    from anomalib.metrics.aupro import _AUPRO
    from anomalib.metrics.auroc import _AUROC
    from anomalib.metrics.f1_score import _F1Max

    from benchmarks.peers import threads

    threads.limit()
    # The classes below the wrappers that pick fields of a batch.
    curves = {"auroc": _AUROC, "ap": _AUPR, "f1_max": _F1Max}
    maps, masks = torch.from_numpy(maps), torch.from_numpy(masks).int()
    images, labels = maps.amax((1, 2)), masks.amax((1, 2))

    def evaluate():
        values = {}
        for level, scores, truth in (("image", images, labels), ("pixel", maps, masks)):
            for name, curve in curves.items():
                metric = curve()
                metric.update(scores.flatten(), truth.flatten())
                values[f"{level}_{name}"] = float(metric.compute())
        metric = _AUPRO(fpr_limit=0.3)
        metric.update(maps, masks)
        values["aupro"] = float(metric.compute())
        return values

    return evaluate


def adeval_metrics(maps: np.ndarray, masks: np.ndarray) -> Callable[[], dict[str, float]]:
    """adeval's three, of pixels, from histograms of 1,000 bins."""
    import adeval

    # adeval 1.1 calls what NumPy 2.4 has renamed.
    if not hasattr(np, "trapz"):
        np.trapz = np.trapezoid  # noqa: NPY201
    masks = masks.astype(np.uint8)

    def evaluate():
        auroc, ap, aupro = adeval.auroc_aupr_aupro(list(maps), list(masks))
        return {"pixel_auroc": float(auroc), "pixel_ap": float(ap), "aupro": float(aupro)}

    return evaluate


def scikit_learn_metrics(maps: np.ndarray, masks: np.ndarray) -> Callable[[], dict[str, float]]:
    """scikit-learn's AUROC and AP, of pixels."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores, truth = maps.ravel(), masks.ravel()

    def evaluate():
        return {
            "pixel_auroc": float(roc_auc_score(truth, scores)),
            "pixel_ap": float(average_precision_score(truth, scores)),
        }

    return evaluate
