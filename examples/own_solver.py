"""A solver that the library does not have, written here and passed in: softmax weights.

A solver for the nearest atoms is one function of one target, `solve(target [D], support [K, D],
valid [K]) -> coefficients [K]`. This one weighs atoms by their closeness, as an attention head does
its values; it is compared with two of the library's on one bank.

python examples/own_solver.py
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import sgfr_jax as sgfr
from sgfr_jax import backbones, datasets, metrics


def softmax_weights(target, support, valid, *, temperature):
    """Positive weights of sum one, `exp(-|z - a_k|^2 / (temperature m))` with `m` their mean."""
    squared = jnp.sum((target[None] - support) ** 2, axis=-1)
    mean = jnp.sum(squared, where=valid) / jnp.maximum(jnp.sum(valid), 1)
    closeness = jnp.where(valid, -squared / (temperature * mean + 1e-12), -jnp.inf)
    return jnp.where(valid, jax.nn.softmax(closeness), 0)


backbone = backbones.load("efficientnet_lite0", levels=("block4", "block10"))


@jax.jit
def embed(images):
    """Images `[B, 128, 128, 3]` to patches `[B, 16, 16, D]` of unit norm."""
    levels = backbone.embed(backbone.state, images)
    return sgfr.unit_norm(sgfr.merge_levels(levels, grid=(16, 16)))


(gravel,) = datasets.load("demo", categories=["gravel"])
train = np.stack([datasets.read_example(example, 128).image for example in gravel.train[:46]])
test = [datasets.read_example(example, 128) for example in gravel.test]
masks = np.stack([example.mask for example in test])

# As many of both: one compilation serves them.
nominal, new = embed(train), embed(np.stack([example.image for example in test]))
patches = nominal.reshape(-1, nominal.shape[-1])
bank = sgfr.fit(
    jax.random.key(0), patches, jnp.ones(len(patches)), sample=sgfr.greedy_k_center, num_atoms=100
)

results = {}
for name, num_neighbors, solve in (
    ("nearest", 1, sgfr.nearest),
    ("softmax weights", 10, partial(softmax_weights, temperature=0.1)),
    ("affine ridge", 10, partial(sgfr.affine_ridge, ridge=1e-3)),
):
    code = partial(sgfr.local_code, num_neighbors=num_neighbors, solve=solve)
    scores = sgfr.score(bank, new.reshape(-1, new.shape[-1]), code=code)
    maps = np.asarray(sgfr.anomaly_map(scores.reshape(new.shape[:3]), (128, 128), sigma=4.0))
    results[name] = metrics.evaluate(maps.max(axis=(1, 2)), masks.any(axis=(1, 2)), maps, masks)
    print(
        f"{name:>15}: pixel AP {100 * results[name].pixel_ap:.1f},"
        f" pixel AUROC {100 * results[name].pixel_auroc:.1f},"
        f" AUPRO {100 * results[name].aupro:.1f}"
    )
