"""Ten lines that fit and score a feature function of your own: oriented gradients of grass.

python examples/own_features.py
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from skimage.feature import hog

import sgfr_jax as sgfr
from sgfr_jax import datasets, metrics


def features(images):
    """Yours: `[B, H, W, 3]` to `[B, h, w, D]`. Here a patch is 3 x 3 cells of 9 directions each."""
    cells = {"pixels_per_cell": (8, 8), "cells_per_block": (3, 3), "feature_vector": False}
    blocks = np.stack([hog(image.mean(axis=-1), **cells) for image in images])
    return jnp.asarray(blocks.reshape(*blocks.shape[:3], -1), jnp.float32)


(grass,) = datasets.load("demo", categories=["grass"])
train = np.stack([datasets.read_example(example, 128).image for example in grass.train[:60]])
test = [datasets.read_example(example, 128) for example in grass.test]
masks = np.stack([example.mask for example in test])

nominal, new = features(train), features([example.image for example in test])
patches = nominal.reshape(-1, nominal.shape[-1])
bank = sgfr.fit(
    jax.random.key(0), patches, jnp.ones(len(patches)), sample=sgfr.greedy_k_center, num_atoms=200
)
for name, num_neighbors in (("the nearest atom", 1), ("ten nearest atoms", 10)):
    code = partial(
        sgfr.local_code, num_neighbors=num_neighbors, solve=partial(sgfr.affine_ridge, ridge=1e-3)
    )
    scores = sgfr.score(bank, new.reshape(-1, new.shape[-1]), code=code)
    maps = np.asarray(sgfr.anomaly_map(scores.reshape(new.shape[:3]), (128, 128), sigma=4.0))
    found = metrics.evaluate(maps.max(axis=(1, 2)), masks.any(axis=(1, 2)), maps, masks)
    print(
        f"oriented gradients, {name}: image AUROC {100 * found.image_auroc:.1f},"
        f" pixel AUROC {100 * found.pixel_auroc:.1f}, AUPRO {100 * found.aupro:.1f}"
    )
