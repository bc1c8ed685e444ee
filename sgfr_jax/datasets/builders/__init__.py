"""TFDS builders of the data sets; importing this registers them, and imports TFDS.

`tfds.builder('mvtec_ad/bottle', data_dir=PREPARED)` finds them after `import sgfr_jax.datasets`.
TensorFlow is neither needed nor imported: records are written as `array_record` and read by
`as_data_source`. (The command `tfds build` itself needs TensorFlow; `download_and_prepare` does
not.) The files come from `DownloadConfig(manual_dir=...)`, which may be all that
`sgfr_jax.datasets.fetch.obtain` takes.
"""

import shutil
from pathlib import Path

import tensorflow_datasets as tfds

from sgfr_jax import unfinished
from sgfr_jax.datasets import prepared
from sgfr_jax.datasets.builders.btad import Btad
from sgfr_jax.datasets.builders.mtd import Mtd
from sgfr_jax.datasets.builders.mvtec_ad import MvtecAd
from sgfr_jax.datasets.builders.mvtec_ad_2 import MvtecAd2
from sgfr_jax.datasets.builders.visa import Visa

__all__ = ["Btad", "Mtd", "MvtecAd", "MvtecAd2", "Visa", "run"]

_BUILDERS = {builder.DATASET: builder for builder in (Btad, Mtd, MvtecAd, MvtecAd2, Visa)}


def run(dataset: str, config: str, manual_dir: Path, prepared_dir: Path) -> None:
    """Prepares one config, whole or not at all; does nothing if it has been.

    TFDS alone would leave what a killed process has written, for ever and under any name.
    """
    done = prepared.config_directory(prepared_dir, dataset, config)
    name = f"{dataset} {config}"
    staging = prepared_dir / unfinished.name_for(name)
    for left in (staging, *unfinished.abandoned(prepared_dir, name)):
        shutil.rmtree(left, ignore_errors=True)
    if done.exists():
        return
    try:
        _BUILDERS[dataset](config=config, data_dir=staging).download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                manual_dir=manual_dir, compute_stats=tfds.download.ComputeStatsMode.SKIP
            )
        )
        done.parent.mkdir(parents=True, exist_ok=True)
        prepared.config_directory(staging, dataset, config).rename(done)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
