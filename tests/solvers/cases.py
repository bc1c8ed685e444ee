"""One row for every coder; `test_properties` holds them all to the same properties."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax import solvers, types
from tests.solvers import references

# One shape for all, so that every coder compiles once for most of the properties.
N, M, D = 6, 16, 8
RANK = 3


class Case(NamedTuple):
    """A coder, its reference, and the most that its code may leave of an atom."""

    code: Callable
    reference: Callable  # (targets, atoms) -> coefficients [N, M]
    left_of_atom: Callable = lambda target, atoms: 0.0
    group: int = 1  # how many atoms belong together
    accuracy: float = 1e-7  # of coefficients in float64
    # The same code as a function that another row shares, and the numbers that tell them apart:
    # where they are traced, one program serves both.
    program: Callable | None = None
    numbers: dict | None = None


def local(name, num_neighbors, **penalties):
    solve = partial(getattr(solvers, name), **penalties)
    code = partial(solvers.local_code, num_neighbors=num_neighbors, solve=solve)
    reference = partial(getattr(references, name), **penalties)
    return code, partial(references.on_nearest, reference, num_neighbors)


def mean_square(vectors):
    return np.mean(np.sum(vectors**2, axis=1))


# The objective at the atom's own code, or the shrinkage's largest, bounds the residual.
def after_affine(target, atoms):
    return np.sqrt(1e-3 * np.max(np.sum((target - atoms) ** 2, axis=1)))


def after_ridge(target, atoms):
    return np.sqrt(1e-3 * np.max(np.sum(atoms**2, axis=1))) / 2


def after_elastic_net(l1, l2, target, atoms):
    squared = 2 * l1 * np.max(np.abs(atoms @ target)) + l2 * np.max(np.sum(atoms**2, axis=1))
    return np.sqrt(squared)


def local_elastic_net(targets, bank, *, l1, l2):
    solve = partial(solvers.elastic_net, l1=l1, l2=l2)
    return solvers.local_code(targets, bank, num_neighbors=5, solve=solve)


OMP = partial(solvers.omp, sparsity=3)
RIDGE = partial(solvers.whole_bank_ridge, ridge=1e-3)

CASES = {
    "nearest": Case(*local("nearest", 1)),
    "affine_ridge": Case(*local("affine_ridge", 4, ridge=1e-3), after_affine),
    "ridge": Case(*local("ridge", 4, ridge=1e-3), after_ridge),
    "nonnegative": Case(*local("nonnegative", 5)),
    "lasso": Case(
        partial(solvers.local_code, num_neighbors=5, solve=partial(solvers.lasso, l1=0.05)),
        partial(references.on_nearest, partial(references.elastic_net, l1=0.05, l2=0.0), 5),
        partial(after_elastic_net, 0.05, 0.0),
        program=local_elastic_net,
        numbers={"l1": 0.05, "l2": 0.0},
    ),
    "elastic_net": Case(
        *local("elastic_net", 5, l1=0.05, l2=1e-2),
        partial(after_elastic_net, 0.05, 1e-2),
        program=local_elastic_net,
        numbers={"l1": 0.05, "l2": 1e-2},
    ),
    "omp": Case(
        OMP,
        partial(references.on_all, partial(references.omp, sparsity=3)),
    ),
    "whole_bank_ridge": Case(
        RIDGE,
        partial(references.on_all, partial(references.ridge, ridge=1e-3)),
        after_ridge,
    ),
    "elastic_net_code": Case(
        partial(solvers.elastic_net_code, l1=0.1, l2=1e-2, tolerance=1e-5),
        partial(references.on_all, partial(references.elastic_net, l1=0.1, l2=1e-2)),
        partial(after_elastic_net, 0.1, 1e-2),
        accuracy=1e-3,  # it stops at its tolerance where that is met first
        program=solvers.elastic_net_code,
        numbers={"l1": 0.1, "l2": 1e-2, "tolerance": 1e-5},
    ),
    "lasso_of_all": Case(
        partial(solvers.elastic_net_code, l1=0.1, l2=0.0, tolerance=1e-7),
        partial(references.on_all, partial(references.elastic_net, l1=0.1, l2=0.0)),
        partial(after_elastic_net, 0.1, 0.0),
        accuracy=1e-3,
        program=solvers.elastic_net_code,
        numbers={"l1": 0.1, "l2": 0.0, "tolerance": 1e-7},
    ),
    "omp_of_subspaces": Case(
        OMP,
        partial(references.on_all, partial(references.omp, sparsity=3)),
        group=RANK + 1,
    ),
    "ridge_of_subspaces": Case(
        RIDGE,
        partial(references.on_all, partial(references.ridge, ridge=1e-3)),
        after_ridge,
        group=RANK + 1,
    ),
    "project": Case(
        partial(solvers.project, rank=RANK),
        partial(references.on_all, partial(references.project, rank=RANK)),
        group=RANK + 1,
    ),
}


@partial(jax.jit, static_argnums=0)
def run(program, numbers, targets, bank):
    return program(targets, bank, **numbers)


# What to compile for each, and the numbers to give it.
PROGRAMS = {name: (case.program or case.code, case.numbers or {}) for name, case in CASES.items()}
JITTED = {name: partial(run, *program) for name, program in PROGRAMS.items()}


def draw(rng, name, scale=1.0):
    """Targets `[N, D]` and atoms `[M, D]` in float64: subspaces, where atoms come in groups."""
    atoms = rng.normal(size=(M, D)) + 0.5
    if CASES[name].group > 1:
        for group in np.split(atoms, M // (RANK + 1)):
            group[1:] = np.linalg.qr(group[1:].T)[0].T
    # A projection takes its bases to be orthonormal: they have no unit.
    atoms[:: RANK + 1 if name == "project" else 1] *= scale
    return scale * (rng.normal(size=(N, D)) + 0.5), atoms


def bank_of(atoms, weights=None):
    if not isinstance(atoms, jax.Array):  # traced ones stay what they are
        atoms = np.asarray(atoms, jnp.result_type(float))
    weights = np.ones(len(atoms)) if weights is None else np.asarray(weights)
    return types.Bank(atoms, weights.astype(atoms.dtype), np.arange(len(atoms)))


def dense(code, num_atoms):
    """The coefficients `[N, M]` of a code of either kind."""
    found = np.asarray(code.coefficients, np.float64)
    if code.indices is None:
        return found
    spread = np.zeros((len(found), num_atoms))
    np.add.at(spread, (np.arange(len(found))[:, None], np.asarray(code.indices)), found)
    return spread
