"""Convolutions with their batch norm already folded in, and the padding rules of two frameworks.

Every convolution keeps a kernel in HWIO order and a bias, both float32, and maps `[B, H, W, C]` to
`[B, H', W', C']`. Parameters start as zeros: a network is built abstractly and filled from a file.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

# TPUs and recent GPUs multiply float32 in fewer bits by default; residuals are small differences
# of features, so that rounding would show.
PRECISION = lax.Precision.HIGHEST

Pads = tuple[tuple[int, int], tuple[int, int]]  # ((top, bottom), (left, right))
DepthwiseFn = Callable[[jax.Array, jax.Array, int, Pads], jax.Array]


def same_pads(shape: tuple[int, int], kernel: int, stride: int) -> Pads:
    """Returns TensorFlow's SAME padding of an `(H, W)` image: the odd pixel goes at the end."""
    return tuple(lax.padtype_to_pads(shape, (kernel, kernel), (stride, stride), "SAME"))


def symmetric_pads(kernel: int) -> Pads:
    """Returns the `kernel // 2` pixels on every side that torch's models pad with."""
    return ((kernel // 2, kernel // 2),) * 2


def depthwise_shifted(images: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """Returns the depthwise convolution as a sum over shifted slices, the fast way on a CPU.

    XLA's CPU backend runs a grouped convolution one group at a time (15-37 ms where this takes
    under one).

    Args:
      images: `[B, H, W, C]`.
      kernel: `[k, k, 1, C]`.
      stride: in both directions.
      pads: zeros added around the image.

    Returns:
      `[B, H', W', C]`.
    """
    size = kernel.shape[0]
    padded = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    # Without the barrier XLA fuses the padding, and what made the image, into every slice.
    padded = lax.optimization_barrier(padded)
    height, width = ((n - size) // stride + 1 for n in padded.shape[1:3])
    taps, total = kernel[None, :, :, 0], 0.0
    for i in range(size):
        rows = slice(i, i + stride * (height - 1) + 1, stride)
        for j in range(size):
            columns = slice(j, j + stride * (width - 1) + 1, stride)
            total = total + padded[:, rows, columns] * taps[:, i : i + 1, j : j + 1]
    return total


def depthwise_grouped(images: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """Returns the depthwise convolution as one grouped convolution; see `depthwise_shifted`."""
    return _convolve(images, kernel, stride, pads, groups=images.shape[-1])


def max_pool(images: jax.Array) -> jax.Array:
    """Returns the 3x3 maximum with stride 2 and a border of one: `[B, H, W, C] -> [B, h, w, C]`."""
    window, strides = (1, 3, 3, 1), (1, 2, 2, 1)
    pads = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(images, -jnp.inf, lax.max, window, strides, pads)


class Conv(nnx.Module):
    """A square convolution with bias."""

    def __init__(self, size: int, inputs: int, outputs: int, *, stride: int = 1):
        """Makes a zero kernel `[size, size, inputs, outputs]` and bias `[outputs]`."""
        self.kernel = nnx.Param(jnp.zeros((size, size, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.stride = stride

    def __call__(self, images: jax.Array, pads: Pads = ((0, 0), (0, 0))) -> jax.Array:
        """Convolves `[B, H, W, inputs]`, padded with zeros, to `[B, H', W', outputs]`."""
        return _convolve(images, self.kernel[...], self.stride, pads) + self.bias[None, None, None]


class DepthwiseConv(nnx.Module):
    """A square convolution of every channel by itself, with bias."""

    def __init__(self, size: int, channels: int, *, stride: int = 1):
        """Makes a zero kernel `[size, size, 1, channels]` and bias `[channels]`."""
        self.kernel = nnx.Param(jnp.zeros((size, size, 1, channels)))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.stride = stride

    def __call__(self, images: jax.Array, pads: Pads, convolve: DepthwiseFn) -> jax.Array:
        """Convolves `[B, H, W, channels]` by one of the two functions above."""
        return convolve(images, self.kernel[...], self.stride, pads) + self.bias[None, None, None]


class Linear(nnx.Module):
    """A linear layer with bias."""

    def __init__(self, inputs: int, outputs: int):
        """Makes a zero kernel `[inputs, outputs]` and bias `[outputs]`."""
        self.kernel = nnx.Param(jnp.zeros((inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps `[..., inputs]` to `[..., outputs]`."""
        outputs = jnp.matmul(features, self.kernel[...], precision=PRECISION)
        return outputs + _over(self.bias, features)


class LayerNorm(nnx.Module):
    """Every feature vector with its mean taken off, over its standard deviation, then affine.

    Ba, Kiros and Hinton, "Layer Normalization" (2016):
    `(x - mean(x)) / sqrt(var(x) + epsilon) * scale + bias`.
    """

    def __init__(self, features: int, *, epsilon: float):
        """Makes a zero scale and bias `[features]`."""
        self.scale = nnx.Param(jnp.zeros(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.epsilon = epsilon

    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps `[..., features]` to the same shape."""
        # The variance of what is centred: tokens have a few features a hundred times the others.
        centred = features - features.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        unit = centred * lax.rsqrt(variance + self.epsilon)
        return unit * _over(self.scale, features) + _over(self.bias, features)


def _over(parameter, features):
    """A vector with as many axes as the features that it goes with."""
    return jnp.expand_dims(parameter[...], tuple(range(features.ndim - 1)))


def _convolve(images, kernel, stride, pads, groups=1):
    height, width, inputs, _ = kernel.shape
    if height == width == 1 and groups == 1:
        return _dot(images[:, ::stride, ::stride], kernel)
    if height == width == 3 and inputs == 3:
        # XLA's CPU backend is slow on so few channels: a product of the unfolded patches is not.
        return _dot(_unfold(images, height, stride, pads), kernel)
    return lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=PRECISION,
    )


def _dot(images, kernel):
    """Every pixel's channels times the kernel flattened to `[inputs, outputs]`."""
    return jnp.matmul(images, kernel.reshape(-1, kernel.shape[-1]), precision=PRECISION)


def _unfold(images, size, stride, pads):
    """The `size * size` neighbours of every output pixel, side by side."""
    padded = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    height, width = ((n - size) // stride + 1 for n in padded.shape[1:3])
    rows = [slice(i, i + stride * (height - 1) + 1, stride) for i in range(size)]
    columns = [slice(j, j + stride * (width - 1) + 1, stride) for j in range(size)]
    return jnp.concatenate([padded[:, r, c] for r in rows for c in columns], axis=-1)
