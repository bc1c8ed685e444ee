"""A network that is none, and images for it: quick to compile, and known by heart."""

import jax.numpy as jnp
import numpy as np

from sgfr_jax.datasets import Example
from sgfr_jax.datasets.contents import content_hash
from sgfr_jax.detector import network, settle, synthetic
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.splits import Split

STRIDES, WIDTHS = {"fine": 8, "coarse": 16}, {"fine": 5, "coarse": 7}


def embed(state, images):
    """Of every cell how bright it is and how steep, mixed by the weights."""
    grey = jnp.asarray(images, jnp.float32).mean(axis=-1) / 128 - 1
    num, side = grey.shape[:2]  # a file for any batch has no number here
    around = jnp.pad(grey, ((0, 0), (0, 1), (0, 1)), mode="edge")
    down, right = (4 * jnp.abs(x - grey) for x in (around[:, 1:, :-1], around[:, :-1, 1:]))
    pixels = jnp.stack([grey, grey**2, down, right, down**2, right**2], axis=-1)
    found = {}
    for name, stride in STRIDES.items():
        beyond = -side % stride
        padded = jnp.pad(pixels, ((0, 0), (0, beyond), (0, beyond), (0, 0)), mode="edge")
        cells = padded.reshape(num, padded.shape[1] // stride, stride, -1, stride, 6)
        found[name] = jnp.tanh(jnp.tensordot(cells.mean(axis=(2, 4)), state[name], axes=1))
    return found


def make(seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    weights = {name: rng.normal(size=(6, num)).astype(np.float32) for name, num in WIDTHS.items()}
    return network.make(embed, strides=STRIDES, widths=WIDTHS, state=weights, **kwargs)


NETWORK = make()


def settled(**fields):
    """A method of small images, settled for the network."""
    few = {"backbone": NETWORK.name, "image_size": 64, "num_neighbors": 3}
    return settle.settle(Method(**few | fields), NETWORK)


def images(rng, num=6, shape=(64, 64, 3)):
    """Noise on waves that differ little, so that what is nominal has something to share."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    wave = 40 * np.sin(rows / 5) + 20 * np.sin(columns / 7)
    if len(shape) == 3:
        wave = wave[..., None]
    noisy = 110 + wave + rng.normal(0, 8, (num, *shape))
    return list(np.clip(noisy, 0, 254).astype(np.uint8))


def split_of(arrays):
    """Images in memory, with hashes."""
    examples = tuple(Example(f"image {i}", x, 0, "good", None) for i, x in enumerate(arrays))
    return Split(examples, tuple(map(content_hash, arrays)), None)


def stand_in(patch):
    """The commands look through it, whatever network they name."""
    patch.setattr(network, "describe", lambda name: NETWORK)
    patch.setattr(network, "ours", lambda name, weights=None, *, digest="": NETWORK)


def few_defects(patch):
    """Synthetic defects of two sizes, each kind once."""
    patch.setattr(synthetic, "SIZES", (0.1, 0.4))
    patch.setitem(synthetic.draw.__kwdefaults__, "copies", 1)
