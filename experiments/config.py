"""What defines a run, checked before anything long starts."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import choices
from experiments.choices import ConfigError
from sgfr_jax import datasets
from sgfr_jax.backbones.architectures import ARCHITECTURES


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that a result depends on, and nothing else."""

    dataset: str = "demo"
    data_dir: str | None = None
    categories: tuple[str, ...] | None = None  # None: all
    split_seed: int = 0
    backbone: str = "efficientnet_lite0"
    weights: str | None = None
    layers: tuple[str, ...] | None = None  # None: the architecture's own
    image_size: int = 256
    grid: int | None = None  # None: that of the middle layer
    unit_norm: bool = True
    sampler: str = "k_center"
    bank_ratio: float = 0.01
    bank_size: int | None = None
    solver: str = "affine_ridge"
    num_neighbors: int = 10
    ridge: float = 1e-3
    sigma: float = 4.0
    metrics: str = "auto"
    seed: int = 0
    baselines: tuple[str, ...] = ()
    skip_bad_images: bool = False

    def num_atoms(self, num_patches: int) -> int:
        """The size of the bank for a category of so many nominal patches."""
        return self.bank_size or max(1, round(self.bank_ratio * num_patches))

    def digest(self, **more: Any) -> str:
        """A short hash of the configuration and of whatever else a record depends on."""
        described = json.dumps([dataclasses.asdict(self), more], sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()[:16]


def resolve(config: Config) -> Config:
    """Fills in what depends on the backbone, after checking every name and range.

    Raises:
      ConfigError: names the flag and says what it may be.
    """
    choices.check_known("dataset", "data set", config.dataset, datasets.DATASETS)
    choices.check_known("backbone", "backbone", config.backbone, ARCHITECTURES)
    choices.check_known(
        "sampler", "sampler", config.sampler, (*choices.SAMPLERS, choices.STREAMING)
    )
    choices.check_known("solver", "solver", config.solver, choices.SOLVERS)
    choices.check_known("metrics", "way of counting", config.metrics, choices.METRICS)
    for name in config.baselines:
        choices.check_known("baseline", "baseline", name, choices.BASELINES)
    _require(config.image_size > 0, "image_size", config.image_size, "a positive number of pixels")
    _require(0 < config.bank_ratio <= 1, "bank_ratio", config.bank_ratio,
             "in (0, 1]: the bank's share of the nominal patches")  # fmt: skip
    _require(config.bank_size is None or config.bank_size > 0, "bank_size", config.bank_size,
             "a positive number of atoms")  # fmt: skip
    _require(config.num_neighbors > 0, "num_neighbors", config.num_neighbors, "at least 1")
    _require(0 < config.ridge < math.inf, "ridge", config.ridge, "positive, such as 1e-3")
    _require(0 <= config.sigma < math.inf, "sigma", config.sigma, "0 or positive, in pixels")
    _require(0 <= config.seed < 2**32, "seed", config.seed, "between 0 and 2^32 - 1")
    _require(0 <= config.split_seed < 2**32, "split_seed", config.split_seed,
             "between 0 and 2^32 - 1")  # fmt: skip
    _require(config.grid is None or config.grid > 0, "grid", config.grid, "a positive number")
    if config.weights is not None:
        config = dataclasses.replace(config, weights=str(Path(config.weights).expanduser()))
        if not Path(config.weights).is_file():
            raise ConfigError(f"--weights={config.weights} is not a file")

    architecture = ARCHITECTURES[config.backbone]
    layers = config.layers or architecture.default_levels
    for name in layers:
        choices.check_known("layers", f"level of {config.backbone}", name, architecture.levels)
    _require(len(set(layers)) == len(layers), "layers", ",".join(layers), "each named once")
    config = dataclasses.replace(config, layers=tuple(layers))
    fine_to_coarse = sorted(strides(config))
    if config.image_size < fine_to_coarse[-1]:
        raise ConfigError(
            f"--image_size={config.image_size} is smaller than the network's stride of"
            f" {fine_to_coarse[-1]}: use at least that, better 224 or more"
        )
    # Of an even number of layers the finer middle one, as PatchCore's two layers do.
    middle = fine_to_coarse[(len(layers) - 1) // 2]
    return dataclasses.replace(config, grid=config.grid or -(-config.image_size // middle))


def strides(config: Config) -> list[int]:
    """The strides in pixels of the configuration's layers, in their order."""
    return [ARCHITECTURES[config.backbone].strides[name] for name in config.layers]


def num_features(config: Config) -> int:
    """`D`: the features of a patch."""
    return sum(ARCHITECTURES[config.backbone].widths[name] for name in config.layers)


def check_sizes(config: Config, num_train: Mapping[str, int]) -> None:
    """Checks that every category has patches enough for the bank, and the bank enough for K.

    Args:
      config: from `resolve`.
      num_train: category to its number of training images.

    Raises:
      ConfigError: names the category, the flag and the sizes.
    """
    for category, num_images in num_train.items():
        num_patches = num_images * config.grid**2
        num_atoms = config.num_atoms(num_patches)
        where = f"category {category} has {num_patches} nominal patches"
        if num_atoms > num_patches:
            raise ConfigError(f"--bank_size={num_atoms}, but {where}: use at most that many")
        if config.solver != "nearest" and config.num_neighbors > num_atoms:
            raise ConfigError(
                f"--num_neighbors={config.num_neighbors}, but {where} and so a bank of {num_atoms}"
                " atoms: lower --num_neighbors, or raise --bank_ratio or --bank_size"
            )


def _require(fine: bool, flag: str, value: Any, what: str) -> None:
    if not fine:
        raise ConfigError(f"--{flag}={value} must be {what}")
