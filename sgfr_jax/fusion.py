"""How much each of several detectors counts, told from synthetic defects (NumPy; on the host).

No one level of a network serves every product, and which one serves cannot be read off nominal
images alone. Synthetic defects of many kinds and sizes say how well each detector sees each of
them. Picking the best would bet on the defects to come being like the synthetic ones; so every kind
and size has one vote, and shares it among the detectors by how close each comes to the best one.
What sees something that the others miss keeps a weight, however narrow it is.
"""

from collections.abc import Sequence

import numpy as np

from sgfr_jax import metrics


def precisions(
    maps: np.ndarray, masks: np.ndarray, groups: Sequence, nominal: np.ndarray
) -> np.ndarray:
    """Average precision of the pixels of each group of defects, against all that is nominal.

    Args:
      maps: `[B, H, W]` anomaly maps of images with defects.
      masks: `[B, H, W]` bool: where the defects are.
      groups: `[B]`: which group each image belongs to, such as its kind and size.
      nominal: `[V, H, W]` maps of nominal images.

    Returns:
      `[G]` float64, groups in sorted order; a group's precision counts its own images and all the
      nominal ones. NaN where a group has no defective pixel.

    Raises:
      ValueError: if shapes do not fit.
    """
    maps, masks = np.asarray(maps), np.asarray(masks, bool)
    if maps.shape != masks.shape or len(groups) != len(maps):
        raise ValueError(
            f"maps {maps.shape}, masks {masks.shape} and {len(groups)} groups must be as many"
        )
    ordinary = np.asarray(nominal).reshape(-1)
    found = []
    for group in sorted(set(groups)):
        of_group = np.array([other == group for other in groups])
        scores = np.concatenate([maps[of_group].reshape(-1), ordinary])
        labels = np.zeros(scores.shape, bool)
        labels[: scores.size - ordinary.size] = masks[of_group].reshape(-1)
        ranking = metrics.rank(scores, labels) if labels.any() else None
        found.append(np.nan if ranking is None else metrics.average_precision(ranking))
    return np.array(found)


def map_weights(precision: np.ndarray, *, power: float = 4.0) -> np.ndarray:
    """Weights of detectors: the votes of the groups of defects, each shared by precision.

    `w_i = mean_g (q_ig / max_j q_jg)^power / sum_k (q_kg / max_j q_jg)^power`, a rule of this
    project (`docs/results.md` has what it was compared with).

    Args:
      precision: `[S, G]` of `S` detectors, from `precisions`; a group that is NaN does not count.
      power: 0 weighs all alike; the larger, the more of its vote a group gives to the best.

    Returns:
      `[S]` float64, not negative, sum 1.
    """
    best = np.max(precision, axis=0)
    counted = best > 0  # NaN is not
    if not counted.any():
        return np.full(len(precision), 1 / len(precision))
    relative = (precision[:, counted] / best[counted]) ** power
    return np.mean(relative / np.sum(relative, axis=0), axis=1)


def image_weights(synthetic: np.ndarray, nominal: np.ndarray, *, power: float = 2.0) -> np.ndarray:
    """Weights of detectors for the image score: how far their image AUROC exceeds chance.

    Args:
      synthetic: `[S, B]` image scores of images with defects.
      nominal: `[S, V]` image scores of nominal images.
      power: as of `map_weights`.

    Returns:
      `[S]` float64, not negative, sum 1.
    """
    labels = np.arange(synthetic.shape[1] + nominal.shape[1]) < synthetic.shape[1]
    areas = np.array([
        metrics.roc_area(metrics.rank(np.concatenate(both), labels))
        for both in zip(synthetic, nominal, strict=True)
    ])  # fmt: skip
    excess = np.maximum(areas - 0.5, 0) ** power
    total = np.sum(excess)
    return excess / total if total > 0 else np.full(len(excess), 1 / len(excess))
