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


def fit(patches, num_atoms, key=0):
    fitting = jax.jit(partial(sgfr.fit, sample=sgfr.greedy_k_center, num_atoms=num_atoms))
    return fitting(jax.random.key(key), jnp.float32(patches), jnp.ones(len(patches)))


def score(bank, targets, code, chunk_size=256):
    return jax.jit(partial(sgfr.score, code=code, chunk_size=chunk_size))(bank, targets)


def test_atoms_are_the_patches_that_the_bank_says(rng):
    patches = rng.normal(size=(50, 6)).astype(np.float32)
    bank = fit(patches, 12)
    np.testing.assert_array_equal(bank.atoms, patches[bank.indices])


def test_nearest_neighbour_scores_are_scipys_distances(rng):
    patches, targets = rng.normal(size=(60, 6)), rng.normal(size=(25, 6))
    bank = fit(patches, 20)
    expected = cdist(targets, np.asarray(bank.atoms, np.float64)).min(axis=1)
    np.testing.assert_allclose(score(bank, jnp.float32(targets), NEAREST), expected, 1e-4)


@pytest.mark.parametrize("chunk_size", [None, 1, 7, 10, 20, 64])
def test_chunks_change_nothing(rng, chunk_size):
    bank = fit(rng.normal(size=(60, 6)), 20)
    targets = jnp.float32(rng.normal(size=(20, 6)))
    expected = score(bank, targets, CODE, None)
    found = score(bank, targets, CODE, chunk_size)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_patches_off_the_nominal_subspace_score_higher(rng):
    basis = rng.normal(size=(3, 16))
    nominal, unseen = rng.normal(size=(400, 3)) @ basis, rng.normal(size=(50, 3)) @ basis
    defective = unseen + 0.5 * rng.normal(size=(50, 16))
    bank = fit(nominal, 60)
    low, high = (score(bank, jnp.float32(p), CODE) for p in (unseen, defective))
    assert np.median(low) < 0.3 * np.median(high)


def test_vmap_over_padded_categories_equals_the_loop(rng):
    patches = jnp.float32(rng.normal(size=(3, 64, 5)))
    weights = jnp.ones((3, 64)).at[1, 30:].set(0)
    keys = jax.random.split(jax.random.key(0), 3)
    fit_one = partial(sgfr.fit, sample=sgfr.greedy_k_center, num_atoms=16)
    targets = jnp.float32(rng.normal(size=(3, 10, 5)))
    score_one = partial(sgfr.score, code=CODE, chunk_size=4)

    def run_one(key, patches, weights, targets):
        return score_one(fit_one(key, patches, weights), targets)

    found = jax.jit(jax.vmap(run_one))(keys, patches, weights, targets)
    run_one = jax.jit(run_one)
    for i in range(3):
        expected = run_one(keys[i], patches[i], weights[i], targets[i])
        np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-5)


def test_empty_slots_are_zero_atoms_whatever_the_patches_hold():
    patches = jnp.ones((4, 3)).at[0].set(jnp.nan)
    weights = jnp.float32([0, 1, 0, 0])
    bank = sgfr.fit(jax.random.key(0), patches, weights, sample=sgfr.uniform, num_atoms=3)
    np.testing.assert_array_equal(bank.atoms, [[1] * 3, [0] * 3, [0] * 3])


def test_a_chunk_must_have_a_size():
    bank = fit(np.ones((4, 3), np.float32), 2)
    with pytest.raises(ValueError, match="chunk_size=0"):
        sgfr.score(bank, jnp.ones((4, 3)), code=NEAREST, chunk_size=0)


def test_a_bank_that_ran_out_of_patches_scores_like_a_smaller_one(rng):
    patches = jnp.float32(rng.normal(size=(20, 5)))
    weights = jnp.ones(20).at[8:].set(0)
    targets = jnp.float32(rng.normal(size=(6, 5)))
    fitting = jax.jit(partial(sgfr.fit, sample=sgfr.greedy_k_center, num_atoms=15))
    padded = fitting(jax.random.key(0), patches, weights)
    whole = fit(patches[:8], 8)
    np.testing.assert_allclose(score(padded, targets, CODE), score(whole, targets, CODE), rtol=1e-4)


@pytest.mark.parametrize("chunk_size", [None, 7])
def test_owners_are_the_nearest_atoms(rng, chunk_size):
    bank = fit(rng.normal(size=(60, 6)), 20)
    targets = jnp.float32(rng.normal(size=(25, 6)))
    both = jax.jit(partial(sgfr.score_and_owner, code=CODE, chunk_size=chunk_size))
    scores, owners = both(bank, targets)
    distances = cdist(targets, np.asarray(bank.atoms))
    np.testing.assert_array_equal(owners, distances.argmin(axis=1))
    np.testing.assert_allclose(scores, score(bank, targets, CODE, None), rtol=1e-5)


def test_the_owner_of_a_code_over_all_atoms_has_the_largest_coefficient(rng):
    bank = fit(rng.normal(size=(30, 6)), 5)
    targets = jnp.float32(rng.normal(size=(8, 6)))
    code = partial(sgfr.whole_bank_ridge, ridge=1e-2)
    _, owners = sgfr.score_and_owner(bank, targets, code=code)
    coefficients = code(targets, bank).coefficients
    np.testing.assert_array_equal(owners, np.abs(coefficients).argmax(axis=1))


def test_held_out_images_do_not_see_the_atoms_they_gave(rng):
    images = jnp.float32(rng.normal(size=(4, 10, 6)))
    bank = fit(images.reshape(40, 6), 24)
    sources = bank.indices // 10
    held_out = jax.jit(partial(sgfr.score_held_out, code=CODE, chunk_size=4))
    scores, owners = held_out(bank, sources, images[1:3], jnp.array([1, 2]))
    assert scores.shape == owners.shape == (2, 10)
    for i, own in enumerate((1, 2)):
        others = np.asarray(sources) != own
        smaller = sgfr.Bank(bank.atoms[others], bank.weights[others], bank.indices[others])
        np.testing.assert_allclose(scores[i], score(smaller, images[own], CODE), rtol=1e-4)
        assert (np.asarray(sources)[owners[i]] != own).all()


def test_atoms_of_no_image_are_left_out_for_none(rng):
    bank = fit(rng.normal(size=(40, 6)), 24)
    image = jnp.float32(rng.normal(size=(1, 10, 6)))
    for source, own in ((-1, -1), (-1, 0), (-2, -2)):
        sources = jnp.full(24, source)
        scores, _ = sgfr.score_held_out(bank, sources, image, jnp.array([own]), code=CODE)
        np.testing.assert_allclose(scores[0], score(bank, image[0], CODE), rtol=1e-5)


def test_an_image_that_gave_all_atoms_is_left_with_none(rng):
    image = jnp.float32(rng.normal(size=(1, 10, 6)))
    bank = fit(image[0], 5)
    scores, _ = sgfr.score_held_out(bank, jnp.zeros(5, jnp.int32), image, jnp.array([0]), code=CODE)
    np.testing.assert_allclose(scores[0], np.linalg.norm(image[0], axis=-1), rtol=1e-5)


@pytest.mark.parametrize("code", [CODE, partial(sgfr.omp, sparsity=3)], ids=["local", "omp"])
def test_a_bank_in_arrays_of_numpy_serves_too(rng, code):
    """As one that comes from a file is."""
    bank = fit(rng.normal(size=(60, 6)), 20)
    plain = jax.tree.map(np.asarray, bank)
    targets, sources = jnp.float32(rng.normal(size=(30, 6))), np.arange(20) % 3
    for score in (
        lambda bank: sgfr.score(bank, targets, code=code, chunk_size=8),
        lambda bank: jax.jit(lambda x: sgfr.score(bank, x, code=code))(targets),
        lambda bank: sgfr.score_held_out(
            bank, sources, targets.reshape(3, 10, 6), np.arange(3), code=code
        )[0],
        lambda bank: (
            self_expression.leave_one_out(targets, np.arange(30), bank, code=code).coefficients
        ),
    ):
        np.testing.assert_array_equal(score(plain), score(bank))


def test_every_atom_has_a_source():
    bank = sgfr.Bank(jnp.ones((4, 3)), jnp.ones(4), jnp.arange(4))
    with pytest.raises(ValueError, match=r"got \(2,\) for atoms \(4, 3\)"):
        sgfr.score_held_out(
            bank, jnp.zeros(2, int), jnp.ones((1, 2, 3)), jnp.zeros(1, int), code=NEAREST
        )
