"""The builder of BTAD."""

from typing import ClassVar

from sgfr_jax.datasets.builders.base import AnomalyBuilder, configs, manual_instructions
from sgfr_jax.datasets.counts import PUBLISHED


class Btad(AnomalyBuilder):
    """BTAD, a config per category."""

    DATASET = "btad"
    name = "btad"
    BUILDER_CONFIGS: ClassVar = configs(PUBLISHED["btad"])
    MANUAL_DOWNLOAD_INSTRUCTIONS = manual_instructions("btad")
