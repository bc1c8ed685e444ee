"""A network as a graph definition and an abstract tree of parameters, without any values."""

from collections.abc import Callable
from typing import Any

from flax import nnx

from sgfr_jax.backbones.architectures import Architecture
from sgfr_jax.backbones.efficientnet_lite import EfficientNetLite
from sgfr_jax.backbones.resnet import ResNet
from sgfr_jax.backbones.vision_transformer import VisionTransformer

_FAMILIES = {
    "efficientnet_lite": EfficientNetLite,
    "resnet": ResNet,
    "vision_transformer": VisionTransformer,
}


def abstract(
    architecture: Architecture, levels: tuple[str, ...], num_classes: int = 0
) -> tuple[nnx.GraphDef, dict[Any, Any]]:
    """Returns the graph and the shapes of a network that is as deep as its levels need."""
    network = _FAMILIES[architecture.family]
    graph, state = nnx.split(nnx.eval_shape(lambda: network(architecture, levels, num_classes)))
    return graph, nnx.to_pure_dict(state)


def layers(tree: dict[Any, Any]) -> dict[str, dict[str, Any]]:
    """Returns the innermost dictionaries of such a tree by their dotted paths."""
    found = {}

    def keep(path, layer):
        found[path] = layer

    replace_layers(tree, keep)
    return found


def replace_layers(tree: dict[Any, Any], replace: Callable[[str, Any], Any]) -> dict[Any, Any]:
    """Returns the tree with `replace(path, layer)` for every innermost dictionary."""

    def walk(branch, path):
        if not any(isinstance(below, dict) for below in branch.values()):
            return replace(path, branch)
        return {
            name: walk(below, f"{path}.{name}" if path else str(name))
            for name, below in branch.items()
        }

    return walk(tree, "")
