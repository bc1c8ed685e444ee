"""The alternatives of each part of the method, by name: solvers, samplers, learners, searches."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax

from sgfr_jax import pipeline, samplers, search, solvers, types

# Elastic net codes that tie a bank's atoms to each other in sparse subspace clustering; sparser
# ones tie the atoms of one subspace too loosely.
_CLUSTERING_CODE = partial(solvers.elastic_net_code, l1=0.05, l2=0.5)
# Among how many times the wanted atoms `support_frequency` chooses: coding every patch over all
# others would take time with the square of their number.
_CANDIDATES = 10
# And how many numbers OMP holds there, which copies the candidates for every patch: where these
# fill twice a CPU's cache they take five times as long.
_COPIES = 1 << 22


class Sampler(NamedTuple):
    """A sampler in two parts, so that a caller can show how far it has come."""

    start: Callable[[jax.Array, jax.Array, jax.Array, int], types.Selection]
    advance: Callable[[types.Selection, jax.Array, int], types.Selection]


class Solver(NamedTuple):
    """What codes a patch, made of a `Method`."""

    make: Callable[[Any], pipeline.MakeCode]
    # The fields of the method that it takes.
    uses: tuple[str, ...] = ()
    # The field of the method that says how many atoms the bank must have for one code.
    atoms: str | None = None
    # Patches coded at a time, at least: what is computed for all targets alike should be for many.
    chunk_size: int = 0


# How a coder finds the nearest atoms; all but the first are for accelerators.
SEARCHES = {
    "exact": search.exact,
    "reduced": search.reduced,
    "approximate": search.approximate,
}


def _given(value: float | None, default: float) -> float:
    return default if value is None else value


def _local(solve: Callable, **chosen: Callable[[Any], float]) -> Solver:
    """A penalty on the coefficients of the nearest atoms; `chosen` are its hyperparameters."""

    def make(method: Any) -> pipeline.MakeCode:
        bound = {name: choose(method) for name, choose in chosen.items()}
        return partial(
            solvers.local_code,
            num_neighbors=method.num_neighbors,
            solve=partial(solve, **bound),
            search=SEARCHES[method.search],
        )

    return Solver(make, ("num_neighbors", "search", *chosen), "num_neighbors")


def _nearest(method: Any) -> pipeline.MakeCode:
    return partial(
        solvers.local_code, num_neighbors=1, solve=solvers.nearest, search=SEARCHES[method.search]
    )


def _omp(method: Any) -> pipeline.MakeCode:
    return partial(solvers.omp, sparsity=method.sparsity)


def _whole_bank_ridge(method: Any) -> pipeline.MakeCode:
    return partial(solvers.whole_bank_ridge, ridge=_given(method.ridge, 1e-2))


def _elastic_net_bank(method: Any, l2: float | None = None) -> pipeline.MakeCode:
    return partial(
        solvers.elastic_net_code,
        l1=_given(method.l1, 0.1),
        l2=_given(l2, method.l2),
        max_atoms=method.max_atoms,
    )


def _project(method: Any) -> pipeline.MakeCode:
    return partial(solvers.project, rank=method.subspace_rank)


_ridge = {"ridge": lambda method: _given(method.ridge, 1e-3)}
_l1 = {"l1": lambda method: _given(method.l1, 0.01)}
_l2 = {"l2": lambda method: method.l2}

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
# The learners whose bank is a `types.subspace_bank`, which `project` needs.
SUBSPACE_LEARNERS = ("pca", *CLUSTERING_LEARNERS)
# `implicit` learns nothing: the atoms are patches, and their neighbours span the subspaces.
LEARNERS = ("implicit", *SUBSPACE_LEARNERS, "dictionary")


def make_coder(solver: str, method: Any) -> pipeline.MakeCode:
    """The coder `(targets, bank) -> Code` of a solver's name."""
    return SOLVERS[solver].make(method)


def counting_solver(method: Any) -> str:
    """The solver in whose codes `support_frequency` counts: the method's if local or OMP."""
    return method.solver if method.solver in (*LOCAL_SOLVERS, "omp") else "affine_ridge"


def coders(method: Any, baselines: Sequence[str] = ()) -> set[str]:
    """The solvers that a method codes with, and those that it is compared with."""
    counting = {counting_solver(method)} if method.sampler == "support_frequency" else set()
    return {method.solver, *baselines, *counting}


def make_sampler(method: Any) -> Sampler:
    """The sampler that a method names."""
    return SAMPLERS[method.sampler](method)


def make_learner(method: Any) -> Callable[[jax.Array, types.Bank], types.Bank]:
    """What makes the bank that coders run on of a bank of patches: `(key, bank) -> Bank`.

    For one of `SUBSPACE_LEARNERS`; the others have `make_dictionary`, or need nothing.
    """
    # Imported late: optax comes with it.
    from sgfr_jax import subspaces

    several = {"num_subspaces": method.num_subspaces}
    learn = {
        "pca": subspaces.pca,
        "k_subspaces": partial(subspaces.k_subspaces, **several),
        "sparse_clustering": partial(subspaces.sparse_clustering, **several, code=_CLUSTERING_CODE),
    }[method.subspaces]

    def learned(key: jax.Array, bank: types.Bank) -> types.Bank:
        found = learn(
            key, bank.atoms, bank.weights, rank=method.subspace_rank, affine=method.affine_subspaces
        )
        return types.subspace_bank(found)

    return learned


def make_dictionary(method: Any) -> Callable[[jax.Array, jax.Array, jax.Array, int], types.Bank]:
    """What learns a dictionary for the method's own solver.

    `(key, patches, weights, num_atoms) -> Bank`
    """
    from sgfr_jax import subspaces

    code = make_coder(method.solver, method)

    def learned(
        key: jax.Array, points: jax.Array, weights: jax.Array, num_atoms: int
    ) -> types.Bank:
        return subspaces.dictionary(key, points, weights, num_atoms=num_atoms, code=code)

    return learned


def _at_once(sample: pipeline.Sample) -> Sampler:
    """A sampler that has come to its end when it has started."""
    return Sampler(sample, lambda selection, points, upto: selection)


def _support_frequency(method: Any) -> Sampler:
    solver = counting_solver(method)
    code, needed = make_coder(solver, method), SOLVERS[solver].atoms or "num_neighbors"

    def sample(key: jax.Array, points: jax.Array, weights: jax.Array, num: int) -> types.Selection:
        candidates = min(points.shape[0], max(_CANDIDATES * num, getattr(method, needed)))
        chunk = {}
        if solver == "omp":
            chunk["chunk_size"] = max(1, _COPIES // (candidates * points.shape[1]))
        return samplers.support_frequency(
            key, points, weights, num, code=code, num_candidates=candidates, **chunk
        )

    return _at_once(sample)


SAMPLERS: dict[str, Callable[[Any], Sampler]] = {
    "k_center": lambda method: Sampler(samplers.k_center_start, samplers.k_center_advance),
    "random": lambda method: _at_once(samplers.uniform),
    "self_representation": lambda method: Sampler(
        samplers.self_representation_start, samplers.self_representation_advance
    ),
    "support_frequency": _support_frequency,
    "k_medoids": lambda method: _at_once(samplers.k_medoids),
}
