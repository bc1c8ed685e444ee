"""Writes the golden files of this folder. Run once, in the environment of `compare_torch.py`:

    /tmp/torch_venv/bin/python tests/backbones/golden/make_golden.py

`features.npz`: for every convolutional architecture and layout, what torch's module makes of the
weights and images of `made_weights`. `tokens.npz`: the same of tiny transformers, and positions as
torch interpolates them. `legacy.pth`, `zip.pth` and `expected.npz`: the same few tensors of many
types, written by torch in both of its layouts.
"""

import sys
import tempfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[2])]

import made_weights  # noqa: E402
import torch_models  # noqa: E402
import torch_transformers  # noqa: E402

from sgfr_jax.backbones import ARCHITECTURES  # noqa: E402


def main():
    """Writes all kinds."""
    torch.manual_seed(0)
    np.savez_compressed(HERE / "features.npz", **features())
    np.savez_compressed(HERE / "tokens.npz", **tokens())
    tensors, expected = fixtures()
    torch.save(tensors, HERE / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(tensors, HERE / "zip.pth")
    np.savez_compressed(HERE / "expected.npz", **expected)


def features():
    """Returns summaries of every level and of the logits, by `architecture/layout/level`."""
    images, golden = made_weights.image_batch(), {}
    for architecture in ARCHITECTURES.values():
        if architecture.family == "vision_transformer":
            continue
        for layout in architecture.layouts:
            module = torch_models.build(architecture, layout.name, made_weights.NUM_CLASSES)
            shapes = {
                name: tuple(value.shape)
                for name, value in module.state_dict().items()
                if not name.endswith("num_batches_tracked")
            }
            state = {name: torch.from_numpy(x) for name, x in made_weights.make(shapes).items()}
            module.load_state_dict(state, strict=False)
            maps, logits = torch_models.run(
                module, architecture, layout.name, images, layout.mean, layout.std
            )
            key = f"{architecture.name}/{layout.name}"
            levels = ("stem", *architecture.default_levels, architecture.levels[-1])
            for level in levels:
                golden |= _summarise(f"{key}/{level}", maps[level])
            golden[f"{key}/logits"] = logits
    return golden


def tokens():
    """Returns summaries of two levels and the logits, and positions by the new grid's size."""
    images, golden = made_weights.patch_batch(), {}
    for registers in (0, 4):
        architecture = made_weights.tiny_transformer(registers)
        for layout in architecture.layouts:
            shapes = made_weights.transformer_shapes(architecture, layout)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "model.safetensors")
                safetensors.numpy.save_file(made_weights.make(shapes), path)
                module = torch_transformers.load(architecture, layout.name, path)
            maps, logits = torch_transformers.run(
                module, architecture, images, layout.mean, layout.std
            )
            for level in ("block1", "norm2"):
                key = f"{architecture.name}/{layout.name}/{level}"
                golden |= _summarise(key, maps[level])
            if logits is not None:
                golden[f"{architecture.name}/{layout.name}/logits"] = logits
    positions = torch.from_numpy(made_weights.positions())
    for size in made_weights.POSITION_SIZES:
        for antialias in (False, True):
            found = torch_transformers.interpolate(positions.flatten(0, 1)[None], size, antialias)
            key = f"positions/{size[0]}x{size[1]}/{antialias}"
            golden[key] = found.reshape(*size, -1).numpy()
    return golden


def _summarise(key, features):
    print(key, features.shape, np.abs(features).max(), features.std())
    chosen, largest, norm = made_weights.summary(features)
    return {
        f"{key}/shape": np.array(features.shape),
        f"{key}/values": chosen,
        f"{key}/scale": np.array([largest, norm]),
    }


def fixtures():
    """Returns tensors for torch to write, and what a reader should make of them."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 7
    tensors = OrderedDict(
        float=base,
        shared_row=base[2],  # the same storage, at an offset
        transposed=base.t(),  # strides that are not contiguous
        steps=base[:, ::2],
        parameter=torch.nn.Parameter(torch.linspace(-1, 1, 5)),
        double=torch.linspace(0, 1, 7, dtype=torch.float64),
        half=torch.linspace(-2, 2, 9).half(),
        bfloat16=torch.linspace(-3, 3, 9).bfloat16(),
        long=torch.tensor([-(2**40), 0, 2**40]),
        int=torch.tensor([-5, 6], dtype=torch.int32),
        short=torch.tensor([-300, 300], dtype=torch.int16),
        char=torch.tensor([-128, 127], dtype=torch.int8),
        byte=torch.tensor([0, 255], dtype=torch.uint8),
        bool=torch.tensor([True, False, True]),
        uint16=torch.tensor([0, 65535]).to(torch.uint16),  # written over an untyped storage
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
    )
    expected = {name: value.detach().float().numpy() for name, value in tensors.items()}
    expected["double"], expected["long"] = tensors["double"].numpy(), tensors["long"].numpy()
    return {"state_dict": tensors, "epoch": 3, "shape": base.shape}, expected


if __name__ == "__main__":
    main()
