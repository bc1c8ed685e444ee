"""Which pixels make an image anomalous: the gradient of its score, through the network.

The whole way from pixels to score is differentiable. Followed downwards, the gradient takes the
image towards what the bank can mimic, and changes the defect most. It does so by a grey level or
so, as adversarial examples do: it tells where the defect is, and does not repair it.

python examples/gradient_of_a_score.py
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

import sgfr_jax as sgfr
from sgfr_jax import backbones, datasets

STEPS, STEP = 15, 2.0  # grey levels

backbone = backbones.load("efficientnet_lite0", levels=("block4", "block10"))
(brick,) = datasets.load("demo", categories=["brick"])
train = np.stack([datasets.read_example(example, 128).image for example in brick.train[:40]])
defect = next(example for example in brick.test if example.kind == "hole")
good = next(example for example in brick.test if example.kind == "good")
image, mask = datasets.read_example(defect, 128)


def embed(images):
    """Images `[B, 128, 128, 3]` to patches `[B, 256, D]` of unit norm."""
    levels = backbone.embed(backbone.state, images)
    features = sgfr.unit_norm(sgfr.merge_levels(levels, grid=(16, 16)))
    return features.reshape(len(images), 256, -1)


nominal = jax.jit(embed)(train)
patches = nominal.reshape(-1, nominal.shape[-1])
bank = sgfr.fit(
    jax.random.key(0), patches, jnp.ones(len(patches)), sample=sgfr.greedy_k_center, num_atoms=200
)
code = partial(sgfr.local_code, num_neighbors=10, solve=partial(sgfr.affine_ridge, ridge=1e-3))


def score(image):
    """The image's score, the largest value of its anomaly map; `[]`."""
    residuals = sgfr.score(bank, embed(image[None])[0], code=code).reshape(1, 16, 16)
    return sgfr.image_score(sgfr.anomaly_map(residuals, (128, 128), sigma=4.0))[0]


value_and_grad = jax.jit(jax.value_and_grad(score))
repaired = image.astype(np.float32)
before, gradient = value_and_grad(repaired)
for _ in range(STEPS):
    _, step = value_and_grad(repaired)
    repaired = np.clip(repaired - STEP * np.asarray(step / jnp.max(jnp.abs(step))), 0, 255)
after, _ = value_and_grad(repaired)
ordinary, _ = value_and_grad(datasets.read_example(good, 128).image.astype(np.float32))

near = ndimage.binary_dilation(mask, iterations=4)  # what the network sees of it
strength = np.abs(np.asarray(gradient)).mean(axis=-1)
change = np.abs(repaired - image).mean(axis=-1)
contrast = strength[near].mean() / strength[~near].mean()
print(f"the defect covers {100 * mask.mean():.1f}% of the image")
print(f"a pixel there has {contrast:.1f} times the gradient of one elsewhere")
print(
    f"{STEPS} steps down take the score from {before:.2f} to {after:.2f};"
    f" a nominal image has {ordinary:.2f}"
)
print(
    f"a pixel there changed by {change[near].mean():.1f} grey levels,"
    f" one elsewhere by {change[~near].mean():.1f}"
)
