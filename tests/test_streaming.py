from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from sgfr_jax import samplers, streaming

FOLD = jax.jit(streaming.fold)
COVER = jax.jit(streaming.cover)
K_CENTER = jax.jit(samplers.greedy_k_center, static_argnums=3)
KEY = jax.random.key(0)


def stream(points, num_atoms, block, weights=None):
    """Folds points in blocks, the last one padded."""
    core = streaming.empty(num_atoms, points.shape[1])
    weights = np.ones(len(points)) if weights is None else weights
    for i in range(0, len(points), block):
        rows, use = points[i : i + block], weights[i : i + block]
        missing = block - len(rows)
        core = FOLD(
            KEY,
            core,
            np.float32(np.pad(rows, ((0, missing), (0, 0)))),
            np.float32(np.pad(use, (0, missing))),
        )
    return core


def test_one_block_is_the_sampler_itself(rng):
    points = rng.normal(size=(200, 5)).astype(np.float32)
    core = stream(points, 20, 200)
    # Twenty empty slots come first, so the first choice falls on other indices than without them.
    start = np.concatenate([np.zeros((20, 5), np.float32), points])
    weights = np.float32(np.arange(220) >= 20)
    expected = jax.device_get(K_CENTER(KEY, start, weights, 20))
    np.testing.assert_array_equal(core.indices, expected.indices - 20)
    np.testing.assert_array_equal(core.atoms, points[np.asarray(core.indices)])
    np.testing.assert_allclose(
        streaming.covering_radius(core), np.sqrt(expected.distances.max()), rtol=1e-4
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_every_patch_lies_within_the_reach(seed):
    rng = np.random.default_rng(seed)
    points = (rng.normal(size=(150, 2)) @ rng.normal(size=(2, 4))).astype(np.float32)
    core = stream(points, 12, 40)
    np.testing.assert_array_equal(core.atoms, points[np.asarray(core.indices)])
    true_radius = cdist(points, core.atoms).min(axis=1).max()
    assert true_radius <= streaming.covering_radius(core) + 1e-5


def test_coverage_is_close_to_that_of_the_whole(rng):
    points = rng.normal(size=(4000, 6)).astype(np.float32)
    whole = jax.device_get(K_CENTER(KEY, points, np.ones(4000), 100))
    streamed = cdist(points, stream(points, 100, 500).atoms).min(axis=1).max()
    assert streamed <= 1.5 * np.sqrt(whole.distances.max())


def test_padding_and_the_order_of_blocks_matter_little(rng):
    points = rng.normal(size=(90, 4)).astype(np.float32)
    weights = np.ones(90)
    weights[10:20] = 0
    core = stream(points, 12, 40, weights)
    assert not set(range(10, 20)) & set(np.asarray(core.indices).tolist())
    assert (np.asarray(core.indices) < 90).all()


def test_fewer_patches_than_atoms(rng):
    points = rng.normal(size=(7, 4)).astype(np.float32)
    core = stream(points, 12, 40)
    assert sorted(np.asarray(core.indices)[:7].tolist()) == list(range(7))
    np.testing.assert_array_equal(core.weights, [1] * 7 + [0] * 5)
    assert streaming.covering_radius(core) == 0
    assert streaming.to_bank(core).atoms.shape == (12, 4)


def test_blocks_of_one_shape_compile_once(rng):
    core, sizes = streaming.empty(12, 4), []
    for _ in range(4):
        core = FOLD(KEY, core, rng.normal(size=(40, 4)).astype(np.float32), np.ones(40, np.float32))
        sizes.append(FOLD._cache_size())
    assert len(set(sizes)) == 1
    assert core.seen == 160


def test_features_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 2\) and atoms \(5, 3\)"):
        streaming.fold(KEY, streaming.empty(5, 3), np.ones((4, 2)), np.ones(4))


def measure(core, points, block, weights=None):
    """The second pass, in blocks, the last one padded."""
    weights = np.ones(len(points)) if weights is None else weights
    core = streaming.uncovered(core)
    for i in range(0, len(points), block):
        rows, use = points[i : i + block], weights[i : i + block]
        missing = block - len(rows)
        rows, use = np.pad(rows, ((0, missing), (0, 0))), np.pad(use, (0, missing))
        core = COVER(core, np.float32(rows), np.float32(use))
    return core


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_a_second_pass_finds_the_true_radius(seed):
    rng = np.random.default_rng(seed)
    points = (rng.normal(size=(150, 2)) @ rng.normal(size=(2, 4))).astype(np.float32)
    core = stream(points, 12, 40)
    measured = measure(core, points, 40)
    distances = cdist(points, core.atoms)
    np.testing.assert_allclose(
        streaming.covering_radius(measured), distances.min(axis=1).max(), rtol=1e-5
    )
    assert streaming.covering_radius(measured) <= streaming.covering_radius(core) + 1e-5
    reach = np.zeros(12)
    np.maximum.at(reach, distances.argmin(axis=1), distances.min(axis=1))
    np.testing.assert_allclose(measured.reach, reach, atol=1e-5)


def test_a_second_pass_keeps_the_atoms_and_counts_its_own(rng):
    points = rng.normal(size=(90, 4)).astype(np.float32)
    core = stream(points, 12, 40)
    measured = measure(core, points, 50)
    np.testing.assert_array_equal(measured.atoms, core.atoms)
    np.testing.assert_array_equal(measured.indices, core.indices)
    assert measured.seen == 100
    assert streaming.covering_radius(streaming.uncovered(core)) == 0


def test_padding_and_what_is_not_finite_need_no_cover(rng):
    points = rng.normal(size=(90, 4)).astype(np.float32)
    weights = np.ones(90)
    weights[10], points[10] = 0, 1e4
    points[20], points[30, 1] = np.nan, np.inf
    core = stream(points, 12, 90, weights)
    assert not {10, 20, 30} & set(np.asarray(core.indices).tolist())
    measured = measure(core, points, 40, weights)
    use = np.delete(points, [10, 20, 30], axis=0)
    true_radius = cdist(use, core.atoms).min(axis=1).max()
    np.testing.assert_allclose(streaming.covering_radius(measured), true_radius, rtol=1e-5)
    np.testing.assert_allclose(streaming.covering_radius(core), true_radius, rtol=1e-5)


def test_weights_that_do_not_fit_are_refused():
    for function in (partial(streaming.fold, KEY), streaming.cover):
        with pytest.raises(ValueError, match=r"\(3,\) and \(4, 3\)"):
            function(streaming.empty(5, 3), np.ones((4, 3)), np.ones(3))


def test_a_core_has_a_size_and_patches_are_floating():
    with pytest.raises(ValueError, match="num_atoms=0; it must be positive"):
        streaming.empty(0, 4)
    with pytest.raises(ValueError, match=r"patches \(5, 4\) are int32"):
        core = streaming.empty(3, 4)
        streaming.fold(jax.random.key(0), core, np.ones((5, 4), np.int32), np.ones(5))


def test_blocks_of_float64_keep_their_digits(rng):
    """In float32 all of these patches were one."""
    points, ones = 1 + 1e-9 * rng.normal(size=(80, 4)), np.ones(40)
    with jax.enable_x64(True):
        core = streaming.empty(12, 4)
        assert core.atoms.dtype == np.float32
        for block in np.split(points, 2):
            core = FOLD(KEY, core, block, ones)
        measured = streaming.uncovered(core)
        for block in np.split(points, 2):
            measured = COVER(measured, block, ones)
        kinds = {x.dtype for x in (core.atoms, core.weights, core.reach, measured.reach)}
        assert kinds == {np.dtype(np.float64)}
        np.testing.assert_array_equal(core.atoms, points[np.asarray(core.indices)])
        distances = cdist(points, core.atoms)
        radius = streaming.covering_radius(measured)
        np.testing.assert_allclose(radius, distances.min(axis=1).max(), rtol=1e-6)
        assert radius <= streaming.covering_radius(core) < 1e-7
        # Such a carry keeps its type from the first block on.
        first = streaming.empty(12, 4, np.float64)
        after = jax.eval_shape(streaming.fold, KEY, first, points[:40], ones)
        assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, first)
