"""EfficientNet-Lite (see `architectures` for its sources)."""

import jax
import jax.numpy as jnp
from flax import nnx

from sgfr_jax.backbones import architectures, layers
from sgfr_jax.backbones.architectures import Architecture, Block


class InvertedResidual(nnx.Module):
    """Expansion, depthwise convolution and linear projection, added to the input where it fits."""

    def __init__(self, block: Block, *, same_padding: bool):
        """Builds the layers of one row of the table."""
        expands = block.inner != block.inputs
        self.expand = layers.Conv(1, block.inputs, block.inner) if expands else None
        self.depthwise = layers.DepthwiseConv(block.kernel, block.inner, stride=block.stride)
        self.project = layers.Conv(1, block.inner, block.outputs)
        self.shape = block
        self.same_padding = same_padding

    def __call__(self, images: jax.Array, depthwise: layers.DepthwiseFn) -> jax.Array:
        """Maps `[B, H, W, inputs]` to `[B, H / stride, W / stride, outputs]`."""
        x, block = images, self.shape
        if self.expand is not None:
            x = _relu6(self.expand(x))
        pads = _pads(x, block.kernel, block.stride, self.same_padding)
        x = _relu6(self.depthwise(x, pads, depthwise))
        x = self.project(x)
        return x + images if block.stride == 1 and block.inputs == block.outputs else x


class EfficientNetLite(nnx.Module):
    """The network up to the deepest of some levels, with a classifier if there are classes."""

    def __init__(self, architecture: Architecture, levels: tuple[str, ...], num_classes: int = 0):
        """Builds what `levels` need; a classifier needs `head` to be one of them."""
        blocks = architecture.blocks[: architectures.blocks_needed(architecture, levels)]
        same_padding = architecture.same_padding
        self.stem = layers.Conv(3, 3, architecture.widths["stem"], stride=2)
        self.blocks = nnx.List([InvertedResidual(b, same_padding=same_padding) for b in blocks])
        features = architecture.features
        self.head = layers.Conv(1, blocks[-1].outputs, features) if "head" in levels else None
        self.classifier = layers.Linear(features, num_classes) if num_classes else None
        self.levels = levels
        self.same_padding = same_padding

    def __call__(self, images: jax.Array, depthwise: layers.DepthwiseFn) -> dict[str, jax.Array]:
        """Maps normalised images `[B, H, W, 3]` to `{level: [B, h, w, D]}`.

        A block's level is its linear output, after the residual is added.
        """
        maps = {}
        x = _relu6(self.stem(images, _pads(images, 3, 2, self.same_padding)))
        maps["stem"] = x
        for i, block in enumerate(self.blocks):
            maps[f"block{i}"] = x = block(x, depthwise)
        if self.head is not None:
            maps["head"] = _relu6(self.head(x))
        return {level: maps[level] for level in self.levels}

    def logits(self, images: jax.Array, depthwise: layers.DepthwiseFn) -> jax.Array:
        """Maps normalised images `[B, H, W, 3]` to class scores `[B, num_classes]`."""
        return self.classifier(self(images, depthwise)["head"].mean((1, 2)))


def _relu6(x):
    return jnp.clip(x, 0.0, 6.0)


def _pads(images, kernel, stride, same_padding):
    if same_padding:
        return layers.same_pads(images.shape[1:3], kernel, stride)
    return layers.symmetric_pads(kernel)
