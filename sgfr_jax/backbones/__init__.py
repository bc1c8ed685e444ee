"""Frozen pretrained networks: weight files in, feature maps out. Flax is imported by `load`."""

from sgfr_jax.backbones.architectures import ARCHITECTURES, Architecture
from sgfr_jax.backbones.checkpoints import WeightsError
from sgfr_jax.backbones.loading import Backbone, Classifier, load, load_classifier, weights_digest

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Backbone",
    "Classifier",
    "WeightsError",
    "load",
    "load_classifier",
    "weights_digest",
]
