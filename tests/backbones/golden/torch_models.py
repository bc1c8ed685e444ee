"""torch's modules for every architecture, hooked on every level. Needs torch: see the scripts."""

import efficientnet_lite_pytorch
import timm
import torch
import torchvision


def build(architecture, layout, num_classes):
    """Returns a module with random weights, in evaluation mode."""
    if layout == "torchvision":
        module = getattr(torchvision.models, architecture.name)(num_classes=num_classes)
    elif layout == "timm_efficientnet":
        prefix = "tf_" if architecture.same_padding else ""
        name = prefix + architecture.name.removesuffix(".ra_in1k")
        module = timm.create_model(name, num_classes=num_classes)
    else:
        # Without an image size the module pads for the image at hand, as TensorFlow does.
        module = efficientnet_lite_pytorch.EfficientNet.from_name(
            architecture.name.replace("_", "-"), num_classes=num_classes, image_size=None
        )
    return module.eval()


def run(module, architecture, layout, images, mean, std):
    """Returns `{level: [B, h, w, D]}` for every level, and the logits, as NumPy arrays.

    Args:
      module: what `build` returned.
      architecture: its row of our table.
      layout: the name of its layout.
      images: uint8 `[B, H, W, 3]`.
      mean: of the network's input.
      std: of the network's input.
    """
    maps, handles = {}, []
    for level, layer in _layers(module, architecture, layout).items():

        def keep(_, __, output, level=level):
            maps[level] = output

        handles.append(layer.register_forward_hook(keep))
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    inputs = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        logits = module(inputs)
    for handle in handles:
        handle.remove()
    if layout == "efficientnet_lite_pytorch":  # there the activation is not part of the layer
        maps |= {level: maps[level].clamp(0, 6) for level in ("stem", "head")}
    return {level: x.permute(0, 2, 3, 1).numpy() for level, x in maps.items()}, logits.numpy()


def _layers(module, architecture, layout):
    if layout == "torchvision":
        names = {level: level for level in architecture.levels[1:]} | {"stem": "maxpool"}
        return {level: module.get_submodule(name) for level, name in names.items()}
    if layout == "timm_efficientnet":
        blocks = [block for stage in module.blocks for block in stage]
        stem, head = module.bn1, module.bn2
    else:
        blocks, stem, head = module._blocks, module._bn0, module._bn1
    return {"stem": stem, "head": head} | {f"block{i}": block for i, block in enumerate(blocks)}
