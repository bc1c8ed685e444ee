"""Which choices use which flags: a flag that nothing of a run would use is refused."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.detector import alternatives
from sgfr_jax.detector.method import AT, AUTO

_ONE_BANK = "names of levels or fast"
_SEVERAL_BANKS = f"{AUTO} or LEVEL{AT}SCALE"


class Use(NamedTuple):
    """A flag, and what of a configuration has a use for it."""

    flag: str  # and field of the configuration
    by: str  # the flag that decides whether it is used
    wanted: str  # its values with which it is
    used: Callable[[Any], bool]  # whether a configuration has them


def _coders(config: Any) -> set[str]:
    return alternatives.coders(config.method, config.evaluation.baselines)


def _by_solvers(flag: str) -> Use:
    users = [name for name, solver in alternatives.SOLVERS.items() if flag in solver.uses]
    return Use(flag, "solver", ", ".join(users), lambda c: not _coders(c).isdisjoint(users))


def _by_value(flag: str, by: str, users: Sequence[str]) -> Use:
    return Use(flag, by, ", ".join(users), lambda c: c.get(by) in users)


def _by_geometry(flag: str, kind: str) -> Use:
    return Use(flag, "geometry", kind, lambda c: kind in c.method.geometry.split("+"))


# Nothing but what is named here is ever without use. What says where images lie, and which there
# are, `datasets.load` refuses.
TABLE = (
    *map(
        _by_solvers, dict.fromkeys(flag for s in alternatives.SOLVERS.values() for flag in s.uses)
    ),
    _by_value("num_subspaces", "subspaces", alternatives.CLUSTERING_LEARNERS),
    _by_value("subspace_rank", "subspaces", alternatives.SUBSPACE_LEARNERS),
    _by_value("affine_subspaces", "subspaces", alternatives.SUBSPACE_LEARNERS),
    _by_value("sampler", "subspaces", [n for n in alternatives.LEARNERS if n != "dictionary"]),
    _by_value("split", "dataset", ("mtd",)),
    _by_value("split_seed", "dataset", ("demo", "mtd")),
    _by_geometry("crop", "crop"),
    _by_geometry("tile", "tile"),
    _by_geometry("overlap", "tile"),
    Use("large_image_size", "layers", AUTO, lambda c: c.method.layers == (AUTO,)),
    Use(
        "large_image_size",
        "geometry",
        f"{AUTO} or square",
        lambda c: c.method.geometry in (AUTO, "square"),
    ),
    Use("grid", "layers", _ONE_BANK, lambda c: not c.method.has_streams),
    Use("halo", "layers", _SEVERAL_BANKS, lambda c: c.method.has_streams),
    *(
        Use(
            flag,
            "layers",
            f"{_SEVERAL_BANKS}, or several of --geometry",
            lambda c: not c.method.one_bank,
        )
        for flag in ("breadth", "image_prior")
    ),
)


def refuse(config: Any, given: Collection[str] = ()) -> None:
    """Checks that a configuration has a use for all that it sets.

    Args:
      config: `config.Config`, of known names.
      given: flags that were named, be it with their default.

    Raises:
      ConfigError: names the flag, and with what it would be used.
    """
    for use in TABLE:
        value = config.get(use.flag)
        if (value != _default(config, use.flag) or use.flag in given) and not use.used(config):
            of_flag, of_other = map(_text, (value, config.get(use.by)))
            raise ConfigError(
                f"--{use.flag}={of_flag} must be left out with --{use.by}={of_other}: it is for"
                f" --{use.by}={use.wanted}"
            )


def refuse_unused(configs: Sequence[Any], given: Collection[str]) -> None:
    """Checks that at least one of some configurations has a use for each flag that was named."""
    for use in TABLE:
        if use.flag in given and configs and not any(map(use.used, configs)):
            raise ConfigError(
                f"--{use.flag} must be left out: no point uses it; it is for"
                f" --{use.by}={use.wanted}"
            )


def cleared(config: Any, kept: Collection[str] = ()) -> Any:
    """The configuration with the default of every flag for which it has no use.

    Args:
      config: as of `refuse`.
      kept: flags that stay, so that `refuse` finds them, unless the data set alone has no use.
    """
    unused = {
        use.flag: _default(config, use.flag)
        for use in TABLE
        if not use.used(config) and (use.flag not in kept or use.by == "dataset")
    }
    return config.replace(**unused)


def _default(config: Any, flag: str) -> Any:
    return type(config)().get(flag)


def _text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
