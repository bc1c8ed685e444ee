"""timm's and torchvision's networks as a user in a hurry would run them on a CPU."""

from collections.abc import Callable

import numpy as np
import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks.peers import threads

# The norm that follows each convolution, by their names within one module.
_FOLLOWED_BY = {
    "conv_stem": "bn1",
    "conv1": "bn1",
    "conv2": "bn2",
    "conv3": "bn3",
    "0": "1",
}
_DEPTHWISE_SEPARABLE = {"conv_dw": "bn1", "conv_pw": "bn2"}
_INVERTED_RESIDUAL = {"conv_pw": "bn1", "conv_dw": "bn2", "conv_pwl": "bn3"}


def embedder(
    architecture: str,
    weights: str,
    images: np.ndarray,
    levels: list[str],
    mean: list[float],
    std: list[float],
) -> Callable[[], np.ndarray]:
    """Runs a network on uint8 images up to the last of some levels.

    Returns:
      A function that returns the last level, `[B, h, w, D]`.
    """
    threads.limit()
    module = load(architecture, weights)
    fold(module)
    network = Levels(module.to(memory_format=torch.channels_last), levels)
    pixels = torch.from_numpy(images)
    shift, scale = (torch.tensor(x).view(1, 3, 1, 1) for x in (mean, std))

    @torch.inference_mode()
    def embed():
        # The permutation of interleaved pixels is channels-last already: nothing is copied.
        inputs = (pixels.permute(0, 3, 1, 2).float() - shift) / scale
        return network(inputs)[levels[-1]].permute(0, 2, 3, 1).numpy()

    return embed


class Levels(nn.Module):
    """A network as far as the deepest of some levels, which have our names."""

    def __init__(self, module: nn.Module, levels: list[str]):
        """Takes timm's EfficientNet or torchvision's ResNet."""
        super().__init__()
        self.module = module
        self.levels = levels

    def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Maps `[B, 3, H, W]` to `{level: [B, D, h, w]}`, in the order of the levels."""
        found, left = {}, set(self.levels)
        for name, part in self._parts():
            inputs = part(inputs)
            if name in left:
                found[name] = inputs
                left.remove(name)
                if not left:
                    break
        return {level: found[level] for level in self.levels}

    def _parts(self):
        network = self.module
        if hasattr(network, "blocks"):
            yield from (("", network.conv_stem), ("", network.bn1))
            blocks = (block for stage in network.blocks for block in stage)
            yield from ((f"block{i}", block) for i, block in enumerate(blocks))
        else:
            stem = (network.conv1, network.bn1, network.relu, network.maxpool)
            yield from (("", part) for part in stem)
            yield from ((f"layer{i}", getattr(network, f"layer{i}")) for i in range(1, 5))


def load(architecture: str, weights: str) -> nn.Module:
    """A network in evaluation mode, with the weights of a `.safetensors` file."""
    if architecture.startswith("efficientnet"):
        module = timm.create_model(f"tf_{architecture}", pretrained=False)
    else:
        module = getattr(torchvision.models, architecture)(weights=None)
    missing, unexpected = module.load_state_dict(load_file(weights), strict=False)
    # Our files have no classifier, and no counters of training batches.
    rest = [name for name in missing if not name.endswith("num_batches_tracked")]
    assert not unexpected and all(name.startswith(("fc.", "classifier.")) for name in rest)
    return module.eval().requires_grad_(False)


def fold(module: nn.Module) -> None:
    """Folds every batch norm into the convolution before it, in place."""
    for parent in list(module.modules()):
        children = dict(parent.named_children())
        pairs = _FOLLOWED_BY
        if "conv_dw" in children:
            pairs = _INVERTED_RESIDUAL if "conv_pwl" in children else _DEPTHWISE_SEPARABLE
        for convolution, norm in pairs.items():
            if isinstance(children.get(convolution), nn.Conv2d) and norm in children:
                folded = fuse_conv_bn_eval(children[convolution], children[norm])
                setattr(parent, convolution, folded)
                # timm's norms carry the activation that follows.
                setattr(parent, norm, getattr(children[norm], "act", nn.Identity()))
    assert not any(isinstance(part, nn.BatchNorm2d) for part in used(module)), "a norm is left"


def used(module: nn.Module) -> list[nn.Module]:
    """All parts but the head, which no level here needs."""
    return [
        part for name, part in module.named_modules() if not name.startswith(("bn2", "conv_head"))
    ]
