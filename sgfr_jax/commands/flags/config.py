"""What defines a run, checked before anything long starts: its data, its method, its evaluation."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Self

from sgfr_jax import datasets
from sgfr_jax.backbones import hub
from sgfr_jax.backbones.checkpoints import WeightsError
from sgfr_jax.commands.flags import checking, usage
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.datasets.mtd import SPLITS
from sgfr_jax.detector import alternatives, network, settle
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.network import Network
from sgfr_jax.errors import ArgumentError

METRICS = ("auto", "exact", "streaming")
EVAL_SIZES = ("square", "native")


@dataclasses.dataclass(frozen=True)
class Data:
    """Which images there are."""

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
    skip_bad_images: bool = False


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a run is repeated with, and how its results are measured."""

    seed: int = 0  # of all that the run draws
    baselines: tuple[str, ...] = ()  # solvers that score beside the method's own
    metrics: str = "auto"
    eval_size: str = "square"

    @property
    def native(self) -> bool:
        """Whether pixels are counted at the images' own sizes."""
        return self.eval_size == "native"

    @property
    def counting(self) -> str:
        """How pixels are counted, of `METRICS`; images of many sizes only in bins."""
        return "streaming" if self.native else self.metrics


_PARTS = {"data": Data, "method": Method, "evaluation": Evaluation}
# The part that each field is of; no two have one of the same name.
FIELDS = {field.name: part for part, kind in _PARTS.items() for field in dataclasses.fields(kind)}


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that a result depends on, and where the data lies."""

    data: Data = Data()
    method: Method = dataclasses.field(default_factory=Method)
    evaluation: Evaluation = Evaluation()

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """The configuration with some fields of its parts, named as flags are."""
        return cls().replace(**fields)

    def replace(self, **fields: Any) -> Self:
        """The configuration with other values for some fields of its parts."""
        changed = {part: {} for part in _PARTS}
        for name, value in fields.items():
            changed[FIELDS[name]][name] = value
        parts = {
            part: dataclasses.replace(getattr(self, part), **own) for part, own in changed.items()
        }
        return dataclasses.replace(self, **parts)

    def get(self, name: str) -> Any:
        """The value of a field of one of its parts."""
        return getattr(getattr(self, FIELDS[name]), name)

    def flat(self) -> dict[str, Any]:
        """The fields of all parts, named as flags are: what a record keeps."""
        return {name: self.get(name) for name in FIELDS}

    @property
    def network(self) -> Network:
        """The levels of the network, without its weights."""
        return network.describe(self.method.backbone)

    @property
    def solvers(self) -> tuple[str, ...]:
        """What scores: the method's own solver, then its baselines."""
        return (self.method.solver, *self.evaluation.baselines)

    def digest(self, **more: Any) -> str:
        """A short hash of the configuration and of whatever else a record depends on."""
        # Where records lie is no part of what they hold.
        fields = self.replace(prepared_dir=None).flat()
        described = json.dumps([fields, more], sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()[:16]


DEFAULTS = Config().flat()


@contextlib.contextmanager
def speaking_of_flags() -> Iterator[None]:
    """Turns an error that names an argument of the library into one that names a flag."""
    try:
        yield
    except ArgumentError as error:
        raise ConfigError(checking.as_flags(str(error))) from error


def resolve(config: Config, given: Collection[str] = ()) -> Config:
    """Fills in what depends on the network, after checking every name and range.

    Args:
      config: what was asked for.
      given: flags that were named, so that none of them may be without use, as of `usage.refuse`.

    Raises:
      ConfigError: names the flag and says what it may be.
    """
    data, evaluation = config.data, config.evaluation
    checking.check_known("dataset", "data set", data.dataset, datasets.DATASETS)
    with speaking_of_flags():
        seen = config.network
        method = settle.with_sampler(config.method)
        checking.check_known("split", "split", data.split, SPLITS)
        settle.check(method)
        _check_evaluation(config)
        _check_data(data)
        left_open = dataclasses.replace(method, sampler=config.method.sampler)
        usage.refuse(dataclasses.replace(config, method=left_open), given)
        method = settle.settle(_with_weights(method), seen, evaluation.baselines)
        size = method.image_size
        settle.require(
            not method.is_large,
            "large_image_size",
            size,
            f"above image_size={size}, which alone keeps squares as they are",
        )
    return dataclasses.replace(config, method=method)


def check_sizes(config: Config, num_train: Mapping[str, int]) -> None:
    """As `settle.check_sizes`, of category to its number of training images.

    Raises:
      ConfigError: names the category, the flag and the sizes.
    """
    with speaking_of_flags():
        settle.check_sizes(config.method, config.network, num_train, config.evaluation.baselines)


def check_patches(config: Config, num_nominal: Mapping[str, int]) -> None:
    """As `check_sizes`, of category to its number of nominal patches of the coarsest bank."""
    with speaking_of_flags():
        settle.check_patches(config.method, num_nominal, config.evaluation.baselines)


def _check_evaluation(config: Config) -> None:
    evaluation = config.evaluation
    checking.check_known("metrics", "way of counting", evaluation.metrics, METRICS)
    checking.check_known("eval_size", "size", evaluation.eval_size, EVAL_SIZES)
    if evaluation.native and evaluation.metrics == "exact":
        raise ConfigError("--metrics=exact must be auto or streaming with --eval_size=native")
    for name in evaluation.baselines:
        checking.check_known("baseline", "baseline", name, alternatives.SOLVERS)
        if name == config.method.solver:
            raise ConfigError(f"--baseline={name} must be another than --solver={name}")
    _require_seed("seed", evaluation.seed)


def _check_data(data: Data) -> None:
    if data.shots is not None and data.shots < 1:
        raise ConfigError(f"--shots={data.shots} must be a positive number of training images")
    _require_seed("split_seed", data.split_seed)


def _require_seed(flag: str, value: int) -> None:
    if not 0 <= value < 2**32:
        raise ConfigError(f"--{flag}={value} must be between 0 and 2^32 - 1")


def _with_weights(method: Method) -> Method:
    if method.weights is None:
        return method
    if hub.is_address(method.weights):
        try:
            hub.parse(method.weights)
        except WeightsError as error:
            raise ConfigError(f"--{error}") from error
        return method
    path = checking.path("weights", method.weights)
    if not path.is_file():
        raise ConfigError(f"--weights={path} is not a file")
    return dataclasses.replace(method, weights=str(path))
