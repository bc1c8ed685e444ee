"""Banks that grow, against the definitions and against what a whole fit would choose."""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from sgfr_jax import growing, pipeline, samplers, solvers

KEY = jax.random.key(0)
CODE = partial(solvers.local_code, num_neighbors=4, solve=partial(solvers.affine_ridge, ridge=1e-3))
UPDATE = jax.jit(partial(growing.update, code=CODE), static_argnames="num_atoms")
LEVEL = jax.jit(partial(growing.nominal_level, code=CODE), static_argnames="quantile")
SCORE = jax.jit(partial(pipeline.score, code=CODE))
FIT = jax.jit(partial(pipeline.fit, sample=samplers.greedy_k_center, num_atoms=30))
NUM_NEW = 200  # one shape for all: what is less is padded


def plane(rng, num, offset=0.0):
    """Points near a plane in six dimensions, and away from it by the offset."""
    points = rng.uniform(-1, 1, size=(num, 6))
    points[:, 2:] *= 0.02
    points[:, 5] += offset
    return points.astype(np.float32)


def padded(new, size=NUM_NEW):
    """The patches and their weights, filled up with padding."""
    missing = size - len(new)
    weights = np.ones(len(new), np.float32)
    return np.pad(new, ((0, missing), (0, 0))), np.pad(weights, (0, missing))


def update(bank, new, level, num_atoms=None, do=UPDATE):
    """Of few new patches what `growing.update` says of them alone."""
    level = np.float32(level)  # of one type, which programs are of
    grown = jax.device_get(do(KEY, bank, *padded(new), level=level, num_atoms=num_atoms))
    return grown._replace(scores=grown.scores[: len(new)], known=grown.known[: len(new)])


def score(bank, patches):
    return np.asarray(SCORE(bank, padded(patches)[0]))[: len(patches)]


def fit(points):
    return jax.device_get(FIT(KEY, points, np.ones(len(points), np.float32)))


def head(bank, num):
    return jax.tree.map(lambda x: x[:num], bank)


def assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.fixture
def bank(rng):
    return fit(plane(rng, 400))


@pytest.mark.parametrize("num_atoms", [None, 30])
def test_its_own_patches_change_nothing(bank, num_atoms):
    level = LEVEL(bank)
    grown = update(bank, bank.atoms[::-1], level, num_atoms)
    assert_same(grown.bank, bank)
    assert grown.known.all() and (grown.sources == -1).all()
    larger = update(bank, bank.atoms, level, 40)
    assert_same(head(larger.bank, 30), bank)
    assert not larger.bank.weights[30:].any()


def test_the_level_parts_more_of_the_same_from_something_else(bank, rng):
    level = LEVEL(bank)
    assert np.mean(update(bank, plane(rng, 200), level).known) > 0.9
    assert not update(bank, plane(rng, 200, offset=1.0), level).known.any()


def test_what_is_new_fills_free_slots(bank, rng):
    new = plane(rng, 5, offset=1.0)
    grown = update(bank, new, 0.5, 40)
    assert_same(head(grown.bank, 30), bank)
    np.testing.assert_array_equal(np.sort(grown.sources[30:35]), np.arange(5))
    np.testing.assert_array_equal(grown.bank.atoms[30:35], new[grown.sources[30:35]])
    np.testing.assert_array_equal(grown.bank.weights, [1] * 35 + [0] * 5)
    # Numbered on from the old ones.
    first = int(bank.indices.max()) + 1
    np.testing.assert_array_equal(grown.bank.indices[30:35], first + grown.sources[30:35])
    assert np.max(score(grown.bank, new)) < 0.1 < np.min(grown.scores)


def farthest_first(points, num):
    """How far points lie from `num` of them at most, chosen farthest first (Gonzalez 1985)."""
    distances = np.linalg.norm(points - points[0], axis=1)
    for _ in range(num - 1):
        farthest = points[distances.argmax()]
        distances = np.minimum(distances, np.linalg.norm(points - farthest, axis=1))
    return distances.max()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), num_atoms=st.sampled_from([30, 40]))
def test_bounded_deterministic_and_covering(seed, num_atoms):
    """More that is new than there is room for: both old and new stay covered."""
    rng = np.random.default_rng(seed)
    old_points, new = plane(rng, 400), plane(rng, NUM_NEW, offset=1.0)
    bank = fit(old_points)
    weights = np.repeat(np.float32([0, 1]), [20, NUM_NEW - 20])
    grown, again = (
        jax.device_get(UPDATE(KEY, bank, new, weights, level=np.float32(0.5), num_atoms=num_atoms))
        for _ in range(2)
    )
    assert_same(again, grown)
    sources, atoms = grown.sources, grown.bank.atoms
    assert grown.bank.weights.sum() == num_atoms
    assert not set(range(20)) & set(sources.tolist())  # padding is never taken
    from_old = sources < 0
    # Survivors stay in their slots.
    np.testing.assert_array_equal(atoms[:30][from_old[:30]], bank.atoms[from_old[:30]])
    np.testing.assert_array_equal(atoms[~from_old], new[sources[~from_old]])
    assert len(set(grown.bank.indices.tolist())) == num_atoms
    # No farther than twice what the best choice among all could do (Gonzalez), beyond the way from
    # a patch to the old atom that stood for it.
    everything = np.concatenate([old_points, new[20:]])
    reached = cdist(everything, atoms).min(axis=1).max()
    first = cdist(old_points, bank.atoms).min(axis=1).max()
    assert reached <= first + 2 * farthest_first(everything, num_atoms) + 1e-5


def test_step_by_step_stays_bounded_and_learns(bank, rng):
    level = LEVEL(bank)
    for offset in (0.5, 1.0, 1.5):
        bank = update(bank, plane(rng, 100, offset), level, 40).bank
        assert bank.atoms.shape == (40, 6)
    for offset in (0.0, 0.5, 1.0, 1.5):
        assert np.mean(score(bank, plane(rng, 100, offset)) <= level) > 0.6


def test_patches_that_are_not_finite_are_left_out(bank):
    new = np.repeat(np.float32([[np.nan], [np.inf], [3.0]]), 6, axis=1)
    grown = update(bank, new, 0.1, 40)
    np.testing.assert_array_equal(grown.sources[30:], [2] + [-1] * 9)
    assert np.isfinite(grown.bank.atoms).all()
    assert grown.known.tolist() == [False, False, False]


def test_several_banks_at_once(bank, rng):
    both = jax.tree.map(lambda x: np.stack([x, x]), bank)
    news = [padded(new) for new in (plane(rng, 40, offset=1.0), plane(rng, 40))]
    of_one = partial(growing.update, code=CODE, level=0.3, num_atoms=40)
    patches, weights = map(np.stack, zip(*news, strict=True))
    found = jax.jit(jax.vmap(of_one, (None, 0, 0, 0)))(KEY, both, patches, weights)
    for i in range(2):
        alone = UPDATE(KEY, bank, *news[i], level=np.float32(0.3), num_atoms=40)
        np.testing.assert_array_equal(np.asarray(found.sources)[i], alone.sources)
        np.testing.assert_array_equal(np.asarray(found.bank.atoms)[i], alone.bank.atoms)


def test_the_level_is_what_atoms_leave_of_each_other(bank):
    used = np.arange(30) < 25
    found = []
    for i in range(25):
        others = bank._replace(weights=np.float32(used & (np.arange(30) != i)))
        found.append(float(score(others, bank.atoms)[i]))
    for quantile in (0.0, 0.5, 0.9):
        level = LEVEL(bank._replace(weights=np.float32(used)), quantile=quantile)
        np.testing.assert_allclose(level, np.quantile(found, quantile), rtol=1e-4)
    assert np.isnan(LEVEL(bank._replace(weights=np.zeros(30, np.float32)), quantile=0.5))


CODERS = {
    "omp": partial(solvers.omp, sparsity=3),
    "whole_bank_ridge": partial(solvers.whole_bank_ridge, ridge=1e-2),
}


@pytest.mark.parametrize("code", CODERS.values(), ids=CODERS)
def test_every_kind_of_code(bank, rng, code):
    do = jax.jit(partial(growing.update, code=code))
    with_room = jax.tree.map(lambda x: np.pad(x, [(0, 6)] + [(0, 0)] * (x.ndim - 1)), bank)
    level = jax.jit(partial(growing.nominal_level, code=code))(with_room)
    assert level > 0 and np.isfinite(level)
    grown = do(KEY, with_room, *padded(plane(rng, 6, offset=2.0), 36), level=level)
    again = do(KEY, grown.bank, grown.bank.atoms, grown.bank.weights, level=level)
    assert grown.bank.weights.sum() == 36
    np.testing.assert_array_equal(again.known, np.ones(36, bool))
    assert_same(again.bank, grown.bank)


def test_mistakes(bank):
    with pytest.raises(ValueError, match="num_atoms=29, but the bank has 30 slots"):
        growing.update(KEY, bank, bank.atoms, bank.weights, code=CODE, level=1.0, num_atoms=29)
    with pytest.raises(ValueError, match=r"quantile=1\.5"):
        growing.nominal_level(bank, code=CODE, quantile=1.5)
    with pytest.raises(ValueError, match=r"weights must be \[N\]"):
        growing.update(KEY, bank, bank.atoms, np.ones(7), code=CODE, level=1.0)


def test_an_empty_bank_takes_everything(bank, rng):
    empty = jax.tree.map(np.zeros_like, bank)
    grown = update(empty, plane(rng, 5), 0.0)
    np.testing.assert_array_equal(np.sort(grown.bank.indices[:5]), np.arange(5))
    np.testing.assert_array_equal(grown.bank.weights, [1] * 5 + [0] * 25)
