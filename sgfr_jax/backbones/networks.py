"""A network as a graph definition and an abstract tree of parameters, without any values."""

from typing import Any

from flax import nnx

from sgfr_jax.backbones.architectures import Architecture
from sgfr_jax.backbones.efficientnet_lite import EfficientNetLite
from sgfr_jax.backbones.resnet import ResNet

_FAMILIES = {"efficientnet_lite": EfficientNetLite, "resnet": ResNet}


def abstract(
    architecture: Architecture, levels: tuple[str, ...], num_classes: int = 0
) -> tuple[nnx.GraphDef, dict[Any, Any]]:
    """Returns the graph and the shapes of a network that is as deep as its levels need."""
    network = _FAMILIES[architecture.family]
    graph, state = nnx.split(nnx.eval_shape(lambda: network(architecture, levels, num_classes)))
    return graph, nnx.to_pure_dict(state)
