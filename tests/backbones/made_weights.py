"""Weights, images and digests of feature maps that NumPy makes alike wherever it runs."""

import zlib

import numpy as np

from sgfr_jax.backbones import architectures, fitting, naming

NUM_CLASSES = 10
POSITION_SIZES = ((9, 4), (3, 16), (5, 5))  # of grids for `positions`
_VALUES = 256  # of each map that a golden file keeps


def make(shapes):
    """Returns `{name: float32 array}` of random weights, each seeded by its own name.

    The scale keeps activations of deep networks within a few orders of magnitude, and the
    statistics of the norms are far from 0 and 1, so that a wrong fold shows.
    """
    return {name: _array(name, shape) for name, shape in shapes.items()}


def with_classifier(shapes, weight, features):
    """Adds a small classifier under the layer name that a layout gives it."""
    classifier = {f"{weight}.weight": (NUM_CLASSES, features), f"{weight}.bias": (NUM_CLASSES,)}
    return {**shapes, **classifier}


def image_batch():
    """Returns uint8 `[2, 75, 96, 3]`: an odd side for the paddings, an even one, two images."""
    return np.random.default_rng(7).integers(0, 256, (2, 75, 96, 3), dtype=np.uint8)


def tiny_transformer(registers):
    """Returns an architecture with all that DINOv2's have, but 3 narrow blocks."""
    name = "tiny_reg" if registers else "tiny"
    return architectures._dinov2(name, 32, 3, 2, registers=registers)


def transformer_shapes(architecture, layout):
    """Returns the shapes of a whole file of a transformer, as it is published."""
    shapes = fitting.expected_shapes(architecture, layout)
    width, head = architecture.blocks[0].width, naming.classifier(architecture, layout)
    if head:
        shapes = with_classifier(shapes, head, architecture.features)
    if layout.name == "dinov2":
        return {**shapes, "mask_token": (1, width)}
    if layout.name.startswith("transformers"):
        first = naming.LAYOUTS[layout.name](architecture)["tokens"].first
        return {**shapes, first.replace("cls_token", "mask_token"): (1, width)}
    return shapes


def positions():
    """Returns float32 `[7, 7, 3]`."""
    return np.random.default_rng(13).normal(size=(7, 7, 3)).astype(np.float32)


def patch_batch(height=84, width=126):
    """Returns uint8 `[2, height, width, 3]`, in patches of 14 pixels: neither square nor native."""
    return np.random.default_rng(11).integers(0, 256, (2, height, width, 3), dtype=np.uint8)


def summary(features):
    """Returns some values of a map, spread evenly, its largest magnitude and its l2 norm."""
    flat = np.asarray(features, np.float64).ravel()
    chosen = np.linspace(0, flat.size - 1, min(_VALUES, flat.size)).astype(int)
    return flat[chosen].astype(np.float32), np.abs(flat).max(), np.linalg.norm(flat)


def _array(name, shape):
    uniform = np.random.default_rng(zlib.crc32(name.encode())).random(shape, dtype=np.float32)
    if name.endswith("running_var"):
        return uniform + np.float32(0.5)
    # Tokens and positions, as large as the patches that they stand beside, have three axes.
    if name.endswith(("running_mean", "bias", "mask_token")) or len(shape) == 3:
        return uniform - np.float32(0.5)
    if len(shape) == 1:  # the weight of a norm, or a layer scale
        return np.float32(0.4) * uniform + np.float32(0.6)
    bound = np.sqrt(6 / np.prod(shape[1:]))  # He et al. 2015: activations keep their variance
    return (np.float32(bound) * (2 * uniform - 1)).astype(np.float32)
