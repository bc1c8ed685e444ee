"""The builder of MTD, the magnetic tile defect set."""

import re
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from sgfr_jax.datasets.builders.base import AnomalyBuilder, configs, manual_instructions
from sgfr_jax.datasets.mtd import list_mtd
from sgfr_jax.datasets.types import Category

_SEED = re.compile(r"mtd_seed(\d+)")


class Mtd(AnomalyBuilder):
    """MTD, split by seed 0 (config `mtd`) or by another (config `mtd_seed<n>`)."""

    DATASET = "mtd"
    name = "mtd"
    BUILDER_CONFIGS: ClassVar = configs(["mtd"])
    MANUAL_DOWNLOAD_INSTRUCTIONS = manual_instructions("mtd")

    def __init__(self, *, config: Any = None, **kwargs: Any):
        if isinstance(config, str) and _SEED.fullmatch(config):
            config = tfds.core.BuilderConfig(name=config)
        super().__init__(config=config, **kwargs)

    def _list(self, root: Path) -> Category:
        match = _SEED.fullmatch(self.builder_config.name)
        (found,) = list_mtd(root, categories=None, split_seed=int(match[1]) if match else 0)
        return found
