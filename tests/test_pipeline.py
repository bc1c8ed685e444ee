from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

import sgfr_jax as sgfr
from sgfr_jax import self_expression

CODE = partial(sgfr.local_code, num_neighbors=4, solve=partial(sgfr.affine_ridge, ridge=1e-3))
NEAREST = partial(sgfr.local_code, num_neighbors=1, solve=sgfr.nearest)


FIT = jax.jit(sgfr.fit, static_argnames=("sample", "num_atoms"))
SCORE = jax.jit(sgfr.score, static_argnames=("code", "chunk_size"))
SCORE_AND_OWNER = jax.jit(sgfr.score_and_owner, static_argnames=("code", "chunk_size"))
HELD_OUT = jax.jit(partial(sgfr.score_held_out, code=CODE, chunk_size=5))
# Of most tests, so that they share programs.
NUM_PATCHES, NUM_ATOMS, NUM_TARGETS, NUM_FEATURES = 60, 20, 25, 6


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def fit(patches, num_atoms, weights=None, sample=sgfr.greedy_k_center):
    weights = np.ones(len(patches), np.float32) if weights is None else np.float32(weights)
    found = FIT(jax.random.key(0), np.float32(patches), weights, sample=sample, num_atoms=num_atoms)
    return jax.device_get(found)


def score(bank, targets, code, chunk_size=256):
    return np.asarray(SCORE(bank, np.float32(targets), code=code, chunk_size=chunk_size))


@pytest.fixture
def patches(rng):
    return normal(rng, NUM_PATCHES, NUM_FEATURES)


@pytest.fixture
def bank(patches):
    return fit(patches, NUM_ATOMS)


@pytest.fixture
def targets(rng):
    return normal(rng, NUM_TARGETS, NUM_FEATURES)


def test_atoms_are_the_patches_that_the_bank_says(bank, patches):
    np.testing.assert_array_equal(bank.atoms, patches[bank.indices])


def test_nearest_neighbour_scores_are_scipys_distances(bank, targets):
    expected = cdist(targets, np.asarray(bank.atoms, np.float64)).min(axis=1)
    np.testing.assert_allclose(score(bank, targets, NEAREST), expected, 1e-4)


@pytest.mark.parametrize("chunk_size", [1, 5, 7, NUM_TARGETS, 64])
def test_chunks_change_nothing(bank, targets, chunk_size):
    expected = score(bank, targets, CODE, None)
    found = score(bank, targets, CODE, chunk_size)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_patches_off_the_nominal_subspace_score_higher(rng):
    basis = rng.normal(size=(2, NUM_FEATURES))
    nominal, unseen = (rng.normal(size=(num, 2)) @ basis for num in (NUM_PATCHES, NUM_TARGETS))
    defective = unseen + 0.5 * rng.normal(size=unseen.shape)
    bank = fit(nominal, NUM_ATOMS)
    low, high = (score(bank, patches, CODE, None) for patches in (unseen, defective))
    assert np.median(low) < 0.3 * np.median(high)


def test_vmap_over_padded_categories_equals_the_loop(rng):
    patches = normal(rng, 3, NUM_PATCHES, NUM_FEATURES)
    targets = normal(rng, 3, NUM_TARGETS, NUM_FEATURES)
    weights = np.ones((3, NUM_PATCHES), np.float32)
    weights[1, 30:] = 0
    keys = jax.random.split(jax.random.key(0), 3)
    numbers = {"sample": sgfr.greedy_k_center, "num_atoms": NUM_ATOMS}

    def run_one(key, patches, weights, targets):
        bank = sgfr.fit(key, patches, weights, **numbers)
        return sgfr.score(bank, targets, code=CODE, chunk_size=5)

    found = np.asarray(jax.jit(jax.vmap(run_one))(keys, patches, weights, targets))
    for i in range(3):
        bank = FIT(keys[i], patches[i], weights[i], **numbers)
        expected = score(bank, targets[i], CODE, 5)
        np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-5)


def test_empty_slots_are_zero_atoms_whatever_the_patches_hold():
    """Without jit, too."""
    patches = np.ones((4, 3), np.float32)
    patches[0] = np.nan

    def sample(key, patches, weights, num):
        assert (patches.shape, weights.shape, num) == ((4, 3), (4,), 3)
        return sgfr.Selection(np.int32([1, 0, 0]), np.float32([1, 0, 0]), 1, weights)

    bank = sgfr.fit(jax.random.key(0), patches, np.ones(4), sample=sample, num_atoms=3)
    np.testing.assert_array_equal(bank.atoms, [[1] * 3, [0] * 3, [0] * 3])


def test_a_chunk_must_have_a_size(bank, targets):
    with pytest.raises(ValueError, match="chunk_size=0"):
        sgfr.score(bank, targets, code=NEAREST, chunk_size=0)


def test_a_bank_that_ran_out_of_patches_scores_like_a_smaller_one(patches, targets):
    padded = fit(patches, NUM_ATOMS, np.arange(NUM_PATCHES) < 8)
    assert padded.weights.sum() == 8
    whole = fit(patches[:8], 8)
    np.testing.assert_allclose(score(padded, targets, CODE), score(whole, targets, CODE), rtol=1e-4)


@pytest.mark.parametrize("chunk_size", [None, 7])
def test_owners_are_the_nearest_atoms(bank, targets, chunk_size):
    scores, owners = SCORE_AND_OWNER(bank, targets, code=CODE, chunk_size=chunk_size)
    distances = cdist(targets, bank.atoms)
    np.testing.assert_array_equal(owners, distances.argmin(axis=1))
    np.testing.assert_allclose(scores, score(bank, targets, CODE, None), rtol=1e-5)


def test_the_owner_of_a_code_over_all_atoms_has_the_largest_coefficient(bank, targets):
    code = partial(sgfr.whole_bank_ridge, ridge=1e-2)
    _, owners = SCORE_AND_OWNER(bank, targets, code=code)
    coefficients = jax.jit(code)(targets, bank).coefficients
    np.testing.assert_array_equal(owners, np.abs(coefficients).argmax(axis=1))


def test_held_out_images_do_not_see_the_atoms_they_gave(patches):
    images = patches.reshape(4, 15, NUM_FEATURES)
    chosen = np.arange(NUM_PATCHES).reshape(4, 15)[:, :5].ravel()  # five of each image
    sources = chosen // 15
    bank = sgfr.Bank(patches[chosen], np.ones(NUM_ATOMS, np.float32), np.int32(chosen))
    scores, owners = jax.device_get(HELD_OUT(bank, sources, images[1:3], np.int32([1, 2])))
    assert scores.shape == owners.shape == (2, 15)
    for i, own in enumerate((1, 2)):
        smaller = sgfr.Bank(*(part[sources != own] for part in bank))
        np.testing.assert_allclose(scores[i], score(smaller, images[own], CODE), rtol=1e-4)
        assert (sources[owners[i]] != own).all()


def test_atoms_of_no_image_are_left_out_for_none(bank, patches):
    images = patches[:15].reshape(1, 15, NUM_FEATURES)
    for source, own in ((-1, -1), (-1, 0), (-2, -2)):
        sources = np.full(NUM_ATOMS, source, np.int32)
        scores, _ = HELD_OUT(bank, sources, np.repeat(images, 2, axis=0), np.int32([own, own]))
        np.testing.assert_allclose(scores[0], score(bank, images[0], CODE), rtol=1e-5)


def test_an_image_that_gave_all_atoms_is_left_with_none(bank, patches):
    images = patches[:30].reshape(2, 15, NUM_FEATURES)
    scores, _ = HELD_OUT(bank, np.zeros(NUM_ATOMS, np.int32), images, np.int32([0, 1]))
    np.testing.assert_allclose(scores[0], np.linalg.norm(images[0], axis=-1), rtol=1e-5)


@pytest.mark.parametrize("code", [CODE, partial(sgfr.omp, sparsity=3)], ids=["local", "omp"])
def test_a_bank_in_arrays_of_numpy_serves_too(rng, bank, code):
    """As one that comes from a file is, also where it is a constant of a compiled function."""
    arrays = jax.tree.map(jnp.asarray, bank)
    targets, sources = normal(rng, 30, NUM_FEATURES), np.arange(NUM_ATOMS) % 3

    def results(bank, targets):
        images = targets.reshape(3, 10, -1)
        return (
            sgfr.score(bank, targets, code=code, chunk_size=8),
            sgfr.score_held_out(bank, sources, images, np.arange(3), code=code),
            self_expression.leave_one_out(targets, np.arange(30), bank, code=code),
        )

    assert all(isinstance(part, np.ndarray) for part in bank)
    # NumPy's arrays that tracers index, or of another type, show while tracing.
    of_numpy, of_jax = (jax.eval_shape(partial(results, x), targets) for x in (bank, arrays))
    assert of_numpy == of_jax


def test_nor_need_it_be_compiled(bank, targets):
    found = sgfr.score(bank, targets, code=NEAREST, chunk_size=8)
    np.testing.assert_allclose(found, score(bank, targets, NEAREST), rtol=1e-6)
    number = np.int32([0])
    scores, _ = sgfr.score_held_out(bank, bank.indices, targets[None], number, code=NEAREST)
    others = bank._replace(weights=bank.weights * (bank.indices != 0))
    np.testing.assert_allclose(scores[0], score(others, targets, NEAREST), rtol=1e-6)
    alone = self_expression.leave_one_out(targets, np.full(len(targets), -1), bank, code=NEAREST)
    owners = cdist(targets, bank.atoms).argmin(axis=1)
    np.testing.assert_array_equal(np.asarray(alone.indices)[:, 0], owners)


def test_every_atom_has_a_source(bank):
    with pytest.raises(ValueError, match=r"got \(2,\) for atoms \(20, 6\)"):
        sgfr.score_held_out(
            bank, np.zeros(2, int), np.ones((1, 2, 6)), np.zeros(1, int), code=NEAREST
        )
