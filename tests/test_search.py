from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from sgfr_jax import search

# `approx_max_k` is exact on a CPU, so here every search finds the same; `benchmarks.accelerator`
# measures the recall where it is not.
SEARCHES = {
    "exact": jax.jit(search.exact, static_argnames="num_neighbors"),
    "reduced": jax.jit(search.reduced, static_argnames=("num_neighbors", "spare")),
    "approximate": jax.jit(search.approximate, static_argnames="num_neighbors"),
}
PROPOSING = {name: SEARCHES[name] for name in ("reduced", "approximate")}
every = pytest.mark.parametrize("find", SEARCHES.values(), ids=SEARCHES)
proposing = pytest.mark.parametrize("find", PROPOSING.values(), ids=PROPOSING)


def patches(rng, num, width=48):
    """Unit norm, in clusters around a common mean, each along a few directions of its own."""
    centres = 1.0 + rng.normal(size=(8, width))
    directions = rng.normal(size=(8, 5, width))
    cluster = rng.integers(8, size=num)
    along = np.einsum("nr,nrd->nd", rng.normal(size=(num, 5)), directions[cluster])
    points = centres[cluster] + 0.2 * along + 0.05 * rng.normal(size=(num, width))
    return np.float32(points / np.linalg.norm(points, axis=1, keepdims=True))


def residuals(targets, atoms, indices, ridge=1e-3):
    """The affine ridge residual of each target on the atoms of its row, in float64."""
    found = []
    for target, row in zip(targets.astype(np.float64), np.asarray(indices), strict=True):
        differences = target - atoms[row].astype(np.float64)
        gram = differences @ differences.T
        gram += ridge * np.trace(gram) / len(row) * np.eye(len(row))
        weights = np.linalg.solve(gram, np.ones(len(row)))
        found.append(np.linalg.norm(weights / weights.sum() @ differences))
    return np.array(found)


@every
def test_neighbours_come_in_order_and_padding_last(find):
    atoms = jnp.float32([[0.0], [3.0], [1.0], [0.1]])
    weights = jnp.float32([1, 1, 1, 0])
    found = find(jnp.float32([[0.2], [2.9]]), atoms, weights, num_neighbors=4)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, [[0, 2, 1, 3], [1, 2, 0, 3]])


@every
@pytest.mark.parametrize("rubbish", [np.nan, np.inf, -np.inf])
def test_padding_may_hold_anything(find, rng, rubbish):
    """More of it than is proposed to spare, and before the atoms."""
    targets, atoms = patches(rng, 20), patches(rng, 60)
    atoms[:30] = rubbish
    weights = jnp.float32(np.arange(60) >= 30)
    found = find(jnp.asarray(targets), jnp.asarray(atoms), weights, num_neighbors=5)
    expected = np.argsort(cdist(targets, atoms[30:]), axis=1)[:, :5] + 30
    np.testing.assert_array_equal(found, expected)


@every
def test_padding_is_never_among_the_neighbours(find, rng):
    targets, atoms = patches(rng, 20), patches(rng, 60)
    weights = np.float32(rng.random(60) < 0.3)
    found = find(jnp.asarray(targets), jnp.asarray(atoms), jnp.asarray(weights), num_neighbors=10)
    real = np.flatnonzero(weights)
    expected = real[np.argsort(cdist(targets, atoms[real]), axis=1)[:, :10]]
    np.testing.assert_array_equal(found, expected)


@proposing
def test_neighbours_of_patches_are_the_exact_ones(find, rng):
    targets, atoms = patches(rng, 300), patches(rng, 3000)
    found = find(jnp.asarray(targets), jnp.asarray(atoms), jnp.ones(3000), num_neighbors=10)
    expected = np.argsort(cdist(targets, atoms), axis=1)[:, :10]
    recall = np.mean((np.asarray(found)[:, :, None] == expected[:, None]).any(axis=2))
    assert recall > 0.999
    before, after = residuals(targets, atoms, expected), residuals(targets, atoms, found)
    assert np.max(np.abs(after - before) / before) < 1e-3


def test_the_spare_proposals_are_needed(rng):
    targets, atoms = patches(rng, 300), patches(rng, 3000)
    args = jnp.asarray(targets), jnp.asarray(atoms), jnp.ones(3000)
    expected = np.sort(np.argsort(cdist(targets, atoms), axis=1)[:, :10])
    wrong = {
        spare: np.mean(
            np.sort(SEARCHES["reduced"](*args, num_neighbors=10, spare=spare)) != expected
        )
        for spare in (0, 6)
    }
    assert wrong[6] < wrong[0] / 10


@every
@pytest.mark.parametrize("ratio", [1, 100, 1000])
def test_a_mean_that_features_share_hides_no_neighbour(find, ratio):
    """As the tokens of transformers do; at 100 `reduced` found 6% of the neighbours, before."""
    rng = np.random.default_rng(ratio)
    mean = ratio * rng.choice([-1.0, 1.0], size=48) * rng.uniform(0.5, 1.5, size=48)
    targets, atoms = (np.float32(mean + rng.normal(size=(num, 48))) for num in (60, 1500))
    held = np.concatenate([atoms, np.full((500, 48), 1e30, np.float32)])
    weights = jnp.float32(np.arange(2000) < 1500)
    found = find(jnp.asarray(targets), jnp.asarray(held), weights, num_neighbors=5)
    expected = np.argsort(cdist(targets.astype(np.float64), atoms), axis=1)[:, :5]
    recall = np.mean((np.asarray(found)[:, :, None] == expected[:, None]).any(axis=2))
    assert recall == 1


@every
def test_an_atom_with_nan_comes_first(find, rng):
    """Else its codes would look as if it were not there."""
    targets, atoms = patches(rng, 6), patches(rng, 30)
    atoms[[4, 9], 3] = np.nan
    weights = jnp.ones(30).at[9].set(0)
    found = find(jnp.asarray(targets), jnp.asarray(atoms), weights, num_neighbors=4)
    np.testing.assert_array_equal(found[:, 0], 4)


@every
def test_weights_of_every_target_make_no_copy_of_the_atoms_for_each(find, rng):
    targets, atoms = jnp.asarray(patches(rng, 7)), jnp.asarray(patches(rng, 30))
    others = 1 - jnp.eye(7, 30)

    def of_one(target, weights):
        return find(target[None], atoms, weights, num_neighbors=4)[0]

    mapped = jax.vmap(of_one)
    assert "[7,30,48]" not in str(jax.make_jaxpr(mapped)(targets, others))
    distances = np.where(others > 0, cdist(targets, atoms), np.inf)
    np.testing.assert_array_equal(mapped(targets, others), np.argsort(distances, axis=1)[:, :4])


@proposing
def test_all_atoms_when_they_are_few(find, rng):
    targets, atoms = patches(rng, 5), patches(rng, 7)
    found = find(jnp.asarray(targets), jnp.asarray(atoms), jnp.ones(7), num_neighbors=5)
    np.testing.assert_array_equal(found, np.argsort(cdist(targets, atoms), axis=1)[:, :5])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_what_is_found_is_as_near_as_the_exact(seed):
    rng = np.random.default_rng(seed)
    targets, atoms = patches(rng, 16, width=6), patches(rng, 40, width=6)
    atoms[20:] = atoms[:20]  # duplicates may stand in for each other
    found = SEARCHES["reduced"](targets, atoms, jnp.ones(40), num_neighbors=4, spare=12)
    distances = cdist(targets, atoms)
    near = np.take_along_axis(distances, np.asarray(found), axis=1)
    assert (np.diff(near, axis=1) >= -1e-6).all()
    np.testing.assert_allclose(near[:, 0], distances.min(axis=1), atol=1e-6)
    assert all(len(set(row)) == 4 for row in np.asarray(found).tolist())


@every
def test_a_patch_that_is_not_a_number_harms_no_other(find, rng):
    targets, atoms = patches(rng, 6), patches(rng, 30)
    broken = targets.copy()
    broken[2, 3] = np.nan
    args = jnp.asarray(atoms), jnp.ones(30)
    found, whole = (
        np.asarray(find(jnp.asarray(x), *args, num_neighbors=4)) for x in (broken, targets)
    )
    np.testing.assert_array_equal(np.delete(found, 2, 0), np.delete(whole, 2, 0))
    assert ((found >= 0) & (found < 30)).all()


@every
def test_searches_compile_without_calls_to_the_host(find, rng):
    given = jnp.zeros((8, 4)), jnp.ones((16, 4)), jnp.ones(16)
    program = jax.jit(partial(find, num_neighbors=3)).lower(*given).compile().as_text()
    assert not any(word in program for word in ("callback", "outfeed", "infeed"))


@every
@pytest.mark.parametrize("num_neighbors", [0, 6])
def test_impossible_numbers_are_refused(find, num_neighbors):
    with pytest.raises(ValueError, match=f"num_neighbors={num_neighbors}, but there are 5 atoms"):
        find(jnp.zeros((2, 3)), jnp.ones((5, 3)), jnp.ones(5), num_neighbors=num_neighbors)


@every
def test_shapes_that_do_not_fit_are_refused(find):
    with pytest.raises(ValueError, match=r"\(2, 4\), \(5, 3\) and \(5,\)"):
        find(jnp.zeros((2, 4)), jnp.ones((5, 3)), jnp.ones(5), num_neighbors=1)


def test_bad_hyperparameters_are_refused():
    args = jnp.zeros((2, 3)), jnp.ones((5, 3)), jnp.ones(5)
    with pytest.raises(ValueError, match="spare=-1"):
        search.reduced(*args, num_neighbors=1, spare=-1)
    with pytest.raises(ValueError, match="recall_target=0"):
        search.approximate(*args, num_neighbors=1, recall_target=0)
