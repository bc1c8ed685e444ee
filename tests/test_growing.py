"""Banks that grow, against the definitions and against what a whole fit would choose."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from sgfr_jax import growing, pipeline, samplers, solvers, types

KEY = jax.random.key(0)
CODE = partial(solvers.local_code, num_neighbors=4, solve=partial(solvers.affine_ridge, ridge=1e-3))
UPDATE = jax.jit(partial(growing.update, code=CODE), static_argnames=("num_atoms", "chunk_size"))


def plane(rng, num, offset=0.0):
    """Points near a plane in six dimensions, and away from it by the offset."""
    points = rng.uniform(-1, 1, size=(num, 6))
    points[:, 2:] *= 0.02
    points[:, 5] += offset
    return jnp.asarray(points, jnp.float32)


@partial(jax.jit, static_argnums=1)
def fit(points, num_atoms):
    return pipeline.fit(
        KEY, points, jnp.ones(len(points)), sample=samplers.greedy_k_center, num_atoms=num_atoms
    )


LEVEL = jax.jit(partial(growing.nominal_level, code=CODE))


@pytest.fixture
def bank(rng):
    return fit(plane(rng, 400), 30)


def assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("num_atoms", [None, 30])
def test_its_own_patches_change_nothing(bank, num_atoms):
    level = LEVEL(bank)
    grown = UPDATE(KEY, bank, bank.atoms[::-1], jnp.ones(30), level=level, num_atoms=num_atoms)
    assert_same(grown.bank, bank)
    assert np.asarray(grown.known).all() and (np.asarray(grown.sources) == -1).all()
    larger = UPDATE(KEY, bank, bank.atoms, jnp.ones(30), level=level, num_atoms=40)
    assert_same(jax.tree.map(lambda x: x[:30], larger.bank), bank)
    assert not np.asarray(larger.bank.weights[30:]).any()


def test_the_level_parts_more_of_the_same_from_something_else(bank, rng):
    level = LEVEL(bank)
    more = UPDATE(KEY, bank, plane(rng, 200), jnp.ones(200), level=level)
    assert np.mean(more.known) > 0.9
    other = UPDATE(KEY, bank, plane(rng, 200, offset=1.0), jnp.ones(200), level=level)
    assert not np.asarray(other.known).any()


def test_what_is_new_fills_free_slots(bank, rng):
    new = plane(rng, 5, offset=1.0)
    grown = UPDATE(KEY, bank, new, jnp.ones(5), level=0.5, num_atoms=40)
    assert_same(jax.tree.map(lambda x: x[:30], grown.bank), bank)
    np.testing.assert_array_equal(np.sort(grown.sources[30:35]), np.arange(5))
    np.testing.assert_array_equal(grown.bank.atoms[30:35], new[grown.sources[30:35]])
    np.testing.assert_array_equal(grown.bank.weights, [1] * 35 + [0] * 5)
    # Numbered on from the old ones.
    first = int(bank.indices.max()) + 1
    np.testing.assert_array_equal(grown.bank.indices[30:35], first + grown.sources[30:35])
    after = pipeline.score(grown.bank, new, code=CODE)
    assert np.max(after) < 0.1 < np.min(grown.scores)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), num_atoms=st.sampled_from([30, 40]))
def test_bounded_deterministic_and_covering(seed, num_atoms):
    """More that is new than there is room for: both old and new stay covered."""
    rng = np.random.default_rng(seed)
    old_points, new = plane(rng, 300), plane(rng, 150, offset=1.0)
    bank = fit(old_points, 30)
    weights = jnp.ones(150).at[:20].set(0)
    grown = UPDATE(KEY, bank, new, weights, level=0.5, num_atoms=num_atoms)
    assert_same(UPDATE(KEY, bank, new, weights, level=0.5, num_atoms=num_atoms), grown)
    sources, atoms = np.asarray(grown.sources), np.asarray(grown.bank.atoms)
    assert grown.bank.weights.sum() == num_atoms
    assert not set(range(20)) & set(sources.tolist())  # padding is never taken
    from_old = sources < 0
    # Survivors stay in their slots.
    np.testing.assert_array_equal(atoms[:30][from_old[:30]], bank.atoms[from_old[:30]])
    np.testing.assert_array_equal(atoms[~from_old], new[sources[~from_old]])
    assert len(set(np.asarray(grown.bank.indices).tolist())) == num_atoms
    # No farther than twice what the best choice among all could do (Gonzalez), beyond the way from
    # a patch to the old atom that stood for it.
    everything = np.concatenate([old_points, new[20:]])
    reached = cdist(everything, atoms).min(axis=1).max()
    whole = cdist(everything, fit(jnp.asarray(everything), num_atoms).atoms).min(axis=1).max()
    first = cdist(old_points, bank.atoms).min(axis=1).max()
    assert reached <= first + 2 * whole + 1e-5


def test_step_by_step_stays_bounded_and_learns(rng):
    bank = fit(plane(rng, 200), 20)
    level = LEVEL(bank)
    for offset in (0.5, 1.0, 1.5):
        bank = UPDATE(
            KEY, bank, plane(rng, 100, offset), jnp.ones(100), level=level, num_atoms=60
        ).bank
        assert bank.atoms.shape == (60, 6)
    for offset in (0.0, 0.5, 1.0, 1.5):
        found = pipeline.score(bank, plane(rng, 100, offset), code=CODE)
        assert np.mean(found <= level) > 0.6


def test_patches_that_are_not_finite_are_left_out(bank):
    new = jnp.stack([jnp.full(6, jnp.nan), jnp.full(6, jnp.inf), jnp.full(6, 3.0)])
    grown = UPDATE(KEY, bank, new, jnp.ones(3), level=0.1, num_atoms=33)
    np.testing.assert_array_equal(grown.sources[30:], [2, -1, -1])
    assert np.isfinite(grown.bank.atoms).all()
    assert grown.known.tolist() == [False, False, False]


def test_several_banks_at_once(bank, rng):
    both = jax.tree.map(lambda x: jnp.stack([x, x]), bank)
    new = jnp.stack([plane(rng, 40, offset=1.0), plane(rng, 40)])
    update = partial(growing.update, code=CODE, level=0.3, num_atoms=35)
    found = jax.jit(jax.vmap(update, (None, 0, 0, None)))(KEY, both, new, jnp.ones(40))
    for i in range(2):
        alone = UPDATE(KEY, bank, new[i], jnp.ones(40), level=0.3, num_atoms=35)
        np.testing.assert_array_equal(found.sources[i], alone.sources)
        np.testing.assert_array_equal(found.bank.atoms[i], alone.bank.atoms)


def test_the_level_is_what_atoms_leave_of_each_other(bank):
    found = []
    for i in range(25):
        others = bank._replace(weights=bank.weights.at[i].set(0).at[25:].set(0))
        found.append(float(pipeline.score(others, bank.atoms[i][None], code=CODE)[0]))
    padded = bank._replace(weights=bank.weights.at[25:].set(0))
    for quantile in (0.0, 0.5, 0.9):
        level = jax.jit(partial(growing.nominal_level, code=CODE, quantile=quantile))(padded)
        np.testing.assert_allclose(level, np.quantile(found, quantile), rtol=1e-4)
    empty = bank._replace(weights=jnp.zeros(30))
    assert np.isnan(growing.nominal_level(empty, code=CODE))


def test_every_kind_of_code(bank, rng):
    new = plane(rng, 6, offset=2.0)
    for code in (
        partial(solvers.omp, sparsity=3),
        partial(solvers.whole_bank_ridge, ridge=1e-2),
    ):
        update = jax.jit(partial(growing.update, code=code), static_argnames="num_atoms")
        level = jax.jit(partial(growing.nominal_level, code=code))(bank)
        grown = update(KEY, bank, new, jnp.ones(6), level=level, num_atoms=36)
        assert level > 0 and np.isfinite(level)
        again = update(KEY, grown.bank, grown.bank.atoms, grown.bank.weights, level=level)
        np.testing.assert_array_equal(again.known, jnp.ones(36, bool))
        assert_same(again.bank, grown.bank)


def test_mistakes(bank):
    with pytest.raises(ValueError, match="num_atoms=29, but the bank has 30 slots"):
        growing.update(KEY, bank, bank.atoms, bank.weights, code=CODE, level=1.0, num_atoms=29)
    with pytest.raises(ValueError, match=r"quantile=1\.5"):
        growing.nominal_level(bank, code=CODE, quantile=1.5)
    with pytest.raises(ValueError, match=r"weights must be \[N\]"):
        growing.update(KEY, bank, bank.atoms, jnp.ones(7), code=CODE, level=1.0)


def test_an_empty_bank_takes_everything(rng):
    empty = types.Bank(jnp.zeros((8, 6)), jnp.zeros(8), jnp.zeros(8, jnp.int32))
    grown = UPDATE(KEY, empty, plane(rng, 5), jnp.ones(5), level=0.0)
    np.testing.assert_array_equal(np.sort(grown.bank.indices[:5]), np.arange(5))
    np.testing.assert_array_equal(grown.bank.weights, [1] * 5 + [0] * 3)
