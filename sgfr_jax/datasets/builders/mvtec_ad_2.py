"""The builder of MVTec AD 2."""

from typing import ClassVar

from sgfr_jax.datasets.builders.base import AnomalyBuilder, configs, manual_instructions
from sgfr_jax.datasets.counts import PUBLISHED


class MvtecAd2(AnomalyBuilder):
    """MVTec AD 2, a config per category."""

    DATASET = "mvtec2"
    name = "mvtec_ad_2"
    BUILDER_CONFIGS: ClassVar = configs(PUBLISHED["mvtec2"])
    MANUAL_DOWNLOAD_INSTRUCTIONS = manual_instructions("mvtec2")
