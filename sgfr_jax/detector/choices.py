"""Names of the command line and the functions they stand for."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from sgfr_jax import names, pipeline, samplers, search, solvers, types

# Elastic net codes that tie a bank's atoms to each other in sparse subspace clustering; sparser
# ones tie the atoms of one subspace too loosely.
_CLUSTERING_CODE = partial(solvers.elastic_net_code, l1=0.05, l2=0.5)
# Among how many times the wanted atoms `support_frequency` chooses: coding every patch over all
# others would take time with the square of their number.
_CANDIDATES = 10
# And how many numbers OMP holds there, which copies the candidates for every patch: where these
# fill twice a CPU's cache they take five times as long.
_COPIES = 1 << 22


class ConfigError(ValueError):
    """A flag that cannot be honoured; the message says which and what would be right."""


class Sampler(NamedTuple):
    """A sampler in two parts, so that a caller can show how far it has come."""

    start: Callable[[jax.Array, jax.Array, jax.Array, int], types.Selection]
    advance: Callable[[types.Selection, jax.Array, int], types.Selection]


class Solver(NamedTuple):
    """What codes a patch; `config` is that of the run, `sgfr_jax.commands.flags.config.Config`."""

    make: Callable[[Any], pipeline.MakeCode]
    # The flags that it takes, fields of the configuration.
    uses: tuple[str, ...] = ()
    # The field of the configuration that says how many atoms the bank must have for one code.
    atoms: str | None = None
    # Patches coded at a time, at least: what is computed for all targets alike should be for many.
    chunk_size: int = 0


# How a coder finds the nearest atoms; all but the first are for accelerators.
SEARCHES = {
    "exact": search.exact,
    "reduced": search.reduced,
    "approximate": search.approximate,
}

METRICS = ("auto", "exact", "streaming")
EVAL_SIZES = ("square", "native")

# The one sampler that sees patches a block at a time; `sampling` drives it.
STREAMING = "k_center_stream"


def _given(value: float | None, default: float) -> float:
    return default if value is None else value


def _local(solve: Callable, **chosen: Callable[[Any], float]) -> Solver:
    """A penalty on the coefficients of the nearest atoms; `chosen` are its hyperparameters."""

    def make(config: Any) -> pipeline.MakeCode:
        bound = {name: choose(config) for name, choose in chosen.items()}
        return partial(
            solvers.local_code,
            num_neighbors=config.num_neighbors,
            solve=partial(solve, **bound),
            search=SEARCHES[config.search],
        )

    return Solver(make, ("num_neighbors", "search", *chosen), "num_neighbors")


def _nearest(config: Any) -> pipeline.MakeCode:
    return partial(
        solvers.local_code, num_neighbors=1, solve=solvers.nearest, search=SEARCHES[config.search]
    )


def _omp(config: Any) -> pipeline.MakeCode:
    return partial(solvers.omp, sparsity=config.sparsity)


def _whole_bank_ridge(config: Any) -> pipeline.MakeCode:
    return partial(solvers.whole_bank_ridge, ridge=_given(config.ridge, 1e-2))


def _elastic_net_bank(config: Any, l2: float | None = None) -> pipeline.MakeCode:
    return partial(
        solvers.elastic_net_code,
        l1=_given(config.l1, 0.1),
        l2=_given(l2, config.l2),
        max_atoms=config.max_atoms,
    )


def _project(config: Any) -> pipeline.MakeCode:
    return partial(solvers.project, rank=config.subspace_rank)


_ridge = {"ridge": lambda config: _given(config.ridge, 1e-3)}
_l1 = {"l1": lambda config: _given(config.l1, 0.01)}
_l2 = {"l2": lambda config: config.l2}

LOCAL_SOLVERS = {
    "affine_ridge": _local(solvers.affine_ridge, **_ridge),
    "ridge": _local(solvers.ridge, **_ridge),
    "nearest": Solver(_nearest, ("search",)),
    "nonnegative": _local(solvers.nonnegative),
    "elastic_net": _local(solvers.elastic_net, **_l1, **_l2),
    "lasso": _local(solvers.lasso, **_l1),
}

BANK_SOLVERS = {
    "omp": Solver(_omp, ("sparsity",), "sparsity"),
    "whole_bank_ridge": Solver(_whole_bank_ridge, ("ridge",), chunk_size=4096),
    "elastic_net_bank": Solver(_elastic_net_bank, ("l1", "l2", "max_atoms")),
    "lasso_bank": Solver(partial(_elastic_net_bank, l2=0.0), ("l1", "max_atoms")),
    "project": Solver(_project),  # of `subspace_rank`, which its learner uses
}

SOLVERS = LOCAL_SOLVERS | BANK_SOLVERS

# Those that make several subspaces, of `num_subspaces`; `pca` makes one.
CLUSTERING_LEARNERS = ("k_subspaces", "sparse_clustering")
# Those that learn from any number of patches; the others take time with its cube.
SCALABLE_LEARNERS = ("pca", "k_subspaces")
# Those whose bank is that of `types.subspace_bank`, which `project` needs.
SUBSPACE_LEARNERS = ("pca", *CLUSTERING_LEARNERS)
# `implicit` learns nothing: the atoms are patches, and their neighbours span the subspaces.
LEARNERS = ("implicit", *SUBSPACE_LEARNERS, "dictionary")


def make_coder(solver: str, config: Any) -> pipeline.MakeCode:
    """The coder `(targets, bank) -> Code` of a solver's name."""
    return SOLVERS[solver].make(config)


def counting_solver(config: Any) -> str:
    """The solver in whose codes `support_frequency` counts: the run's if that is local or OMP."""
    return config.solver if config.solver in (*LOCAL_SOLVERS, "omp") else "affine_ridge"


def coders(config: Any) -> set[str]:
    """The solvers that a run codes with."""
    counting = {counting_solver(config)} if config.sampler == "support_frequency" else set()
    return {*config.solvers, *counting}


def make_sampler(config: Any) -> Sampler:
    """The sampler that a configuration names; `STREAMING` is none of these."""
    return SAMPLERS[config.sampler](config)


def make_learner(config: Any) -> Callable[[jax.Array, types.Bank], types.Bank]:
    """What makes the bank that coders run on of a bank of patches: `(key, bank) -> Bank`.

    For one of `SUBSPACE_LEARNERS`; the others have `make_dictionary`, or need nothing.
    """
    # Imported late: optax comes with it.
    from sgfr_jax import subspaces

    several = {"num_subspaces": config.num_subspaces}
    learn = {
        "pca": subspaces.pca,
        "k_subspaces": partial(subspaces.k_subspaces, **several),
        "sparse_clustering": partial(subspaces.sparse_clustering, **several, code=_CLUSTERING_CODE),
    }[config.subspaces]

    def learned(key: jax.Array, bank: types.Bank) -> types.Bank:
        found = learn(
            key, bank.atoms, bank.weights, rank=config.subspace_rank, affine=config.affine_subspaces
        )
        return types.subspace_bank(found)

    return learned


def make_dictionary(config: Any) -> Callable[[jax.Array, jax.Array, jax.Array, int], types.Bank]:
    """What learns a dictionary for the run's own solver.

    `(key, patches, weights, num_atoms) -> Bank`
    """
    from sgfr_jax import subspaces

    code = make_coder(config.solver, config)

    def learned(
        key: jax.Array, points: jax.Array, weights: jax.Array, num_atoms: int
    ) -> types.Bank:
        return subspaces.dictionary(key, points, weights, num_atoms=num_atoms, code=code)

    return learned


def _at_once(sample: pipeline.Sample) -> Sampler:
    """A sampler that has come to its end when it has started."""
    return Sampler(sample, lambda selection, points, upto: selection)


def _support_frequency(config: Any) -> Sampler:
    solver = counting_solver(config)
    code, needed = make_coder(solver, config), SOLVERS[solver].atoms or "num_neighbors"

    def sample(key: jax.Array, points: jax.Array, weights: jax.Array, num: int) -> types.Selection:
        candidates = min(points.shape[0], max(_CANDIDATES * num, getattr(config, needed)))
        chunk = {}
        if solver == "omp":
            chunk["chunk_size"] = max(1, _COPIES // (candidates * points.shape[1]))
        return samplers.support_frequency(
            key, points, weights, num, code=code, num_candidates=candidates, **chunk
        )

    return _at_once(sample)


SAMPLERS: dict[str, Callable[[Any], Sampler]] = {
    "k_center": lambda config: Sampler(samplers.k_center_start, samplers.k_center_advance),
    "random": lambda config: _at_once(samplers.uniform),
    "self_representation": lambda config: Sampler(
        samplers.self_representation_start, samplers.self_representation_advance
    ),
    "support_frequency": _support_frequency,
    "k_medoids": lambda config: _at_once(samplers.k_medoids),
}


def path(flag: str, text: str) -> Path:
    """The path that a flag names, with the home directory in place of `~`.

    Raises:
      ConfigError: if nothing says where that is, or the flag names nothing.
    """
    check_named(flag, text)
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"--{flag}={text}: the home directory is not known: give the path without ~"
        ) from error


def check_named(flag: str, text: str) -> None:
    """Raises ConfigError if a flag for a path is empty, which would be the current directory."""
    if not text:
        raise ConfigError(f"--{flag}= is empty: name a path, such as . for the current directory")


def check_known(flag: str, what: str, name: str, known: Iterable[str]) -> None:
    """Raises ConfigError, with the known names and the nearest one, if `name` is not known."""
    known = list(known)
    if name not in known:
        raise ConfigError(f"--{flag}: {names.unknown_name(what, name, known)}")
