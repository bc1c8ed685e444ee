"""The builder of MVTec AD."""

from typing import ClassVar

from sgfr_jax.datasets.builders.base import AnomalyBuilder, configs, manual_instructions
from sgfr_jax.datasets.counts import PUBLISHED


class MvtecAd(AnomalyBuilder):
    """MVTec AD, a config per category."""

    DATASET = "mvtec"
    name = "mvtec_ad"
    BUILDER_CONFIGS: ClassVar = configs(PUBLISHED["mvtec"])
    MANUAL_DOWNLOAD_INSTRUCTIONS = manual_instructions("mvtec")
