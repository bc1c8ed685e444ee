"""Every solver, sampler and basis learner that the command line names, from images to records."""

import numpy as np
import pytest

from sgfr_jax.commands import run
from sgfr_jax.commands.flags import config, usage
from sgfr_jax.commands.host.machine import Resources
from sgfr_jax.detector import alternatives, synthetic

# One category and one level; every solver's program is compiled, so small ones.
TINY = config.Config.of(
    dataset="folder", categories=("cap",), layers=("block4",), image_size=64, grid=6,
    bank_size=40, num_neighbors=5, max_atoms=5, num_subspaces=6, subspace_rank=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory):
    """The same images in every test need be embedded in the first alone."""
    return tmp_path_factory.mktemp("embeddings")


@pytest.fixture
def go(folder, tmp_path, embeddings):
    def run_with(**changes):
        settings = TINY.replace(data_dir=str(folder), **changes)
        resources = Resources(
            tmp_path / "out", batch_size=6, num_figures=0, cache_dir=embeddings, cache_bytes=10**8
        )
        (record,) = run.run(config.resolve(usage.cleared(settings)), resources)
        return record

    return run_with


def scores(record, name=None):
    of = "score" if name is None else f"score_{name}"
    return np.array([image[of] for image in record.images])


@pytest.mark.parametrize(
    "subspaces,solvers,num_atoms",
    [
        ("implicit", alternatives.LOCAL_SOLVERS, 40),
        pytest.param("k_subspaces", alternatives.BANK_SOLVERS, 6 * 4, marks=pytest.mark.slow),
    ],
)
def test_every_solver_scores(go, subspaces, solvers, num_atoms):
    first, *others = solvers
    sampler = "k_center"  # of 40 patches at random some subspaces would get less than their rank
    record = go(subspaces=subspaces, sampler=sampler, solver=first, baselines=tuple(others))
    assert record.results["num_atoms"] == num_atoms
    found = np.stack([scores(record), *(scores(record, name) for name in others)])
    assert found.shape == (len(solvers), 6) and np.isfinite(found).all()
    # Different codes: no name stands for another's function.
    assert len(np.unique(found.round(6), axis=0)) == len(solvers)


def test_samplers_give_different_banks(go):
    names = ("k_center", "self_representation", "support_frequency", "k_medoids")
    found = [go(sampler=name, solver="nearest") for name in names]
    assert all(record.results["num_atoms"] == 40 for record in found)
    banks = np.stack([scores(record) for record in found])
    assert np.isfinite(banks).all() and len(np.unique(banks, axis=0)) == len(names)


@pytest.mark.parametrize(
    "subspaces,changes,num_atoms",
    [
        ("pca", {"solver": "project", "affine_subspaces": True}, 5),
        pytest.param(
            "sparse_clustering",
            {"solver": "project", "sampler": "k_center"},
            6 * 4,
            marks=pytest.mark.slow,
        ),
        ("dictionary", {"solver": "ridge"}, 40),
    ],
)
def test_every_learner_makes_a_bank(go, subspaces, changes, num_atoms):
    record = go(subspaces=subspaces, **changes)
    # Of a cluster with fewer patches than its rank, rows are missing.
    assert 0 < record.results["num_atoms"] <= num_atoms
    assert np.isfinite(scores(record)).all()
    assert record.results["pixel_auroc"] > 0.5


def test_a_basis_for_each_of_several_streams(go, monkeypatch):
    monkeypatch.setitem(synthetic.draw.__kwdefaults__, "copies", 1)
    named = ("block4@1", "block10@1.5")
    record = go(layers=named, grid=None, subspaces="pca", solver="project")
    assert np.isfinite(scores(record)).all()
    assert record.results["num_atoms"] == 2 * 4
    # No atom is an image's own.
    assert any("learned bases come from all images" in note for note in record.notes)
