"""What all samplers promise. Shapes repeat, so that each sampler is compiled a few times only."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import linalg, samplers, solvers

CODE = partial(solvers.local_code, num_neighbors=3, solve=partial(solvers.affine_ridge, ridge=1e-3))


def distance(targets, bank):
    """A cost that compiles in no time; the paper's has a test of its own."""
    distances = linalg.squared_distances(targets, bank.atoms)
    return jnp.min(jnp.where(bank.weights[None] > 0, distances, jnp.inf), axis=1)


SAMPLERS = {
    "uniform": samplers.uniform,
    "k_center": samplers.greedy_k_center,
    "d2": samplers.d2_sampling,
    "k_medoids": partial(samplers.k_medoids, num_iterations=4),
    "self_representation": partial(samplers.self_representation, cost=distance, pool_size=8),
    "support_frequency": partial(samplers.support_frequency, code=CODE, chunk_size=16),
}
JITTED = {name: jax.jit(sample, static_argnums=3) for name, sample in SAMPLERS.items()}
NUM_POINTS, NUM_FEATURES = 40, 3


# Their programs take longest to compile.
COSTLY = ("k_medoids", "support_frequency", "self_representation")


def rows(samplers):
    """A parameter for each sampler; costly ones run with the slow tests."""
    return [
        pytest.param(sample, id=name, marks=[pytest.mark.slow] if name in COSTLY else [])
        for name, sample in samplers.items()
    ]


@pytest.fixture
def points(rng):
    points = rng.normal(size=(NUM_POINTS, NUM_FEATURES))
    return np.float32(points / np.linalg.norm(points, axis=1, keepdims=True))


@pytest.fixture
def ones():
    return first(NUM_POINTS)


def first(num):
    """The weights of as many points, and of padding."""
    return np.float32(np.arange(NUM_POINTS) < num)


def with_padding(points, num, held):
    """The first points, and rows that hold something."""
    return np.where(first(num)[:, None] > 0, points, np.float32(held))


def spoil(points):
    spoilt = points.copy()
    spoilt[4, 1], spoilt[7] = np.nan, np.inf
    return spoilt


def chosen(found):
    return np.asarray(found.indices)[: int(found.count)].tolist()


@pytest.mark.parametrize("sample", rows(JITTED))
class TestEverySampler:
    def test_choices_differ(self, sample, points, ones):
        found = sample(jax.random.key(1), points, ones, 12)
        assert len(set(chosen(found))) == 12
        np.testing.assert_array_equal(found.weights, np.ones(12))
        assert found.indices.dtype == jnp.int32

    def test_points_of_half_precision_are_compared_in_float32(self, sample, points, ones):
        halves = points.astype(jnp.bfloat16)
        found = sample(jax.random.key(1), halves, ones, 12)
        expected = sample(jax.random.key(1), halves.astype(np.float32), ones, 12)
        assert chosen(found) == chosen(expected) and found.distances.dtype == jnp.float32

    def test_integers_of_64_bits_do_no_harm(self, sample, points, ones):
        with jax.enable_x64(True):
            found = sample(jax.random.key(1), points, ones, 12)
        assert len(set(chosen(found))) == 12 and found.indices.dtype == jnp.int32

    def test_all_points_can_be_chosen(self, sample, points, ones):
        found = sample(jax.random.key(1), points, ones, NUM_POINTS)
        assert sorted(chosen(found)) == list(range(NUM_POINTS))

    def test_duplicates_are_chosen_once_each(self, sample, ones):
        same = np.full((NUM_POINTS, NUM_FEATURES), 0.5, np.float32)
        found = sample(jax.random.key(0), same, ones, NUM_POINTS)
        assert sorted(chosen(found)) == list(range(NUM_POINTS))

    def test_points_at_the_origin_are_chosen_once_each(self, sample, ones):
        origin = np.zeros((NUM_POINTS, NUM_FEATURES), np.float32)
        found = sample(jax.random.key(0), origin, ones, NUM_POINTS)
        assert sorted(chosen(found)) == list(range(NUM_POINTS))

    def test_padding_is_never_chosen(self, sample, points, ones):
        found = sample(jax.random.key(2), points, first(25), NUM_POINTS)
        assert sorted(chosen(found)) == list(range(25))
        np.testing.assert_array_equal(found.weights, [1] * 25 + [0] * 15)
        np.testing.assert_array_equal(found.indices[25:], np.zeros(15))

    def test_padding_may_hold_anything(self, sample, points, ones):
        weights = first(25)
        expected = sample(jax.random.key(2), points, weights, 12)
        for junk in (np.nan, np.inf, 1e30):
            found = sample(jax.random.key(2), with_padding(points, 25, junk), weights, 12)
            np.testing.assert_array_equal(found.indices, expected.indices)

    def test_more_padding_changes_nothing(self, sample, points, ones):
        few = sample(jax.random.key(5), points[:25], ones[:25], 12)
        many = sample(jax.random.key(5), points, first(25), 12)
        np.testing.assert_array_equal(many.indices, few.indices)

    def test_points_that_are_not_finite_are_not_chosen(self, sample, points, ones):
        found = sample(jax.random.key(2), spoil(points), ones, NUM_POINTS)
        assert sorted(chosen(found)) == sorted(set(range(NUM_POINTS)) - {4, 7})

    def test_nothing_but_padding(self, sample, points, ones):
        found = sample(jax.random.key(0), points, 0 * ones, 12)
        assert found.count == 0
        np.testing.assert_array_equal(found.weights, np.zeros(12))
        np.testing.assert_array_equal(found.indices, np.zeros(12))

    def test_distances_tell_what_can_still_be_chosen(self, sample, points, ones):
        found = sample(jax.random.key(1), points, first(25), 12)
        assert (np.asarray(found.distances[25:]) == -np.inf).all()
        left = sorted(set(range(25)) - set(chosen(found)))
        assert (np.asarray(found.distances)[left] > -np.inf).all()

    def test_new_values_do_not_compile_again(self, sample, points, ones):
        sample(jax.random.key(1), points, ones, 12)
        before = sample._cache_size()
        sample(jax.random.key(2), 2 * points, first(20), 12)
        assert sample._cache_size() == before

    def test_one_seed_one_result(self, sample, points, ones):
        runs = [sample(jax.random.key(seed), points, ones, 12) for seed in (4, 4, 5)]
        np.testing.assert_array_equal(runs[0].indices, runs[1].indices)


def assert_mapped_equals_the_loop(rng, mapped, single, num):
    points = rng.normal(size=(3, NUM_POINTS, NUM_FEATURES))
    points = np.float32(points / np.linalg.norm(points, axis=2, keepdims=True))
    weights = np.ones((3, NUM_POINTS), np.float32)
    weights[1, 30:], weights[2, 10:] = 0, 0
    keys = jax.random.split(jax.random.key(0), 3)
    of_all = jax.device_get(mapped(keys, points, weights))
    for i in range(3):
        found = single(keys[i], points[i], weights[i], num)
        np.testing.assert_array_equal(of_all.indices[i], found.indices)
        np.testing.assert_array_equal(of_all.weights[i], found.weights)


@pytest.mark.parametrize("name", rows(dict(zip(SAMPLERS, SAMPLERS, strict=True))))
def test_scales_are_right_or_refused_under_jit_too(name, points, ones):
    """Of an extreme scale no point is chosen, which the count tells."""
    if name == "self_representation":  # its cost is of unit norm
        return
    plain = JITTED[name](jax.random.key(1), points, ones, 12)
    for scale in (1e-12, 1e12):
        found = JITTED[name](jax.random.key(1), points * 2.0 ** round(math.log2(scale)), ones, 12)
        np.testing.assert_array_equal(found.indices, plain.indices)
    for scale in (1e-20, 1e19):
        assert JITTED[name](jax.random.key(1), points * scale, ones, 12).count == 0


@pytest.mark.parametrize("name", rows(dict(zip(SAMPLERS, SAMPLERS, strict=True))))
def test_vmap_over_categories_equals_the_loop(name, rng):
    mapped = jax.jit(jax.vmap(lambda *category: SAMPLERS[name](*category, 12)))
    assert_mapped_equals_the_loop(rng, mapped, JITTED[name], 12)


class TestSelfRepresentationAtThePapersCost:
    """The same, by few programs: they take long to compile."""

    SAMPLE = staticmethod(
        jax.jit(partial(samplers.self_representation, pool_size=8), static_argnums=3)
    )

    def test_all_that_are_eligible_are_chosen_once_each(self, points, ones):
        key, same = jax.random.key(0), np.full_like(points, 0.5)
        for these in (points, same, 0 * same):
            found = self.SAMPLE(key, these, ones, NUM_POINTS)
            assert sorted(chosen(found)) == list(range(NUM_POINTS))
        found = self.SAMPLE(key, spoil(points), ones, NUM_POINTS)
        assert sorted(chosen(found)) == sorted(set(range(NUM_POINTS)) - {4, 7})
        assert self.SAMPLE(key, points, 0 * ones, NUM_POINTS).count == 0

    def test_padding_is_never_chosen_and_may_hold_anything(self, points, ones):
        key, weights = jax.random.key(2), first(25)
        expected = self.SAMPLE(key, points, weights, NUM_POINTS)
        assert sorted(chosen(expected)) == list(range(25))
        np.testing.assert_array_equal(expected.weights, [1] * 25 + [0] * 15)
        for junk in (np.nan, np.inf, 1e30):
            found = self.SAMPLE(key, with_padding(points, 25, junk), weights, NUM_POINTS)
            np.testing.assert_array_equal(found.indices, expected.indices)

    def test_integers_of_64_bits_do_no_harm(self, points, ones):
        with jax.enable_x64(True):
            found = self.SAMPLE(jax.random.key(1), points, ones, NUM_POINTS)
        assert len(set(chosen(found))) == NUM_POINTS and found.indices.dtype == jnp.int32

    def test_vmap_over_categories_equals_the_loop(self, rng):
        sample = partial(samplers.self_representation, pool_size=8)
        mapped = jax.jit(jax.vmap(lambda *category: sample(*category, NUM_POINTS)))
        assert_mapped_equals_the_loop(rng, mapped, self.SAMPLE, NUM_POINTS)


@pytest.mark.parametrize("sample", rows(SAMPLERS))
class TestWhatIsRefused:
    @pytest.mark.parametrize("num", [0, 5])
    def test_impossible_number(self, sample, num):
        with pytest.raises(ValueError, match=f"asked for {num} of 4 points"):
            sample(jax.random.key(0), jnp.ones((4, 2)), jnp.ones(4), num)

    def test_shapes_that_do_not_fit(self, sample):
        with pytest.raises(ValueError, match=r"\(4, 2\) and \(3,\)"):
            sample(jax.random.key(0), jnp.ones((4, 2)), jnp.ones(3), 2)

    @pytest.mark.parametrize("scale", [1e-20, 1e19])
    def test_scales_whose_squares_float32_cannot_hold(self, sample, scale):
        points = jnp.float32([[1, 2], [3, 4], [5, 6], [7, 8]]) * scale
        with pytest.raises(ValueError, match="cannot hold: divide them by it"):
            sample(jax.random.key(0), points, jnp.ones(4), 2)

    def test_integers(self, sample):
        with pytest.raises(ValueError, match="int32"):
            sample(jax.random.key(0), jnp.ones((4, 2), jnp.int32), jnp.ones(4), 2)


@pytest.mark.parametrize(
    "start,advance",
    [
        (samplers.k_center_start, samplers.k_center_advance),
        (
            partial(samplers.self_representation_start, cost=distance),
            partial(samplers.self_representation_advance, cost=distance),
        ),
    ],
)
def test_a_search_goes_on_over_its_own_points_only(start, advance):
    begun = jax.jit(start, static_argnums=3)(jax.random.key(0), jnp.ones((5, 2)), jnp.ones(5), 3)
    with pytest.raises(ValueError, match=r"points \(4, 2\) and distances \(5,\)"):
        advance(begun, jnp.ones((4, 2)), 3)
    with pytest.raises(ValueError, match=r"points \(5, 2\) are int32"):
        advance(begun, jnp.ones((5, 2), jnp.int32), 3)
    with pytest.raises(ValueError, match="pool_size=0; it must be positive"):
        advance(begun, jnp.ones((5, 2)), 3, pool_size=0)


@pytest.mark.parametrize("name", ["uniform", "k_center", "d2", "k_medoids", "self_representation"])
def test_one_point(name):
    found = JITTED[name](jax.random.key(0), np.ones((1, 3), np.float32), np.ones(1), 1)
    np.testing.assert_array_equal(found.indices, [0])
    assert found.count == 1


@pytest.mark.parametrize("name", ["uniform", "k_center"])
def test_numpy_arrays_will_do(name, rng):
    points = rng.normal(size=(20, 3)).astype(np.float32)
    assert SAMPLERS[name](jax.random.key(2), points, np.ones(20), 5).count == 5
