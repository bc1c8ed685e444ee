"""torch's vision transformers for every layout of DINOv2's weights. Needs torch: see the scripts.

timm's module stands for Meta's, whose hub needs a network: it reads Meta's files, and the networks
are the same but for the positions of other sizes, which are made here as Meta makes them.
"""

import contextlib
import math
from unittest import mock

import numpy as np
import safetensors.numpy
import timm
import torch
import transformers
from timm.models import vision_transformer
from torch import nn

_SIZES = {"vits14": "small", "vitb14": "base", "vitl14": "large"}


def load(architecture, layout, path):
    """Returns a module with the weights of a file; whatever is missing or left over is an error.

    Args:
      architecture: its row of our table.
      layout: the name of its layout.
      path: of the `.safetensors` file, called `model.safetensors`.
    """
    if layout.startswith("transformers"):
        return _transformers(architecture, layout, path).eval()
    module = _timm(architecture)
    state = {k: torch.from_numpy(x) for k, x in safetensors.numpy.load_file(path).items()}
    state.pop("mask_token", None)
    if layout == "dinov2" and architecture.tokens.registers:  # timm asks for the mask to see Meta's
        state["mask_token"] = torch.zeros(())
    module.load_state_dict(vision_transformer.checkpoint_filter_fn(state, module))
    return module.eval()


def run(module, architecture, images, mean, std):
    """Returns `{level: [B, h, w, D]}` for every level, and the logits or None, as NumPy arrays.

    Args:
      module: what `load` returned.
      architecture: its row of our table.
      images: uint8 `[B, H, W, 3]`.
      mean: of the network's input.
      std: of the network's input.
    """
    base = getattr(module, getattr(module, "base_model_prefix", ""), module)
    hugging = isinstance(module, transformers.PreTrainedModel)
    blocks, norm = (base.encoder.layer, base.layernorm) if hugging else (base.blocks, base.norm)
    tokens, handles = [], []
    for block in blocks:
        handles.append(block.register_forward_hook(lambda _, __, output: tokens.append(output)))
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    inputs = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad(), _positions(base, architecture, hugging):
        logits = getattr(module(inputs), "logits", None)
    for handle in handles:
        handle.remove()
    side, first, maps = architecture.tokens.patch, 1 + architecture.tokens.registers, {}
    grid = images.shape[1] // side, images.shape[2] // side
    with torch.no_grad():
        for i, output in enumerate(tokens):
            for kind, level in (("block", output), ("norm", norm(output))):
                maps[f"{kind}{i}"] = level[:, first:].reshape(len(images), *grid, -1).numpy()
    return maps, None if logits is None else logits.numpy()


def interpolate(positions, size, antialias):
    """Returns `[1, h * w, D]` of the positions `[1, g * g, D]` by Meta's call of torch."""
    side = math.isqrt(positions.shape[1])
    how = {"size": size}
    if not antialias:
        how = {"scale_factor": tuple(float(n + 0.1) / side for n in size)}
    grid = positions.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    found = nn.functional.interpolate(grid, mode="bicubic", antialias=antialias, **how)
    return found.permute(0, 2, 3, 1).flatten(1, 2)


def _timm(architecture):
    registers = architecture.tokens.registers
    size = _SIZES.get(architecture.name.removeprefix("dinov2_").removesuffix("_reg"))
    if size:
        name = f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2"
        return timm.create_model(name, num_classes=0, dynamic_img_size=True)
    block = architecture.blocks[0]
    return vision_transformer.VisionTransformer(
        img_size=architecture.tokens.patch * architecture.tokens.grid,
        patch_size=architecture.tokens.patch,
        embed_dim=block.width,
        depth=len(architecture.blocks),
        num_heads=block.heads,
        num_classes=0,
        init_values=1.0,
        reg_tokens=registers,
        no_embed_class=registers > 0,
        dynamic_img_size=True,
    )


def _transformers(architecture, layout, path):
    kind = "WithRegisters" if architecture.tokens.registers else ""
    task = "ForImageClassification" if layout.endswith("headed") else "Model"
    config = getattr(transformers, f"Dinov2{kind}Config")(
        image_size=architecture.tokens.patch * architecture.tokens.grid,
        patch_size=architecture.tokens.patch,
        hidden_size=architecture.blocks[0].width,
        num_hidden_layers=len(architecture.blocks),
        num_attention_heads=architecture.blocks[0].heads,
        num_labels=safetensors.numpy.load_file(path).get("classifier.bias", np.zeros(2)).size,
    )
    model = getattr(transformers, f"Dinov2{kind}{task}")
    module, report = model.from_pretrained(
        path.parent, config=config, output_loading_info=True, attn_implementation="eager"
    )
    if any(report.values()):
        raise ValueError(f"{path} does not fit {model.__name__}: {report}")
    return module


def _positions(base, architecture, hugging):
    """Replaces what the libraries do their own way: without registers both differ from Meta."""

    def timms(positions, new_size, **_):
        first, places = positions[:, :1], positions[:, 1:]
        if places.shape[1] == math.prod(new_size) and new_size[0] == new_size[1]:
            return positions
        return torch.cat([first, interpolate(places, tuple(new_size), False)], 1)

    def huggings(embeddings, height, width):
        side = architecture.tokens.patch
        return timms(base.embeddings.position_embeddings, (height // side, width // side))

    if architecture.tokens.registers:
        return contextlib.nullcontext()  # both do as Meta does
    if hugging:
        return mock.patch.object(base.embeddings, "interpolate_pos_encoding", huggings)
    return mock.patch.object(vision_transformer, "resample_abs_pos_embed", timms)
