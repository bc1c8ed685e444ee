import itertools

import jax
import numpy as np
import pytest

from sgfr_jax.backbones import layers


@pytest.mark.parametrize(
    ("length", "kernel", "stride", "pads"),
    # TensorFlow's rule by hand: ceil(n / s) outputs, the odd zero at the end.
    [(4, 3, 1, (1, 1)), (4, 3, 2, (0, 1)), (5, 3, 2, (1, 1)), (6, 5, 2, (1, 2)), (7, 5, 2, (2, 2))],
)
def test_same_pads(length, kernel, stride, pads):
    assert layers.same_pads((length, 8), kernel, stride)[0] == pads


def _by_definition(images, kernel, stride, pads):
    padded = np.pad(images, ((0, 0), *pads, (0, 0)))
    size = kernel.shape[0]
    height, width = ((n - size) // stride + 1 for n in padded.shape[1:3])
    out = np.zeros((len(images), height, width, images.shape[-1]))
    for i, j in itertools.product(range(height), range(width)):
        window = padded[:, i * stride : i * stride + size, j * stride : j * stride + size]
        out[:, i, j] = (window * kernel[None, :, :, 0]).sum((1, 2))
    return out


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_both_depthwise_convolutions_are_the_definition(kernel, stride, rng):
    images = rng.normal(size=(2, 9, 12, 6)).astype(np.float32)
    weights = rng.normal(size=(kernel, kernel, 1, 6)).astype(np.float32)
    for pads in (layers.same_pads((9, 12), kernel, stride), layers.symmetric_pads(kernel)):
        expected = _by_definition(images, weights, stride, pads)
        for convolve in (layers.depthwise_shifted, layers.depthwise_grouped):
            out = jax.jit(convolve, static_argnums=(2, 3))(images, weights, stride, pads)
            np.testing.assert_allclose(out, expected, atol=1e-5)


def test_max_pool_ignores_its_border():
    images = -np.arange(1.0, 17.0, dtype=np.float32).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(layers.max_pool(images)[0, :, :, 0], [[-1, -2], [-5, -6]])


def test_layer_norm_is_the_definition(rng):
    norm = layers.LayerNorm(6, epsilon=1e-6)
    scale, bias = rng.normal(size=(2, 6)).astype(np.float32)
    norm.scale[...], norm.bias[...] = scale, bias
    features = rng.normal(size=(2, 3, 6)).astype(np.float32) * 0.01 + 100
    exact = features.astype(np.float64)
    centred = exact - exact.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * scale + bias
    np.testing.assert_allclose(norm(features), expected, atol=2e-3)  # of 100, 8e-6 is lost
    constant = norm(np.full((1, 6), 7, np.float32))
    np.testing.assert_array_equal(constant[0], bias)
