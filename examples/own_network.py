"""Features of a network that is not ours: a small Flax one, trained here on nominal images alone.

It learns to tell how a crop was turned and which texture it is of, for which it needs to know how
brick, grass and gravel look. Its feature maps then go the way of any other network's.

python examples/own_network.py
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import sgfr_jax as sgfr
from sgfr_jax import datasets, metrics

NUM_STEPS, BATCH, CROP = 150, 48, 64


class Network(nnx.Module):
    """Three convolutions of stride 2, and a classifier over their mean."""

    def __init__(self, num_classes, *, rngs):
        layer = partial(nnx.Conv, kernel_size=(3, 3), strides=2, rngs=rngs)
        self.conv1, self.conv2, self.conv3 = layer(1, 16), layer(16, 32), layer(32, 48)
        self.head = nnx.Linear(48, num_classes, rngs=rngs)

    def levels(self, images):
        """Grey images `[B, H, W]` to feature maps of strides 4 and 8."""
        mean, std = (f(images, axis=(1, 2), keepdims=True) for f in (jnp.mean, jnp.std))
        x = nnx.relu(self.conv1(((images - mean) / std)[..., None]))
        x2 = nnx.relu(self.conv2(x))
        return {"conv2": x2, "conv3": nnx.relu(self.conv3(x2))}

    def __call__(self, images):
        """Logits `[B, classes]`."""
        return self.head(self.levels(images)["conv3"].mean(axis=(1, 2)))


def read(examples):
    """The images `[B, 128, 128]` and masks of examples."""
    loaded = [datasets.read_example(example, 128) for example in examples]
    return np.stack([x.image[..., 0] for x in loaded]), np.stack([x.mask for x in loaded])


def draw(rng):
    """A batch of turned crops, and which of 12 classes each is."""
    texture, turns = rng.integers(3, size=BATCH), rng.integers(4, size=BATCH)
    rows, columns = rng.integers(128 - CROP, size=(2, BATCH))
    which = rng.integers(nominal.shape[1], size=BATCH)
    crops = [
        np.rot90(nominal[t, i, r : r + CROP, c : c + CROP], k)
        for t, i, r, c, k in zip(texture, which, rows, columns, turns, strict=True)
    ]
    return np.stack(crops).astype(np.float32), 4 * texture + turns


@nnx.jit
def train_step(network, optimizer, images, classes):
    """One step; returns the share of crops told right before it."""

    def loss(network):
        logits = network(images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, classes).mean(), logits

    (_, logits), gradient = nnx.value_and_grad(loss, has_aux=True)(network)
    optimizer.update(network, gradient)
    return jnp.mean(jnp.argmax(logits, axis=-1) == classes)


products = datasets.load("demo")
nominal = np.stack([read(product.train[:60])[0] for product in products])
network = Network(12, rngs=nnx.Rngs(0))
optimizer = nnx.Optimizer(network, optax.adam(5e-3), wrt=nnx.Param)
rng = np.random.default_rng(0)
told = [float(train_step(network, optimizer, *draw(rng))) for _ in range(NUM_STEPS)]
print(f"texture and turn told right: {100 * np.mean(told[-20:]):.0f}% (by chance 8%)")


@nnx.jit
def embed(network, images):
    """Grey images `[B, 128, 128]` to patches `[B, 16, 16, D]` of unit norm."""
    return sgfr.unit_norm(sgfr.merge_levels(network.levels(images), grid=(16, 16)))


code = partial(sgfr.local_code, num_neighbors=10, solve=partial(sgfr.affine_ridge, ridge=1e-3))
results = {}
for product, train in zip(products, nominal, strict=True):
    images, masks = read(product.test)
    patches, new = embed(network, train), embed(network, images)
    flat = patches.reshape(-1, patches.shape[-1])
    bank = sgfr.fit(
        jax.random.key(0), flat, jnp.ones(len(flat)), sample=sgfr.greedy_k_center, num_atoms=150
    )
    scores = sgfr.score(bank, new.reshape(-1, new.shape[-1]), code=code)
    maps = np.asarray(sgfr.anomaly_map(scores.reshape(new.shape[:3]), (128, 128), sigma=4.0))
    found = metrics.evaluate(maps.max(axis=(1, 2)), masks.any(axis=(1, 2)), maps, masks)
    results[product.name] = found
    print(
        f"{product.name}: image AUROC {100 * found.image_auroc:.1f},"
        f" pixel AUROC {100 * found.pixel_auroc:.1f}, AUPRO {100 * found.aupro:.1f}"
    )
