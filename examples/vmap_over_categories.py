"""Three products fitted and scored at once: `vmap` over categories of different sizes.

Fitting and scoring are pure functions of arrays of fixed shape, in which a weight of 0 says that a
patch is padding. So a batch of categories is `jax.vmap`, and nothing is written twice.

python examples/vmap_over_categories.py
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import sgfr_jax as sgfr
from sgfr_jax import backbones, datasets, metrics, sharding

NUM_TRAIN = {"brick": 40, "grass": 30, "gravel": 20}

backbone = backbones.load("efficientnet_lite0", levels=("block4", "block10"))


@jax.jit
def embed(images):
    """Images `[B, 128, 128, 3]` to patches `[B, 16, 16, D]` of unit norm."""
    levels = backbone.embed(backbone.state, images)
    return sgfr.unit_norm(sgfr.merge_levels(levels, grid=(16, 16)))


def read(examples):
    """The images `[B, 128, 128, 3]`."""
    return np.stack([datasets.read_example(example, 128).image for example in examples])


products = datasets.load("demo")
# As many as are tested, so that one compilation serves both; then what each product has.
train = [embed(read(product.train[:46]))[: NUM_TRAIN[product.name]] for product in products]
test = jnp.stack([embed(read(product.test)) for product in products])  # [C, B, 16, 16, D]
labels = np.array([[example.label for example in product.test] for product in products]) == 1

patches, weights = sharding.stack_categories([part.reshape(-1, part.shape[-1]) for part in train])
fit = partial(sgfr.fit, sample=sgfr.greedy_k_center, num_atoms=100)
code = partial(sgfr.local_code, num_neighbors=10, solve=partial(sgfr.affine_ridge, ridge=1e-3))


@jax.jit
def fit_and_score(key, patches, weights, test):
    """Banks with a leading `C`, and scores `[C, B, 16, 16]`."""
    banks = jax.vmap(fit, in_axes=(None, 0, 0))(key, patches, weights)
    flat = test.reshape(len(test), -1, test.shape[-1])
    scores = jax.vmap(partial(sgfr.score, code=code))(banks, flat)
    return banks, scores.reshape(test.shape[:-1])


banks, scores = fit_and_score(jax.random.key(0), patches, weights, test)
for product, of_product, truth in zip(products, scores, labels, strict=True):
    maps = sgfr.anomaly_map(of_product, (128, 128), sigma=4.0)
    ranking = metrics.rank(np.asarray(sgfr.image_score(maps)), truth)
    print(
        f"{product.name}: {NUM_TRAIN[product.name]} nominal images,"
        f" image AUROC {100 * metrics.roc_area(ranking):.1f}"
    )
