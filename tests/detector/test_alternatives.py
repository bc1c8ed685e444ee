import dataclasses
import functools

import jax
import numpy as np
import pytest

from sgfr_jax import pipeline, samplers, solvers, types
from sgfr_jax.detector import alternatives
from sgfr_jax.detector.method import Method


def normal(seed, num):
    return np.random.default_rng(seed).normal(size=(num, 4)).astype(np.float32)


def ones(num):
    return np.ones(num, np.float32)


def bank_of(atoms):
    return types.Bank(atoms, ones(len(atoms)), np.arange(len(atoms)))


METHOD = Method(num_neighbors=3, sparsity=3, num_subspaces=3, subspace_rank=2)
ATOMS = normal(0, 12)
BANK = bank_of(ATOMS)


def hyperparameters(code):
    """What is bound to a coder, and to the penalty inside it."""
    bound = dict(code.keywords)
    if isinstance(solve := bound.pop("solve", None), functools.partial):
        bound |= solve.keywords
    bound.pop("search", None)
    return bound


def test_every_solver_gets_its_hyperparameters():
    defaults, given = Method(), Method(
        num_neighbors=3, ridge=0.5, sparsity=2, l1=0.3, l2=0.2, max_atoms=7, subspace_rank=4
    )  # fmt: skip
    expected = {
        "affine_ridge": {"num_neighbors": (10, 3), "ridge": (1e-3, 0.5)},
        "ridge": {"num_neighbors": (10, 3), "ridge": (1e-3, 0.5)},
        "nearest": {"num_neighbors": (1, 1)},
        "nonnegative": {"num_neighbors": (10, 3)},
        "elastic_net": {"num_neighbors": (10, 3), "l1": (0.01, 0.3), "l2": (1e-3, 0.2)},
        "lasso": {"num_neighbors": (10, 3), "l1": (0.01, 0.3)},
        "omp": {"sparsity": (5, 2)},
        "whole_bank_ridge": {"ridge": (1e-2, 0.5)},
        "elastic_net_bank": {"l1": (0.1, 0.3), "l2": (1e-3, 0.2), "max_atoms": (64, 7)},
        "lasso_bank": {"l1": (0.1, 0.3), "l2": (0.0, 0.0), "max_atoms": (64, 7)},
        "project": {"rank": (8, 4)},
    }
    assert set(expected) == set(alternatives.SOLVERS)
    for name, bound in expected.items():
        for i, method in enumerate((defaults, given)):
            found = hyperparameters(alternatives.make_coder(name, method))
            assert found == {key: values[i] for key, values in bound.items()}


@pytest.mark.parametrize("name", alternatives.SAMPLERS)
def test_every_sampler_samples(name):
    sampler = alternatives.make_sampler(dataclasses.replace(METHOD, sampler=name))
    points = normal(0, 30)
    start = jax.jit(sampler.start, static_argnums=3)
    selection = start(jax.random.key(1), points, ones(30), 7)
    selection = jax.jit(sampler.advance)(selection, points, 7)
    assert selection.count == 7 and len(set(selection.indices.tolist())) == 7


@pytest.mark.parametrize(
    "solver,counted",
    [
        ("omp", functools.partial(solvers.omp, sparsity=3)),
        ("ridge", alternatives.make_coder("ridge", METHOD)),
        ("whole_bank_ridge", alternatives.make_coder("affine_ridge", METHOD)),
    ],
)
def test_support_frequency_counts_in_codes_of_the_solver(solver, counted):
    points, weights = normal(0, 80), ones(80)
    method = dataclasses.replace(METHOD, sampler="support_frequency", solver=solver)
    start = jax.jit(alternatives.make_sampler(method).start, static_argnums=3)
    found = start(jax.random.key(1), points, weights, 7)
    sample = functools.partial(samplers.support_frequency, code=counted, num_candidates=70)
    expected = jax.jit(sample, static_argnums=3)(jax.random.key(1), points, weights, 7)
    assert found.indices.tolist() == expected.indices.tolist()


def score_by(code):
    return jax.jit(functools.partial(pipeline.score, code=code))


@pytest.mark.parametrize(
    "name,num,affine",
    [
        ("pca", 1, False),
        ("k_subspaces", 3, True),
        ("sparse_clustering", 3, False),
    ],
)
def test_every_learner_learns(name, num, affine):
    method = dataclasses.replace(METHOD, subspaces=name, affine_subspaces=affine)
    learned = jax.device_get(jax.jit(alternatives.make_learner(method))(jax.random.key(0), BANK))
    assert learned.atoms.shape == (num * 3, 4)
    assert np.all((learned.weights.reshape(num, 3)[:, 0] > 0) <= affine)
    scores = score_by(alternatives.make_coder("project", method))(learned, ATOMS)
    spread = np.linalg.norm(ATOMS - affine * np.mean(ATOMS, axis=0, keepdims=True), axis=1)
    assert np.mean(scores) < np.mean(spread)


def test_a_dictionary_serves_the_runs_solver_better_than_patches_do():
    method = dataclasses.replace(METHOD, subspaces="dictionary", solver="ridge", num_neighbors=2)
    points = normal(2, 200)
    learned = jax.jit(alternatives.make_dictionary(method), static_argnums=3)(
        jax.random.key(0), points, ones(200), 8
    )
    assert learned.atoms.shape == (8, 4) and np.all(learned.indices == -1)
    score = score_by(alternatives.make_coder("ridge", method))
    patches = bank_of(points[:8])
    assert np.mean(score(learned, points)) < 0.95 * np.mean(score(patches, points))
