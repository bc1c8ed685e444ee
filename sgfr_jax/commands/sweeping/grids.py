"""Grids of configurations: functions that call `add` with the flags of a point.

A point has the flags of the command line, but for those that its grid names. `ridge`, `l1` and `l2`
may be tuples: a point for each value, all computed by one compiled program.
"""

import itertools
import types
import typing
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from sgfr_jax import names
from sgfr_jax.commands.flags import config, usage
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.detector import network
from sgfr_jax.detector.method import FAST, Method

# The penalties: what a tuple may give.
PENALTIES = ("ridge", "l1", "l2")
# The fields of a point: which images there are holds for all, and a point makes of its own what
# its seed and its number of shots say.
_TYPES = {
    name: kind
    for of in (config.Data, Method, config.Evaluation)
    for name, kind in typing.get_type_hints(of).items()
    if name != "baselines"
    and (of is not config.Data or name in ("split", "split_seed", "shots", "skip_bad_images"))
}
# A bank of patches of several levels, whose size and solver the questions are about.
_ONE_BANK = FAST

Add = Callable[..., None]


class Point(NamedTuple):
    """One configuration of a grid."""

    title: str  # of the grid, the point and its flags, for messages
    config: config.Config  # from `config.resolve`


def sampler_by_ratio(add: Add) -> None:
    """What chooses the bank, by its size."""
    for sampler in ("k_center", "random", "k_medoids", "self_representation", "support_frequency"):
        for ratio in (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1):
            for solver in ("affine_ridge", "nearest"):
                add(layers=_ONE_BANK, sampler=sampler, bank_ratio=ratio, solver=solver)


def solver_by_neighbors(add: Add) -> None:
    """What codes a patch, by how many atoms it draws on."""
    for num in (1, 2, 3, 5, 10, 20, 30):
        for solver in ("affine_ridge", "ridge", "nonnegative", "lasso", "elastic_net"):
            add(layers=_ONE_BANK, solver=solver, num_neighbors=num)
        add(layers=_ONE_BANK, solver="omp", sparsity=num)


def solver_by_bank(add: Add) -> None:
    """Four solvers on three sizes of bank from two samplers: 24 points."""
    for sampler in ("k_center", "random"):
        for ratio in (0.001, 0.003, 0.01):
            for solver in ("affine_ridge", "ridge", "nonnegative", "nearest"):
                add(layers=_ONE_BANK, sampler=sampler, bank_ratio=ratio, solver=solver)


def penalties(add: Add) -> None:
    """How much a coefficient costs."""
    for solver in ("affine_ridge", "ridge", "whole_bank_ridge"):
        add(layers=_ONE_BANK, solver=solver, ridge=(1e-4, 1e-3, 1e-2, 1e-1))
    add(layers=_ONE_BANK, solver="lasso", l1=(0.003, 0.01, 0.03, 0.1))


def backbone_by_layers(add: Add) -> None:
    """Networks, and which of their levels make the bank."""
    for backbone in ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"):
        for layers in _levels(backbone):
            for solver in ("affine_ridge", "nearest"):
                add(backbone=backbone, layers=layers, solver=solver)


def image_size(add: Add) -> None:
    """How large images are looked at."""
    for size in (128, 192, 256, 320, 384):
        for solver in ("affine_ridge", "nearest"):
            add(image_size=size, solver=solver)


def seeds(add: Add) -> None:
    """How much a result varies with the algorithm's seed and the seed of the split."""
    for seed in range(5):
        for solver in ("affine_ridge", "nearest"):
            add(seed=seed, split_seed=seed, solver=solver)


def few_shot(add: Add) -> None:
    """A few nominal images; a bank large enough for the fewest."""
    for shots in (1, 2, 4, 8, 16):
        for seed in range(5):
            for solver in ("affine_ridge", "nearest"):
                add(layers=_ONE_BANK, shots=shots, seed=seed, solver=solver, bank_ratio=0.25)


GRIDS: dict[str, Callable[[Add], None]] = {
    grid.__name__: grid
    for grid in (
        sampler_by_ratio,
        solver_by_neighbors,
        solver_by_bank,
        penalties,
        backbone_by_layers,
        image_size,
        seeds,
        few_shot,
    )
}


def points(name: str, base: config.Config, given: Collection[str] = ()) -> list[Point]:
    """The points of a grid.

    Args:
      name: of `GRIDS`.
      base: the command line's configuration, before anything is filled in.
      given: the flags that the command line names.

    Raises:
      ConfigError: an unknown grid; or names the grid, the point and what is wrong with it.
    """
    if name not in GRIDS:
        raise ConfigError(f"--grid: {names.unknown_name('grid', name, GRIDS)}")
    found: list[Point] = []

    def add(**flags: Any) -> None:
        described = " ".join(f"{flag}={_text(value)}" for flag, value in flags.items())
        where = f"grid {name}, point {len(found) + 1} ({described})"
        for flag, value in flags.items():
            _check(where, flag, value, given)
        for chosen in _each(flags):
            shown = " ".join(f"{flag}={_text(value)}" for flag, value in chosen.items())
            try:
                asked = usage.cleared(base.replace(**chosen), chosen)
                resolved = config.resolve(asked)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from error
            found.append(Point(f"grid {name}, point {len(found) + 1} ({shown})", resolved))

    GRIDS[name](add)
    usage.refuse_unused([point.config for point in found], given)
    return found


def _levels(backbone: str) -> Iterator[str]:
    """The network's usual levels together, then each alone."""
    yield FAST
    yield from network.describe(backbone).default_levels


def _each(flags: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The flags with every value of a tuple, as `Config` has them."""
    axes = [value if flag in PENALTIES and isinstance(value, tuple) else (value,)
            for flag, value in flags.items()]  # fmt: skip
    for values in itertools.product(*axes):
        yield {flag: _as_stored(flag, v) for flag, v in zip(flags, values, strict=True)}


def _as_stored(flag: str, value: Any) -> Any:
    """The value as the command line would make it, so that a record has one name."""
    if flag == "layers" and isinstance(value, str):
        return tuple(value.split(","))
    return float(value) if isinstance(value, int) and _is_number(_TYPES[flag]) else value


def _is_number(kind: Any) -> bool:
    return float in (typing.get_args(kind) or (kind,))


def _check(where: str, flag: str, value: Any, given: Collection[str]) -> None:
    if flag not in _TYPES:
        of_all = {"category", "baseline", *config.FIELDS}
        raise ConfigError(
            f"{where}: --{flag} holds for a whole sweep: give it on the command line"
            if flag in of_all
            else f"{where}: {names.unknown_name('flag', flag, _TYPES)}"
        )
    if flag in given:
        raise ConfigError(f"--{flag} is set by {where}: leave it out")
    if flag == "layers":
        value = tuple(value.split(",")) if isinstance(value, str) else value
        fine = isinstance(value, tuple) and all(isinstance(name, str) for name in value)
    elif isinstance(value, tuple) and flag in PENALTIES:
        fine = bool(value) and all(_is_a(_TYPES[flag], one) for one in value)
    elif isinstance(value, tuple):
        raise ConfigError(
            f"{where}: --{flag} takes one value a point; tuples are for {', '.join(PENALTIES)}"
        )
    else:
        fine = _is_a(_TYPES[flag], value)
    if not fine:
        raise ConfigError(f"{where}: --{flag}={value!r} is not of its type")


def _is_a(kind: Any, value: Any) -> bool:
    """Whether a value is of a field's type; an integer will do for a number."""
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds) or (_is_number(kind) and isinstance(value, int))


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
