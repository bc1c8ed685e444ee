"""What defines a run, checked before anything long starts."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from sgfr_jax import datasets, samplers
from sgfr_jax.backbones import architectures, hub
from sgfr_jax.backbones.architectures import ARCHITECTURES
from sgfr_jax.backbones.checkpoints import WeightsError
from sgfr_jax.commands.flags import usage
from sgfr_jax.datasets.geometry import KINDS as GEOMETRIES
from sgfr_jax.datasets.geometry import Geometry
from sgfr_jax.datasets.mtd import SPLITS
from sgfr_jax.detector import choices, streams
from sgfr_jax.detector.choices import ConfigError

# What --layers takes beside names of levels and streams: a bank for each of several levels and
# scales, or the network's default levels in one bank. --geometry takes the first, too.
AUTO, FAST = streams.AUTO, "fast"
# The atoms of one bank of several; twice as many made no clear difference (docs/results.md).
STREAM_ATOMS = 1000
# Patches at random that bases of one bank are learned from: hundreds for each of some dozens of
# subspaces, in seconds.
LEARNED_PATCHES = 1 << 14
_RATIO = 0.01
# The longest side of the squares that a network sees: larger images have --geometry=tile.
_MOST_PIXELS = 8192
# In float32 smaller penalties are none, and scores times larger factors may be infinite.
_LEAST, _MOST = 1e-12, 10**6
# Tiles smaller than a network's patches show nothing, and there would be millions of them.
_LEAST_TILE = 8
# Below it a blur is none, and its square may not be told from zero.
_LEAST_SIGMA = 1e-3
# The fewest atoms that the default ratio means: a percent of one image's patches would be three.
_LEAST_ATOMS = 100


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that a result depends on, and where the data lies."""

    dataset: str = "demo"
    data_dir: str | None = None
    prepared_dir: str | None = None
    train_glob: str | None = None
    test_glob: str | None = None
    mask_glob: str | None = None
    manifest: str | None = None
    categories: tuple[str, ...] | None = None  # None: all
    split: str = "random"
    split_seed: int = 0
    shots: int | None = None  # training images kept of each category; None: all
    backbone: str = "efficientnet_lite0"
    weights: str | None = None
    layers: tuple[str, ...] = (AUTO,)  # or (FAST,), or names of levels or streams
    image_size: int | None = None  # None: 256, or 448 for networks of 14-pixel patches
    # Or several, joined by +, each with a detector of its own; auto: as `geometries` has it.
    geometry: str = AUTO
    crop: float = 0.875
    tile: int | None = None  # None: the median shorter side of a category's training images
    overlap: float = 0.25
    grid: int | None = None  # None: that of the middle layer
    unit_norm: bool = True
    sampler: str | None = None  # None: k_center, or random where bases of subspaces are learned
    bank_ratio: float | None = None  # None: 0.01, or a fixed number of atoms for each stream
    bank_size: int | None = None
    subspaces: str = "implicit"
    num_subspaces: int = 32
    subspace_rank: int = 8
    affine_subspaces: bool = False
    solver: str = "affine_ridge"
    num_neighbors: int = 10
    ridge: float | None = None  # None, here and for l1: the solver's own
    sparsity: int = 5
    l1: float | None = None
    l2: float = 1e-3
    max_atoms: int = 64
    search: str = "exact"
    sigma: float = 4.0
    halo: float = 0.2  # of `maps.halo`, where there are streams
    breadth: float = 0.25  # of `maps.breadth`, where there are streams or several looks
    image_prior: float = 0.4  # of `maps.image_prior`, likewise
    metrics: str = "auto"
    eval_size: str = "square"
    seed: int = 0
    baselines: tuple[str, ...] = ()
    skip_bad_images: bool = False

    def num_atoms(self, num_patches: int) -> int:
        """The size of the bank for a category of so many nominal patches.

        Where bases are learned of it, how many patches they are learned from.
        """
        named = self.bank_size is not None or self.bank_ratio is not None
        uniform = self.sampler == "random" and self.subspaces in choices.SCALABLE_LEARNERS
        if uniform and not named:
            return min(LEARNED_PATCHES, num_patches)
        if self.has_streams and self.bank_ratio is None:
            return min(self.bank_size or STREAM_ATOMS, num_patches)  # coarse levels have few
        if self.bank_size is not None:
            return self.bank_size
        if self.bank_ratio is None:
            least = min(_LEAST_ATOMS, num_patches)
            return max(least, samplers.budget(num_patches, ratio=_RATIO))
        return samplers.budget(num_patches, ratio=self.bank_ratio)

    @property
    def solvers(self) -> tuple[str, ...]:
        """What scores: the run's own solver, then its baselines."""
        return (self.solver, *self.baselines)

    @property
    def native(self) -> bool:
        """Whether pixels are counted at the images' own sizes."""
        return self.eval_size == "native"

    @property
    def counting(self) -> str:
        """How pixels are counted, of `choices.METRICS`; images of many sizes only in bins."""
        return "streaming" if self.native else self.metrics

    @property
    def geometries(self) -> tuple[Geometry, ...]:
        """The ways in which every image is looked at, where `geometry` names them."""
        kinds = self.geometry.split("+")
        return tuple(Geometry(kind, self.crop, self.tile, self.overlap) for kind in kinds)

    @property
    def tiled(self) -> bool:
        """Whether one of them is through tiles."""
        return "tile" in self.geometry.split("+")

    @property
    def has_streams(self) -> bool:
        """Whether every level has a bank of its own at each of its scales: see `streams`."""
        return self.layers == (AUTO,) or any(streams.AT in name for name in self.layers)

    @property
    def one_bank(self) -> bool:
        """Whether all that is seen of images is in one bank."""
        return not self.has_streams and "+" not in self.geometry

    def digest(self, **more: Any) -> str:
        """A short hash of the configuration and of whatever else a record depends on."""
        # Where records lie is no part of what they hold.
        fields = dataclasses.asdict(dataclasses.replace(self, prepared_dir=None))
        described = json.dumps([fields, more], sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()[:16]


def resolve(config: Config, given: Collection[str] = ()) -> Config:
    """Fills in what depends on the backbone, after checking every name and range.

    Args:
      config: what was asked for.
      given: flags that were named, so that none of them may be without use, as of `usage.refuse`.

    Raises:
      ConfigError: names the flag and says what it may be.
    """
    asked = config.sampler
    if asked is None:
        # K-center seeks out what is rare: few outliers would turn the bases that are learned of it.
        learned = config.subspaces in choices.SUBSPACE_LEARNERS
        config = dataclasses.replace(config, sampler="random" if learned else "k_center")
    if config.geometry == AUTO and not config.has_streams:
        config = dataclasses.replace(config, geometry="square")
    _check_names(config)
    _check_ranges(config)
    usage.refuse(dataclasses.replace(config, sampler=asked), given)
    config = _with_size(_with_weights(config))
    _require(config.sigma == 0 or _LEAST_SIGMA <= config.sigma <= config.image_size, "sigma",
             config.sigma, f"0, or between {_LEAST_SIGMA:g} and --image_size={config.image_size}"
             " pixels: a wider blur than the map leaves nothing of it")  # fmt: skip
    config = _with_layers(config)
    fine_to_coarse = sorted(strides(config))
    if config.image_size < fine_to_coarse[-1]:
        raise ConfigError(
            f"--image_size={config.image_size} is smaller than the network's stride of"
            f" {fine_to_coarse[-1]}: use at least that, better 224 or more"
        )
    _check_subspaces(config)
    if config.has_streams:
        return config
    # Of an even number of layers the finer middle one, as PatchCore's two layers do.
    middle = fine_to_coarse[(len(config.layers) - 1) // 2]
    return dataclasses.replace(config, grid=config.grid or -(-config.image_size // middle))


def strides(config: Config) -> list[int]:
    """The strides in pixels of the configuration's levels, in their order."""
    architecture = ARCHITECTURES[config.backbone]
    return [architecture.strides[name] for name in levels(config)]


def levels(config: Config) -> tuple[str, ...]:
    """The levels of the network that the configuration looks at."""
    return streams.levels(config) if config.has_streams else config.layers


def _check_names(config: Config) -> None:
    choices.check_known("dataset", "data set", config.dataset, datasets.DATASETS)
    choices.check_known("backbone", "backbone", config.backbone, ARCHITECTURES)
    choices.check_known(
        "sampler", "sampler", config.sampler, (*choices.SAMPLERS, choices.STREAMING)
    )
    choices.check_known("split", "split", config.split, SPLITS)
    kinds = () if config.geometry == AUTO else config.geometry.split("+")
    for kind in kinds:
        choices.check_known("geometry", "geometry", kind, (AUTO, *GEOMETRIES))
    _require(AUTO not in kinds, "geometry", config.geometry, f"{AUTO} alone, or without it")
    _require(len(set(kinds)) == len(kinds), "geometry", config.geometry, "different ones")
    _require("crop" not in kinds or len(kinds) == 1, "geometry", config.geometry,
             "without crop, or crop alone: what it shows is another image")  # fmt: skip
    choices.check_known("subspaces", "basis learner", config.subspaces, choices.LEARNERS)
    choices.check_known("solver", "solver", config.solver, choices.SOLVERS)
    choices.check_known("search", "search", config.search, choices.SEARCHES)
    choices.check_known("metrics", "way of counting", config.metrics, choices.METRICS)
    choices.check_known("eval_size", "size", config.eval_size, choices.EVAL_SIZES)
    if config.native:
        _require(config.metrics != "exact", "metrics", config.metrics,
                 "auto or streaming with --eval_size=native")  # fmt: skip
    for name in config.baselines:
        choices.check_known("baseline", "baseline", name, choices.SOLVERS)
        _require(name != config.solver, "baseline", name, f"another than --solver={config.solver}")


def _check_ranges(config: Config) -> None:
    _require(config.image_size is None or 0 < config.image_size <= _MOST_PIXELS, "image_size",
             config.image_size, f"a number of pixels between 1 and {_MOST_PIXELS}")  # fmt: skip
    _require(0 < config.crop <= 1, "crop", config.crop,
             "in (0, 1]: the crop's side over the image's shorter side")  # fmt: skip
    _require(config.tile is None or _LEAST_TILE <= config.tile <= _MOST, "tile", config.tile,
             f"a positive number of the image's pixels, from {_LEAST_TILE} to {_MOST}")  # fmt: skip
    _require(0 <= config.overlap <= 0.5, "overlap", config.overlap,
             "in [0, 0.5]: the share of a tile that the next one also shows")  # fmt: skip
    _require(0 <= config.halo <= 1, "halo", config.halo,
             "in [0, 1]: the share of an image's excess that is taken off its map")  # fmt: skip
    _require(0 <= config.breadth <= _MOST, "breadth", config.breadth,
             f"between 0 and {_MOST}: the share of its own mean added to a map")  # fmt: skip
    _require(0 <= config.image_prior <= _MOST, "image_prior", config.image_prior,
             f"between 0 and {_MOST}, in spreads of nominal maps")  # fmt: skip
    _require(config.bank_ratio is None or 0 < config.bank_ratio <= 1, "bank_ratio",
             config.bank_ratio, "in (0, 1]: the bank's share of the nominal patches")  # fmt: skip
    _require(config.bank_size is None or config.bank_size > 0, "bank_size", config.bank_size,
             "a positive number of atoms")  # fmt: skip
    _require(config.bank_size is None or config.bank_ratio is None, "bank_size", config.bank_size,
             f"left out with --bank_ratio={config.bank_ratio}: both say how many atoms"
             )  # fmt: skip
    _require(config.shots is None or config.shots > 0, "shots", config.shots,
             "a positive number of training images")  # fmt: skip
    _require(config.num_neighbors > 0, "num_neighbors", config.num_neighbors, "at least 1")
    _require(config.ridge is None or _LEAST <= config.ridge <= _MOST, "ridge", config.ridge,
             f"between {_LEAST:g} and {_MOST}, such as 1e-3")  # fmt: skip
    _require(config.sparsity > 0, "sparsity", config.sparsity, "at least 1")
    _require(config.l1 is None or _LEAST <= config.l1 < 1, "l1", config.l1,
             f"above 0 and below 1, at which all coefficients are 0; {_LEAST:g} at least"
             )  # fmt: skip
    _require(0 <= config.l2 <= _MOST, "l2", config.l2, f"between 0 and {_MOST}, such as 1e-3")
    _require(0 < config.max_atoms <= _MOST, "max_atoms", config.max_atoms,
             f"between 1 and {_MOST}")  # fmt: skip
    _require(config.num_subspaces > 0, "num_subspaces", config.num_subspaces, "at least 1")
    _require(config.subspace_rank > 0, "subspace_rank", config.subspace_rank, "at least 1")
    _require(0 <= config.seed < 2**32, "seed", config.seed, "between 0 and 2^32 - 1")
    _require(0 <= config.split_seed < 2**32, "split_seed", config.split_seed,
             "between 0 and 2^32 - 1")  # fmt: skip
    _require(config.grid is None or 0 < config.grid <= _MOST_PIXELS, "grid", config.grid,
             f"between 1 and {_MOST_PIXELS}")  # fmt: skip


def _with_weights(config: Config) -> Config:
    if config.weights is None:
        return config
    if hub.is_address(config.weights):
        try:
            hub.parse(config.weights)
        except WeightsError as error:
            raise ConfigError(f"--{error}") from error
        return config
    path = choices.path("weights", config.weights)
    if not path.is_file():
        raise ConfigError(f"--weights={path} is not a file")
    return dataclasses.replace(config, weights=str(path))


def _with_size(config: Config) -> Config:
    architecture = ARCHITECTURES[config.backbone]
    if config.image_size is None:
        size = 32 * architecture.size_multiple if architecture.size_multiple > 1 else 256
        return dataclasses.replace(config, image_size=size)
    try:
        architectures.check_size(architecture, config.image_size)
    except ValueError as error:
        raise ConfigError(f"--image_size={config.image_size}: {error}") from error
    return config


def _with_layers(config: Config) -> Config:
    architecture, shown = ARCHITECTURES[config.backbone], ",".join(config.layers)
    if AUTO in config.layers or FAST in config.layers:
        _require(len(config.layers) == 1, "layers", shown,
                 f"{AUTO} or {FAST} alone, or names of levels or streams")  # fmt: skip
    if config.has_streams:
        _require(config.sampler != choices.STREAMING, "sampler", config.sampler,
                 f"another with --layers={shown}, whose memory is bounded anyway")  # fmt: skip
        layers = config.layers if config.layers == (AUTO,) else _named_streams(config)
        return dataclasses.replace(config, layers=layers, grid=0)
    layers = architecture.default_levels if config.layers == (FAST,) else tuple(config.layers)
    for name in layers:
        choices.check_known("layers", f"level of {config.backbone}", name, architecture.levels)
    _require(len(set(layers)) == len(layers), "layers", shown, "each named once")
    return dataclasses.replace(config, layers=layers)


def _named_streams(config: Config) -> tuple[str, ...]:
    """The names of a configuration's streams, checked, in the order of `streams.plan`."""
    architecture = ARCHITECTURES[config.backbone]
    _require(all(streams.AT in name for name in config.layers), "layers", ",".join(config.layers),
             "all LEVEL@SCALE, each with a bank of its own, or all names of levels, which share"
             " one bank and its grid: no detector has both")  # fmt: skip
    named: dict[streams.Stream, str] = {}
    for name in config.layers:
        try:
            level, scale = streams.parse(name)
        except ValueError as error:
            raise ConfigError(f"--layers={name}: {error}") from error
        choices.check_known("layers", f"level of {config.backbone}", level, architecture.levels)
        side, stride = scale * config.image_size, architecture.strides[level]
        _require(side <= _MOST_PIXELS, "layers", name,
                 f"of a smaller scale: at {side:g} pixels a side squares have more than"
                 f" {_MOST_PIXELS}")  # fmt: skip
        _require(side >= stride, "layers", name,
                 f"of a larger scale: at {side:g} pixels a side images are smaller than the level's"
                 f" stride of {stride}")  # fmt: skip
        stream = streams.make(config, level, scale)
        _require(stream not in named, "layers", name,
                 f"left out: at {stream.image_size} pixels a side it is what"
                 f" {named.get(stream)} is")  # fmt: skip
        named[stream] = f"{level}{streams.AT}{scale:g}"
    return tuple(named[stream] for stream in streams.plan(config))


def _check_subspaces(config: Config) -> None:
    """Checks that the basis learner fits the solvers, the sampler and the features."""
    learner = config.subspaces
    if "project" in config.solvers and learner not in choices.SUBSPACE_LEARNERS:
        flag = "solver" if config.solver == "project" else "baseline"
        raise ConfigError(
            f"--{flag}=project codes over learned subspaces, and --subspaces={learner} has none:"
            f" add --subspaces={', or '.join(choices.SUBSPACE_LEARNERS)}"
        )
    if learner in choices.SUBSPACE_LEARNERS:
        widths = [ARCHITECTURES[config.backbone].widths[name] for name in levels(config)]
        least = min(widths) if config.has_streams else sum(widths)
        _require(config.subspace_rank < least, "subspace_rank", config.subspace_rank,
                 f"below {least}, the features of a patch, or nothing would be left of one"
                 )  # fmt: skip


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
    if config.geometry == "tile":  # the images' sizes say how many there are
        return
    each = coarsest_grid(config) ** 2
    check_patches(config, {category: num * each for category, num in num_train.items()})


def coarsest_grid(config: Config) -> int:
    """The patches per side of the bank that has the fewest."""
    if not config.has_streams:
        return config.grid
    return min(stream.grid for stream in streams.plan(config))


def check_patches(config: Config, num_nominal: Mapping[str, int]) -> None:
    """As `check_sizes`, where it is known how many patches show an image.

    Args:
      config: from `resolve`.
      num_nominal: category to its number of nominal patches, of `coarsest_grid`.
    """
    for category, num_patches in num_nominal.items():
        num_atoms = config.num_atoms(num_patches)
        where = f"category {category} has {num_patches} nominal patches"
        if num_atoms > num_patches:
            raise ConfigError(f"--bank_size={num_atoms}, but {where}: use at most that many")
        _check_bank(config, num_atoms, where)


def _check_bank(config: Config, num_sampled: int, where: str) -> None:
    """Checks that so many sampled atoms give the learner, and what it makes the solvers, enough."""
    num_atoms, of_patches = num_sampled, "--bank_ratio or --bank_size"
    bank, remedy = f"a bank of {num_atoms} atoms", of_patches
    if config.subspaces in choices.SUBSPACE_LEARNERS:
        several = config.subspaces in choices.CLUSTERING_LEARNERS
        num_subspaces = config.num_subspaces if several else 1
        flags = f"--subspace_rank={config.subspace_rank}"
        if several:
            flags = f"--num_subspaces={config.num_subspaces} times {flags}"
        if num_subspaces * config.subspace_rank > num_sampled:
            raise ConfigError(
                f"{flags} is more than the bank's {num_sampled} atoms ({where}):"
                f" lower it, or raise {of_patches}"
            )
        num_atoms = num_subspaces * (config.subspace_rank + config.affine_subspaces)
        bank, remedy = f"{num_atoms} atoms of subspaces", flags.replace(" times ", " or ")
    for solver in config.solvers:
        flag = choices.SOLVERS[solver].atoms
        if flag is not None and getattr(config, flag) > num_atoms:
            raise ConfigError(
                f"--{flag}={getattr(config, flag)}, but {where} and so {bank}:"
                f" lower --{flag}, or raise {remedy}"
            )


def _require(fine: bool, flag: str, value: Any, what: str) -> None:
    if not fine:
        raise ConfigError(f"--{flag}={value} must be {what}")
