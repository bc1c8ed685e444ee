"""The default method with features of your own, here oriented gradients at two scales.

A bank for each level; each calibrated on nominal images, which are held out of it; and each weighed
by how well it finds synthetic defects.

python examples/default_method.py
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from skimage.feature import hog

from sgfr_jax import datasets, metrics
from sgfr_jax import detector as stages

SIZE = 128


def levels(images):
    """Yours: uint8 `[B, H, W, 3]` to `[B, h, w, D]` of each level, a list."""
    found = []
    for side in (8, 16):
        cells = {"pixels_per_cell": (side, side), "cells_per_block": (3, 3)}
        blocks = np.stack(
            [hog(image.mean(axis=-1), feature_vector=False, **cells) for image in images]
        )
        found.append(jnp.asarray(blocks.reshape(*blocks.shape[:3], -1), jnp.float32))
    return found


def fit(key, images, method):
    """The detector of nominal images `[B, H, W, 3]`."""
    nominal = levels(images)
    look = stages.fit_banks(key, nominal, method)
    look, held_out = stages.calibrate(look, nominal, method)
    spoilt, *drawn = stages.draw_defects(key, images, method)
    return stages.weigh(look, held_out, levels(spoilt), *drawn, method)


(grass,) = datasets.load("demo", categories=["grass"])
train = np.stack([datasets.read_example(example, SIZE).image for example in grass.train[:60]])
test = [datasets.read_example(example, SIZE) for example in grass.test]
new, masks = levels([example.image for example in test]), np.stack([x.mask for x in test])

method = stages.Method(image_size=SIZE, bank_size=200)
look = fit(jax.random.key(0), train, method)
score = jax.jit(partial(stages.score, method=method))
maps, scores = jax.device_get(score(look, new))

print("each level counts", ", ".join(f"{weight:.2f}" for weight in look.map_weights))
found = metrics.evaluate(scores, masks.any(axis=(1, 2)), maps, masks)
print(
    f"image AUROC {100 * found.image_auroc:.1f}, pixel AUROC {100 * found.pixel_auroc:.1f},"
    f" AUPRO {100 * found.aupro:.1f}"
)
