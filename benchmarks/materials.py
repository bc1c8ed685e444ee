"""What the benchmarks measure on: images, features and weight files, the same on every machine."""

import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from safetensors import numpy as safetensors

from sgfr_jax import backbones, patches
from sgfr_jax.backbones import checkpoints, fitting, loading, naming
from sgfr_jax.datasets import demo

_BATCH = 16
_CROP = (160, 320)  # pixels of the photograph that become an image


def photographs(count: int, size: int, *, seed: int = 0) -> np.ndarray:
    """Crops of real textures, turned, mirrored and lit differently.

    Args:
      count: how many.
      size: the side in pixels.
      seed: another one gives other crops.

    Returns:
      uint8 `[count, size, size, 3]`.
    """
    sources = [getattr(_textures(), name)() for name in demo.CATEGORIES]
    images = np.empty((count, size, size, 3), np.uint8)
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        source = sources[i % len(sources)]
        side = int(rng.integers(*_CROP))
        top, left = rng.integers(0, np.array(source.shape) - side)
        crop = np.rot90(source[top : top + side, left : left + side], rng.integers(4))
        square = Image.fromarray(crop).resize((size, size), Image.Resampling.BILINEAR)
        lit = np.asarray(square, np.float32)[..., None] * rng.uniform(0.8, 1.1, 3)
        images[i] = np.clip(lit, 0, 255)
    return images


def features(images: np.ndarray, layers: Sequence[str], grid: int) -> np.ndarray:
    """Unit-norm patches of EfficientNet-Lite0, float32 `[N, D]`, image after image.

    Args:
      images: uint8 `[B, S, S, 3]`.
      layers: of the network.
      grid: patches per side.
    """
    backbone = backbones.load("efficientnet_lite0", levels=layers)

    @jax.jit
    def embed(state, batch):
        merged = patches.merge_levels(backbone.embed(state, batch), (grid, grid))
        return patches.unit_norm(merged).reshape(-1, merged.shape[-1])

    parts = [
        np.asarray(embed(backbone.state, images[start : start + _BATCH]))
        for start in range(0, len(images), _BATCH)
    ]
    return np.concatenate(parts)


def encode(images: np.ndarray, kind: str) -> list[bytes]:
    """Images as the bytes of files, `kind` being 'JPEG' or 'PNG'."""
    encoded = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, kind, **({"quality": 90} if kind == "JPEG" else {}))
        encoded.append(buffer.getvalue())
    return encoded


def write_weights(name: str, path: Path) -> None:
    """Writes a checkpoint of a network with the names that timm and torchvision give its weights.

    EfficientNet-Lite0's are its ImageNet weights. The ResNets' are random, scaled so that
    activations keep their size (He et al. 2015), and each seeded by its name: the time of a network
    does not depend on what it learnt.

    Args:
      name: of the architecture.
      path: of the `.safetensors` file.
    """
    architecture = backbones.ARCHITECTURES[name]
    layout = architecture.layouts[-1]  # timm's, where there is a choice
    shapes = fitting.expected_shapes(architecture, layout)
    if architecture.package:
        source, _ = checkpoints.read(loading._default_weights(architecture))
        given, wanted = (naming.LAYOUTS[x.name](architecture) for x in architecture.layouts)
        renamed = {
            f"{ours}.{part}": f"{theirs}.{part}"
            for layer in wanted
            for ours, theirs in zip(wanted[layer], given[layer], strict=True)
            for part in ("weight", "bias", "running_mean", "running_var")
        }
        weights = {key: np.ascontiguousarray(source[renamed[key]]) for key in shapes}
    else:
        weights = {key: _random(key, shape) for key, shape in shapes.items()}
    safetensors.save_file(weights, path)


def _random(key: str, shape: tuple[int, ...]) -> np.ndarray:
    uniform = np.random.default_rng(zlib.crc32(key.encode())).random(shape, np.float32)
    if key.endswith(("bias", "running_mean")):
        return 0.2 * uniform - np.float32(0.1)
    if len(shape) == 1:
        return uniform * np.float32(0.4) + np.float32(0.6)
    bound = np.float32(np.sqrt(6 / np.prod(shape[1:])))
    return bound * (2 * uniform - 1)


def _textures():
    import skimage.data  # slow to import

    return skimage.data
