"""Explanations, against codes taken apart by hand."""

from functools import partial

import jax
import numpy as np
import pytest

from sgfr_jax import explanation, pipeline, solvers, subspaces, types

WIDTHS = (3, 5, 4)
AFFINE = partial(
    solvers.local_code, num_neighbors=6, solve=partial(solvers.affine_ridge, ridge=1e-3)
)
CODERS = {
    "affine_ridge": AFFINE,
    "nearest": partial(solvers.local_code, num_neighbors=1, solve=solvers.nearest),
    "omp": partial(solvers.omp, sparsity=4),
    "whole_bank_ridge": partial(solvers.whole_bank_ridge, ridge=1e-2),
    "elastic_net_bank": partial(solvers.elastic_net_code, l1=0.1, l2=1e-3, max_atoms=8),
}

EXPLAIN = jax.jit(explanation.explain, static_argnames=("code", "level_widths", "num_atoms"))


@partial(jax.jit, static_argnames="code")
def explained(bank, patches, code):
    """In one program the explanation, the code that it is of, and the scores."""
    found = explanation.explain(bank, patches, code=code, level_widths=WIDTHS, num_atoms=5)
    return found, code(patches, bank), pipeline.score(bank, patches, code=code, chunk_size=None)


@pytest.fixture
def bank(rng):
    atoms = rng.normal(size=(30, 12)).astype(np.float32)
    weights = np.ones(30, np.float32)
    atoms[25:], weights[25:] = 0, 0
    return types.Bank(atoms, weights, np.arange(30, dtype=np.int32))


@pytest.fixture
def patches(rng):
    return rng.normal(size=(7, 12)).astype(np.float32)


@pytest.mark.parametrize("name", CODERS)
def test_every_coder(bank, patches, name):
    """Patch by patch, from the dense coefficients."""
    found, of_all, scores = jax.device_get(explained(bank, patches, CODERS[name]))
    atoms, norms = bank.atoms, np.linalg.norm(bank.atoms, axis=1)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-6)
    for n, patch in enumerate(patches):
        dense = np.zeros(30)
        rows = np.arange(30) if of_all.indices is None else of_all.indices[n]
        np.add.at(dense, rows, of_all.coefficients[n])
        order = np.argsort(-np.abs(dense) * norms, kind="stable")
        num = min(found.atoms.shape[1], np.count_nonzero(dense))
        np.testing.assert_array_equal(found.atoms[n, :num], order[:num])
        np.testing.assert_allclose(found.coefficients[n, :num], dense[order[:num]], rtol=1e-6)
        assert (found.atoms[n, num:] == -1).all() and not found.coefficients[n, num:].any()
        residual = np.split(patch - dense @ atoms, np.cumsum(WIDTHS)[:-1])
        squares = np.array([np.sum(part**2) for part in residual])
        np.testing.assert_allclose(found.shares[n], squares / squares.sum(), rtol=1e-3, atol=1e-5)
    assert (found.atoms < 25).all()  # padding rebuilds nothing


def test_all_atoms_of_a_short_code_rebuild_the_patch(bank, patches):
    found = EXPLAIN(bank, patches, code=AFFINE, level_widths=(12,))
    assert found.atoms.shape == (7, 6)  # K, which is less than was asked for
    rebuilt = np.einsum("nk,nkd->nd", found.coefficients, bank.atoms[np.asarray(found.atoms)])
    np.testing.assert_allclose(np.linalg.norm(patches - rebuilt, axis=1), found.scores, rtol=1e-4)
    np.testing.assert_array_equal(found.shares, np.ones((7, 1)))


def test_a_defect_of_one_level_is_found_in_it(bank, patches):
    """A nominal patch, but for the features of the second level."""
    patches[0] = bank.atoms[4]
    patches[0, 3:8] += 0.5
    found = jax.device_get(explained(bank, patches, CODERS["nearest"])[0])
    assert found.atoms[:1].tolist() == [[4]] and found.coefficients[:1].tolist() == [[1.0]]
    np.testing.assert_allclose(found.shares[:1], [[0, 1, 0]], atol=1e-6)


def test_a_patch_that_is_rebuilt_exactly_has_no_shares(bank):
    found = explained(bank, bank.atoms[:7], CODERS["nearest"])[0]
    assert not np.asarray(found.scores).any() and not np.asarray(found.shares).any()
    tiny = bank._replace(atoms=bank.atoms * np.float32(1e-25))
    found = explained(tiny, tiny.atoms[:7] * 2, CODERS["nearest"])[0]
    np.testing.assert_allclose(np.sum(found.shares, axis=1), 1, rtol=1e-6)


def test_under_jit_vmap_and_on_learned_bases(bank, patches, rng):
    """Banks of two categories at once; what one alone gives."""
    both = jax.tree.map(lambda x: np.stack([x, x[::-1]]), bank)
    of_both = jax.vmap(lambda bank: explained(bank, patches, AFFINE)[0])
    found = jax.device_get(of_both(both))
    alone = explained(bank, patches, AFFINE)[0]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[0], y, rtol=1e-4), found, alone)
    np.testing.assert_array_equal(found.atoms[1], 29 - found.atoms[0])

    @jax.jit
    def on_bases(points, patches):
        learned = subspaces.pca(jax.random.key(0), points, np.ones(50, np.float32), rank=4)
        code = partial(solvers.project, rank=4)
        bank = types.subspace_bank(learned)
        return explanation.explain(bank, patches, code=code, level_widths=WIDTHS)

    found = on_bases(rng.normal(size=(50, 12)).astype(np.float32), patches)
    assert found.atoms.shape == (7, 5)
    assert (np.asarray(found.atoms)[:, 4] == -1).all()  # the mean of a linear subspace is none


@pytest.mark.parametrize("widths", [(3, 5), (12, 0), ()])
def test_widths_that_do_not_fit_are_refused(bank, patches, widths):
    with pytest.raises(ValueError, match="level_widths"):
        explanation.explain(bank, patches, code=AFFINE, level_widths=widths)
    with pytest.raises(ValueError, match="num_atoms=0"):
        explanation.explain(bank, patches, code=AFFINE, level_widths=WIDTHS, num_atoms=0)
