import dataclasses
import functools
import os

import jax
import jax.numpy as jnp
import pytest
from absl import flags
from absl.testing import flagsaver

from sgfr_jax import pipeline, samplers, solvers, types
from sgfr_jax.commands import (
    export,
    predict,
    report,
    run,
    select,
    sweep,
    update,
)
from sgfr_jax.commands.flags import config
from sgfr_jax.commands.host import interruption
from sgfr_jax.detector import choices

CONFIG = config.Config(num_neighbors=3, sparsity=3, num_subspaces=3, subspace_rank=2)
ATOMS = jax.random.normal(jax.random.key(0), (12, 4))
BANK = types.Bank(ATOMS, jnp.ones(12), jnp.arange(12))


def hyperparameters(code):
    """What is bound to a coder, and to the penalty inside it."""
    bound = dict(code.keywords)
    if isinstance(solve := bound.pop("solve", None), functools.partial):
        bound |= solve.keywords
    bound.pop("search", None)
    return bound


def test_every_solver_gets_its_hyperparameters():
    defaults, given = config.Config(), config.Config(
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
    assert set(expected) == set(choices.SOLVERS)
    for name, bound in expected.items():
        for i, settings in enumerate((defaults, given)):
            found = hyperparameters(choices.make_coder(name, settings))
            assert found == {key: values[i] for key, values in bound.items()}


@pytest.mark.parametrize("name", choices.SAMPLERS)
def test_every_sampler_samples(name):
    sampler = choices.make_sampler(dataclasses.replace(CONFIG, sampler=name))
    points = jax.random.normal(jax.random.key(0), (30, 4))
    start = jax.jit(sampler.start, static_argnums=3)
    selection = start(jax.random.key(1), points, jnp.ones(30), 7)
    selection = jax.jit(sampler.advance)(selection, points, 7)
    assert selection.count == 7 and len(set(selection.indices.tolist())) == 7


@pytest.mark.parametrize(
    "solver,counted",
    [
        ("omp", functools.partial(solvers.omp, sparsity=3)),
        ("ridge", choices.make_coder("ridge", CONFIG)),
        ("whole_bank_ridge", choices.make_coder("affine_ridge", CONFIG)),
    ],
)
def test_support_frequency_counts_in_codes_of_the_solver(solver, counted):
    points, weights = jax.random.normal(jax.random.key(0), (80, 4)), jnp.ones(80)
    settings = dataclasses.replace(CONFIG, sampler="support_frequency", solver=solver)
    start = jax.jit(choices.make_sampler(settings).start, static_argnums=3)
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
    settings = dataclasses.replace(CONFIG, subspaces=name, affine_subspaces=affine)
    learned = jax.jit(choices.make_learner(settings))(jax.random.key(0), BANK)
    assert learned.atoms.shape == (num * 3, 4)
    assert jnp.all((learned.weights.reshape(num, 3)[:, 0] > 0) <= affine)
    scores = score_by(choices.make_coder("project", settings))(learned, ATOMS)
    spread = jnp.linalg.norm(ATOMS - affine * jnp.mean(ATOMS, axis=0, keepdims=True), axis=1)
    assert jnp.mean(scores) < jnp.mean(spread)


def test_a_dictionary_serves_the_runs_solver_better_than_patches_do():
    settings = dataclasses.replace(CONFIG, subspaces="dictionary", solver="ridge", num_neighbors=2)
    points = jax.random.normal(jax.random.key(2), (200, 4))
    learned = jax.jit(choices.make_dictionary(settings), static_argnums=3)(
        jax.random.key(0), points, jnp.ones(200), 8
    )
    assert learned.atoms.shape == (8, 4) and jnp.all(learned.indices == -1)
    score = score_by(choices.make_coder("ridge", settings))
    patches = types.Bank(points[:8], jnp.ones(8), jnp.arange(8))
    assert jnp.mean(score(learned, points)) < 0.95 * jnp.mean(score(patches, points))


@pytest.mark.parametrize(
    "main, flag, values",
    [
        (predict.main, "output_dir", {"model": "m", "images": "i"}),
        (predict.main, "weights", {"model": "m", "images": "i"}),
        (update.main, "report", {"model": "m", "images": "i", "output": "o"}),
        (run.main, "workdir", {"dataset": "demo"}),
        (run.main, "data_dir", {"dataset": "folder", "workdir": "w"}),
        (select.main, "workdir", {"dataset": "demo"}),
        (sweep.main, "workdir", {"dataset": "demo", "grid": "seeds"}),
    ],
)
def test_an_empty_path_is_refused_before_anything_is_written(
    main, flag, values, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["run"])
    given = {"cache_dir": "", **values, flag: ""}
    with flagsaver.flagsaver(**given), pytest.raises(SystemExit, match=f"--{flag}= is empty"):
        main(["run"])
    assert set(os.listdir(tmp_path)) <= {"w"}


@pytest.mark.parametrize(
    "main, arguments, flag",
    [
        (report.main, ["--workdir", ""], "workdir"),
        (report.main, ["--workdir", "w", "--out", ""], "out"),
        (export.main, ["--model", "m", "--output", ""], "output"),
    ],
)
def test_an_empty_path_of_other_commands_is_refused(main, arguments, flag, monkeypatch):
    monkeypatch.setattr(interruption, "exit_at_once", lambda *args: None)
    with pytest.raises(SystemExit, match=f"--{flag}= is empty"):
        main(arguments)
