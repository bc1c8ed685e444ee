"""ResNet and Wide ResNet (see `architectures` for their sources)."""

import jax
from flax import nnx

from sgfr_jax.backbones import architectures, layers
from sgfr_jax.backbones.architectures import Architecture, Block


class Residual(nnx.Module):
    """Two 3x3 convolutions, or a 3x3 between two 1x1, added to the input and rectified."""

    def __init__(self, block: Block, *, bottleneck: bool):
        """Builds the layers of one row of the table."""
        inputs, inner, outputs, stride = block.inputs, block.inner, block.outputs, block.stride
        if bottleneck:
            self.conv1 = layers.Conv(1, inputs, inner)
            self.conv2 = layers.Conv(3, inner, inner, stride=stride)
            self.conv3 = layers.Conv(1, inner, outputs)
        else:
            self.conv1 = layers.Conv(3, inputs, inner, stride=stride)
            self.conv2 = layers.Conv(3, inner, outputs)
        fits = stride == 1 and inputs == outputs
        self.shortcut = None if fits else layers.Conv(1, inputs, outputs, stride=stride)
        self.bottleneck = bottleneck

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps `[B, H, W, inputs]` to `[B, H / stride, W / stride, outputs]`."""
        around = layers.symmetric_pads(3)
        if self.bottleneck:
            x = nnx.relu(self.conv1(images))
            x = nnx.relu(self.conv2(x, around))
            x = self.conv3(x)
        else:
            x = nnx.relu(self.conv1(images, around))
            x = self.conv2(x, around)
        return nnx.relu(x + (images if self.shortcut is None else self.shortcut(images)))


class ResNet(nnx.Module):
    """The network up to the deepest of some levels, with a classifier if there are classes."""

    def __init__(self, architecture: Architecture, levels: tuple[str, ...], num_classes: int = 0):
        """Builds what `levels` need; a classifier needs `layer4` to be one of them."""
        blocks = architecture.blocks[: architectures.blocks_needed(architecture, levels)]
        bottleneck = architecture.bottleneck
        self.stem = layers.Conv(7, 3, architecture.widths["stem"], stride=2)
        self.blocks = nnx.List([Residual(block, bottleneck=bottleneck) for block in blocks])
        features = architecture.features
        self.classifier = layers.Linear(features, num_classes) if num_classes else None
        self.levels = levels
        self.names = tuple(architectures.block_level_names(architecture))

    def __call__(self, images: jax.Array, depthwise: object = None) -> dict[str, jax.Array]:
        """Maps normalised images `[B, H, W, 3]` to `{level: [B, h, w, D]}`.

        `depthwise` is there for the signature that the families share; no layer here needs it.
        """
        maps = {}
        x = nnx.relu(self.stem(images, layers.symmetric_pads(7)))
        maps["stem"] = x = layers.max_pool(x)
        for block, names in zip(self.blocks, self.names, strict=False):
            x = block(x)
            maps |= dict.fromkeys(names, x)
        return {level: maps[level] for level in self.levels}

    def logits(self, images: jax.Array, depthwise: object = None) -> jax.Array:
        """Maps normalised images `[B, H, W, 3]` to class scores `[B, num_classes]`."""
        return self.classifier(self(images, depthwise)["layer4"].mean((1, 2)))
