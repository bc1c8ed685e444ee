"""The vision transformer of DINOv2 (see `architectures` for its sources).

Dosovitskiy et al., "An Image is Worth 16x16 Words" (ICLR 2021), section 3.1, with layer scale
(Touvron et al., "Going deeper with Image Transformers", ICCV 2021), which is folded into the layer
before it: the kernels of `merge` and `project` carry it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sgfr_jax.backbones import architectures, layers
from sgfr_jax.backbones.architectures import Architecture, Encoder


class TokenEmbedding(nnx.Module):
    """Adds the positions to the patches and puts the tokens that are no patches before them."""

    def __init__(self, tokens: architectures.Tokens, width: int):
        """Makes zero tokens `[1 + registers, width]` and positions `[grid, grid, width]`."""
        self.first = nnx.Param(jnp.zeros((1 + tokens.registers, width)))
        self.positions = nnx.Param(jnp.zeros((tokens.grid, tokens.grid, width)))
        self.antialias = tokens.antialias

    def __call__(self, patches: jax.Array) -> jax.Array:
        """Maps `[B, h, w, D]` to `[B, 1 + registers + h * w, D]`, the class token first."""
        batch, height, width, features = patches.shape
        positions = interpolate(self.positions[...], (height, width), antialias=self.antialias)
        tokens = (patches + positions[None]).reshape(batch, height * width, features)
        first = jnp.broadcast_to(self.first[...], (batch, *self.first.shape))
        return jnp.concatenate([first, tokens], axis=1)


class EncoderBlock(nnx.Module):
    """Attention and a perceptron, each of the normalised tokens and added to them."""

    def __init__(self, block: Encoder, *, epsilon: float):
        """Builds the layers of one row of the table."""
        self.norm1 = layers.LayerNorm(block.width, epsilon=epsilon)
        self.mix = layers.Linear(block.width, 3 * block.width)
        self.merge = layers.Linear(block.width, block.width)
        self.norm2 = layers.LayerNorm(block.width, epsilon=epsilon)
        self.expand = layers.Linear(block.width, block.inner)
        self.project = layers.Linear(block.inner, block.width)
        self.heads = block.heads

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps `[B, T, D]` to the same shape."""
        batch, length, width = tokens.shape
        mixed = self.mix(self.norm1(tokens)).reshape(batch, length, 3, self.heads, -1)
        queries, keys, values = jnp.moveaxis(mixed, (2, 3), (0, 2))
        attended = jnp.moveaxis(attention(queries, keys, values), 1, 2)
        tokens = tokens + self.merge(attended.reshape(batch, length, width))
        inner = jax.nn.gelu(self.expand(self.norm2(tokens)), approximate=False)
        return tokens + self.project(inner)


class VisionTransformer(nnx.Module):
    """The network up to the deepest of some levels, with a classifier if there are classes."""

    def __init__(self, architecture: Architecture, levels: tuple[str, ...], num_classes: int = 0):
        """Builds what `levels` need; a classifier needs the last norm to be one of them."""
        blocks = architecture.blocks[: architectures.blocks_needed(architecture, levels)]
        tokens, epsilon, width = architecture.tokens, architecture.norm_epsilon, blocks[0].width
        normed = any(level.startswith("norm") for level in levels)
        self.stem = layers.Conv(tokens.patch, 3, width, stride=tokens.patch)
        self.tokens = TokenEmbedding(tokens, width)
        self.blocks = nnx.List([EncoderBlock(block, epsilon=epsilon) for block in blocks])
        self.norm = layers.LayerNorm(width, epsilon=epsilon) if normed else None
        features = architecture.features
        self.classifier = layers.Linear(features, num_classes) if num_classes else None
        self.levels = levels
        self.architecture = architecture

    def __call__(self, images: jax.Array, depthwise: object = None) -> dict[str, jax.Array]:
        """Maps normalised images `[B, H, W, 3]` to `{level: [B, h, w, D]}`, the patches' tokens.

        `block{i}` are the tokens after a block (from 0), `norm{i}` the same through the network's
        final layer norm, as DINOv2's `get_intermediate_layers` gives them by default; the last
        `norm` is the network's output. `depthwise` is there for the signature that the families
        share; no layer here needs it.

        Raises:
          ValueError: the patches do not fill the image.
        """
        side, first = self.stem.stride, self.tokens.first.shape[0]
        batch, height, width = images.shape[0], images.shape[1] // side, images.shape[2] // side
        maps = {
            level: tokens[:, first:].reshape(batch, height, width, -1)
            for level, tokens in self._tokens(images).items()
        }
        return {level: maps[level] for level in self.levels}

    def logits(self, images: jax.Array, depthwise: object = None) -> jax.Array:
        """Maps normalised images `[B, H, W, 3]` to class scores `[B, num_classes]`.

        The classifier sees the class token and the mean of the patches' tokens.
        """
        tokens, first = self._tokens(images)[self.levels[-1]], self.tokens.first.shape[0]
        summary = jnp.concatenate([tokens[:, 0], tokens[:, first:].mean(1)], axis=-1)
        return self.classifier(summary)

    def _tokens(self, images):
        """All tokens of every level, `{level: [B, T, D]}`."""
        architectures.check_size(self.architecture, *images.shape[1:3])
        found, tokens = {}, self.tokens(self.stem(images))
        for i, block in enumerate(self.blocks):
            found[f"block{i}"] = tokens = block(tokens)
            if f"norm{i}" in self.levels:
                found[f"norm{i}"] = self.norm(tokens)
        return found


def attention(queries: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """Returns `softmax(Q K^T / sqrt(d)) V`, for every batch and head by itself.

    Vaswani et al., "Attention Is All You Need" (NeurIPS 2017), equation 1. Heads come before
    tokens because XLA's CPU backend is then twice as fast as with `[B, T, heads, d]`, which
    `jax.nn.dot_product_attention` takes.

    Args:
      queries: `[..., T, d]`.
      keys: `[..., T, d]`.
      values: `[..., T, d]`.

    Returns:
      `[..., T, d]`.
    """
    scaled = queries * queries.shape[-1] ** -0.5
    products = jnp.matmul(scaled, jnp.swapaxes(keys, -1, -2), precision=layers.PRECISION)
    weights = jax.nn.softmax(products, axis=-1)
    return jnp.matmul(weights, values, precision=layers.PRECISION)


def interpolate(positions: jax.Array, size: tuple[int, int], *, antialias: bool) -> jax.Array:
    """Returns the positions of another grid, as facebookresearch/dinov2 makes them.

    There the networks without registers call torch's bicubic `interpolate` with the scale
    `(new + 0.1) / old`, so that the new grid is a little narrower than the old one; those with
    registers call it with the size, antialiased. (timm always does the second, Hugging Face never
    has the 0.1.) Both are separable: `rows @ positions @ columns^T`.

    Args:
      positions: `[g, g, D]`.
      size: `(h, w)` of the new grid.
      antialias: which of the two.

    Returns:
      `[h, w, D]`; the very same positions if the size is theirs.
    """
    if positions.shape[:2] == size:
        return positions
    weigh = _antialiased_weights if antialias else _cubic_weights
    rows, columns = (
        jnp.asarray(weigh(old, new), positions.dtype)
        for old, new in zip(positions.shape[:2], size, strict=True)
    )
    return jnp.einsum("hi,ijd,wj->hwd", rows, positions, columns, precision=layers.PRECISION)


def _cubic_weights(old, new):
    """The `[new, old]` matrix of torch's bicubic interpolation by the scale `(new + 0.1) / old`."""
    centres = (np.arange(new) + 0.5) * (old / (new + 0.1)) - 0.5
    taps = np.floor(centres).astype(int)[:, None] + np.arange(-1, 3)
    values = _keys(centres[:, None] - taps, a=-0.75)
    weights = np.zeros((new, old))
    # What lies outside is the border's; two taps may fall on the same place.
    np.add.at(weights, (np.arange(new)[:, None], taps.clip(0, old - 1)), values)
    return weights


def _antialiased_weights(old, new):
    """The `[new, old]` matrix of torch's antialiased bicubic interpolation to a size.

    When the grid shrinks, the kernel widens; what lies outside does not count.
    """
    scale = old / new
    wide = max(scale, 1.0)
    centres = (np.arange(new) + 0.5) * scale
    weights = _keys((np.arange(old) + 0.5 - centres[:, None]) / wide, a=-0.5)
    return weights / weights.sum(1, keepdims=True)


def _keys(distance, a):
    """Keys' cubic kernel ("Cubic convolution interpolation", IEEE TASSP 1981) of a parameter."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
