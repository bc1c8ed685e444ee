"""The builder of VisA."""

from typing import ClassVar

from sgfr_jax.datasets.builders.base import AnomalyBuilder, configs, manual_instructions
from sgfr_jax.datasets.counts import PUBLISHED


class Visa(AnomalyBuilder):
    """VisA, a config per category."""

    DATASET = "visa"
    name = "visa"
    BUILDER_CONFIGS: ClassVar = configs(PUBLISHED["visa"])
    MANUAL_DOWNLOAD_INSTRUCTIONS = manual_instructions("visa")
