import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import fit, greedy_k_center, uniform
from sgfr_jax.detector import alternatives, sampling, settle, splits
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.services import PLAIN

PLAINLY = Method.fast(sampler="k_center", grid=2)


@pytest.fixture
def points(rng):
    """Of ten squares of four patches each."""
    return rng.normal(size=(40, 5)).astype(np.float32)


@pytest.mark.parametrize("name,whole", [("k_center", greedy_k_center), ("random", uniform)])
def test_fitting_in_steps_is_fit(points, name, whole, monkeypatch):
    monkeypatch.setattr(sampling, "_STRIDE", 4)
    method, told = dataclasses.replace(PLAINLY, sampler=name), []
    bank = sampling.make_bank(
        method, jax.random.key(0), points, np.ones(40, np.float32), 6, told.append
    )
    expected = fit(jax.random.key(0), points, jnp.ones(40), sample=whole, num_atoms=6)
    jax.tree.map(np.testing.assert_array_equal, bank, expected)
    assert sum(told) == 6 and (told == [4, 2]) == (name == "k_center")


def test_patches_of_padding_are_no_atoms(points):
    weights = np.tile(np.float32([1, 1, 1, 0]), 10)
    bank = sampling.make_bank(PLAINLY, jax.random.key(0), points, weights, 12)
    assert (bank.indices % 4 < 3).all() and (bank.weights == 1).all()


def test_a_machine_may_choose_atoms_of_patches_that_it_spreads(points):
    """K-center alone can; what is learned of a bank comes after."""
    key, weights, asked = jax.random.key(0), np.ones(40, np.float32), []
    own = sampling.make_bank(PLAINLY, key, points, weights, 6)

    def sample(*given):
        asked.append(given)
        return own

    machine = PLAIN._replace(sample=sample)

    def report(more):
        pytest.fail("it is for the machine to report")

    made = sampling.make_bank(
        PLAINLY, key, points, weights, 6, report, machine, shape=(10, 4)
    )  # fmt: skip
    assert made is not None and len(asked) == 1
    assert asked[0][1] is points and asked[0][3:] == ((10, 4), 6, report)
    for fields in ({"sampler": "random"}, {"subspaces": "dictionary", "solver": "ridge"}):
        method = dataclasses.replace(PLAINLY, num_neighbors=2, **fields)
        sampling.make_bank(method, key, points, weights, 6, machine=machine, shape=(10, 4))
    assert len(asked) == 1
    pca = dataclasses.replace(PLAINLY, subspaces="pca", subspace_rank=2)
    bank = sampling.make_bank(pca, key, points, weights, 6, report, machine, shape=(10, 4))
    assert len(asked) == 2 and bank.atoms.shape == (3, 5)


def test_origins_of_chosen_atoms_and_of_learned_ones(points):
    bank = sampling.make_bank(PLAINLY, jax.random.key(0), points, np.ones(40, np.float32), 6)
    picks, owners = np.tile(np.arange(4), (10, 1)), np.repeat(np.arange(5), 2)
    found = sampling.origins(PLAINLY, bank, picks, owners)
    flat = (2 * found.images + found.windows) * 4 + found.cells
    np.testing.assert_array_equal(bank.atoms, points[flat])
    learned = dataclasses.replace(PLAINLY, subspaces="pca")
    for of in sampling.origins(learned, bank, picks, owners):
        np.testing.assert_array_equal(of, [-1] * 6)


def test_patches_that_show_an_image_are_counted():
    examples = splits.of_arrays([np.zeros((8, 8), np.uint8)] * 2)
    full = splits.Views(examples, np.arange(2), None)
    assert sampling.num_patches(full, 4) == 32 and sampling.patch_weights(full, 4).all()
    some = full._replace(extents=np.float32([[1, 1], [0.5, 0.75]]))
    weights = sampling.patch_weights(some, 4).reshape(2, 4, 4)
    assert weights[0].all() and weights[1, :2, :3].all()
    assert sampling.num_patches(some, 4) == 16 + 6 == weights.sum()


@pytest.mark.parametrize("learner", ["pca", "k_subspaces"])
def test_few_outliers_do_not_turn_the_bases(rng, learner):
    """K-center takes them first of all, and its bank is largely of them."""
    true, foreign = np.split(np.linalg.qr(rng.normal(size=(24, 4)))[0].T, [3])
    patches = rng.normal(size=(2000, 3)) @ true + 0.02 * rng.normal(size=(2000, 24))
    patches[:40] = rng.choice([-1, 1], size=(40, 1)) * foreign + 0.1 * rng.normal(size=(40, 24))
    patches /= np.linalg.norm(patches, axis=1, keepdims=True)

    one = {"num_subspaces": 1} if learner in alternatives.CLUSTERING_LEARNERS else {}

    def found(sampler):
        method = Method.fast(subspaces=learner, subspace_rank=3, sampler=sampler, **one)
        bank = sampling.make_bank(
            method, jax.random.key(0), np.float32(patches), np.ones(2000, np.float32),
            method.num_atoms(2000),
        )  # fmt: skip
        bases = np.asarray(bank.atoms)[1:]  # after the mean
        return np.sum((bases @ true.T) ** 2) / 3  # the mean squared cosine of principal angles

    assert settle.with_sampler(Method.fast(subspaces=learner)).sampler == "random"
    assert found("random") > 0.99
    assert found("k_center") < 0.9
