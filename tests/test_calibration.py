import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgfr_jax import calibration

PRIOR = 10.0
SHAPE = 4, 6, 6
CALIBRATE = jax.jit(calibration.calibrate, static_argnums=2, static_argnames="rings")
STANDARDIZE = jax.jit(calibration.standardize)
EXTEND = jax.jit(calibration.extend)


def reference(scores, owners, num_atoms, rings):
    """The definitions, patch by patch, in float64."""
    scores = np.asarray(scores, np.float64)
    common = scores.mean()
    flat, of = scores.ravel(), owners.ravel()
    scales = np.array([
        (flat[of == m].sum() + PRIOR * common) / ((of == m).sum() + PRIOR)
        for m in range(num_atoms)
    ])  # fmt: skip
    relative = np.empty(flat.size)
    for i in range(flat.size):
        others = (of == of[i]) & (np.arange(flat.size) != i)
        relative[i] = flat[i] / ((flat[others].sum() + PRIOR * common) / (others.sum() + PRIOR))
    relative = relative.reshape(scores.shape)
    height, width = scores.shape[1:]
    mean, spread = np.full(rings + 1, np.nan), np.full(rings + 1, np.nan)
    distance = np.empty((height, width), int)
    for y in range(height):
        for x in range(width):
            distance[y, x] = min(y, x, height - 1 - y, width - 1 - x, rings)
    for ring in np.unique(distance):
        mean[ring] = relative[:, distance == ring].mean()
        spread[ring] = relative[:, distance == ring].std()
    # A small grid has no cell that far in.
    within = np.sqrt(np.mean((relative - mean[distance]) ** 2))
    mean, spread = (
        np.where(np.isnan(mean), relative.mean(), mean),
        np.where(np.isnan(spread), within, spread),
    )
    return scales, mean, spread


@pytest.mark.parametrize(
    "shape,rings", [((3, 7, 5), 2), ((2, 3, 3), 2), ((1, 1, 1), 2), ((4, 6, 6), 0)]
)
def test_agrees_with_the_definitions(rng, shape, rings):
    scores = rng.gamma(2.0, size=shape)
    owners = rng.integers(0, 6, shape)
    found = CALIBRATE(np.float32(scores), owners, 8, rings=rings)
    scales, mean, spread = reference(scores, owners, 8, rings)
    np.testing.assert_allclose(found.scales, scales, rtol=1e-5)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5)
    if scores.size > 1:
        np.testing.assert_allclose(found.spread, spread, rtol=1e-4)


def draw(rng):
    """Scores and owners of the one shape, and of the four atoms, that most tests share."""
    return rng.gamma(2.0, size=SHAPE).astype(np.float32), rng.integers(0, 4, SHAPE)


def test_nan_is_not_calibrated_away(rng):
    """Not silently: without it the other atoms would have another scale."""
    scores, owners = draw(rng)
    scores[1, 2, 3] = np.nan
    for part in CALIBRATE(scores, owners, 4):
        assert np.isnan(part).all()


def test_nan_in_padding_does_not_count(rng):
    scores, owners = draw(rng)
    extents = np.float32([[1.0, 1.0], [0.5, 1.0], [1.0, 1.0], [1.0, 1.0]])
    expected = CALIBRATE(scores, owners, 4, extents=extents)
    scores[1, 3:] = np.nan
    found = CALIBRATE(scores, owners, 4, extents=extents)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert np.isfinite(found.scales).all()


def test_nominal_scores_of_one_distribution_come_out_standard(rng):
    owners = rng.integers(0, 4, (50, 8, 8))
    # Rough atoms and a rough border: what calibration is there to even out.
    rough = np.array([1.0, 2.0, 5.0, 0.5])[owners] * rng.gamma(20.0, size=owners.shape)
    rough[:, 0] *= 3
    fitted = CALIBRATE(np.float32(rough), owners, 4)
    found = np.asarray(STANDARDIZE(fitted, np.float32(rough), owners))
    assert abs(found.mean()) < 0.02 and abs(found.std() - 1) < 0.02
    for atom in range(4):
        assert abs(found[owners == atom].mean()) < 0.15
    inside = found[:, 3:5, 3:5]
    assert abs(inside.mean()) < 0.1


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(1e-3, 1e3))
def test_the_unit_of_the_scores_does_not_matter(factor):
    scores, owners = draw(np.random.default_rng(0))
    found = [
        STANDARDIZE(CALIBRATE(s, owners, 4), s, owners)
        for s in (scores, np.float32(np.float64(scores) * factor))
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_scores_stay_finite(value):
    scores, owners = np.full(SHAPE, value, np.float32), np.zeros(SHAPE, int)
    fitted = CALIBRATE(scores, owners, 4)
    found = STANDARDIZE(fitted, scores, owners)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, 0, atol=0.2)
    more = STANDARDIZE(fitted, scores + 1, owners)
    assert np.isfinite(more).all() and (np.asarray(more) > 1).all()


def test_rescaling_takes_mean_and_spread_off(rng):
    scores, owners = draw(rng)
    fitted = jax.device_get(CALIBRATE(scores, owners, 4))
    before = np.asarray(STANDARDIZE(fitted, scores, owners))
    again = calibration.rescale(fitted, np.float32(0.3), np.float32(0.5))
    after = STANDARDIZE(again, scores, owners)
    np.testing.assert_allclose(after, (before - 0.3) / 0.5, rtol=1e-4, atol=1e-5)


def test_works_under_jit_and_vmap_and_without(rng):
    scores, owners = map(np.stack, zip(*(draw(rng) for _ in range(2)), strict=True))
    mapped = jax.device_get(
        jax.jit(jax.vmap(lambda s, o: calibration.calibrate(s, o, 4)))(scores, owners)
    )
    for i, calibrate in enumerate((CALIBRATE, calibration.calibrate)):
        alone = calibrate(scores[i], owners[i], 4)
        jax.tree.map(
            lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-5), mapped, alone
        )


@pytest.mark.parametrize(
    "shapes,options,message",
    [
        (((3, 4), (3, 4)), {}, r"must be \[B, h, w\] of one shape"),
        (((3, 4, 4), (3, 4, 5)), {}, r"must be \[B, h, w\] of one shape"),
        (((0, 4, 4), (0, 4, 4)), {}, r"must be \[B, h, w\] of one shape"),
        (((3, 4, 4), (3, 4, 4)), {"prior": 0.0}, "prior=0.0; it must be positive"),
        (((3, 4, 4), (3, 4, 4)), {"rings": -1}, "rings=-1; it must not be negative"),
    ],
)
def test_bad_arguments(shapes, options, message):
    scores, owners = np.zeros(shapes[0]), np.zeros(shapes[1], np.int32)
    with pytest.raises(ValueError, match=message):
        calibration.calibrate(scores, owners, 3, **options)


def test_padding_changes_nothing(rng):
    """Images of 4 x 6 cells in the corner of squares of 8 x 8 calibrate as they do alone."""
    scores, owners = rng.gamma(2.0, size=(5, 4, 6)), rng.integers(0, 4, (5, 4, 6))
    padded = [np.full((5, 8, 8), fill, x.dtype) for x, fill in ((scores, 50), (owners, 3))]
    for square, alone in zip(padded, (scores, owners), strict=True):
        square[:, :4, :6] = alone
    extents = np.tile([[4 / 8, 6 / 8]], (5, 1))
    alone = (np.float32(scores), owners)
    squares = (np.float32(padded[0]), np.asarray(padded[1]))
    expected = CALIBRATE(*alone, 4)
    found = CALIBRATE(*squares, 4, extents=extents)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), found, expected)
    np.testing.assert_allclose(
        STANDARDIZE(found, *squares, extents)[:, :4, :6],
        STANDARDIZE(expected, *alone),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_a_grown_bank_keeps_what_it_knows(rng):
    """Two old atoms, a slot that was replaced, and one that has come; two patches of the last."""
    known = calibration.Calibration(*np.float32([[1, 3, 2], [0.5] * 3, [2] * 3]))
    fresh = np.array([False, False, True, True, False])
    scores = np.float32([[[4.0, 6.0], [9.0, 9.0]]])
    owners = np.array([[[3, 3], [0, 0]]])
    found = EXTEND(known, fresh, scores, owners)
    # The mean scale of the old ones is 2.
    np.testing.assert_allclose(found.scales, [1, 3, 2, (10 + PRIOR * 2) / (2 + PRIOR), 2])
    np.testing.assert_array_equal(found.mean, known.mean)
    np.testing.assert_array_equal(found.spread, known.spread)
    same = EXTEND(known, np.zeros(3, bool), scores, np.zeros((1, 2, 2), int))
    np.testing.assert_array_equal(same.scales, known.scales)


def test_atoms_that_have_come_are_scaled_by_what_images_fill(rng):
    """The definition, patch by patch, in float64; squares are filled in part."""
    scores, owners = rng.gamma(2.0, size=(4, 6, 5)), rng.integers(0, 7, (4, 6, 5))
    extents = np.array([[1, 1], [0.5, 1], [1, 0.4], [1 / 6, 0.2]])
    rows, columns = [6, 3, 6, 1], [5, 5, 2, 1]  # that show an image
    known = calibration.Calibration(
        *map(np.float32, (rng.gamma(2.0, size=5), np.ones(3), np.ones(3)))
    )
    fresh = np.array([False, True, False, False, True, True, False])
    common = np.mean(np.asarray(known.scales, np.float64))
    expected = np.append(np.asarray(known.scales, np.float64), [common, common])
    for atom in np.flatnonzero(fresh):
        own = [
            scores[i, y, x]
            for i in range(4) for y in range(rows[i]) for x in range(columns[i])
            if owners[i, y, x] == atom
        ]  # fmt: skip
        expected[atom] = (sum(own) + PRIOR * common) / (len(own) + PRIOR)
    for i in range(4):
        scores[i, rows[i] :], scores[i, :, columns[i] :] = np.nan, np.nan
    found = EXTEND(known, fresh, np.float32(scores), owners, extents=np.float32(extents))
    np.testing.assert_allclose(found.scales, expected, rtol=1e-5)


@pytest.mark.parametrize("shape,fresh,prior", [
    ((1, 1, 1), 2, 10.0), ((1, 1, 1), 3, 0.0), ((1, 1), 3, 10.0),
])  # fmt: skip
def test_what_cannot_have_grown(shape, fresh, prior):
    known = calibration.Calibration(np.ones(3), np.ones((1, 1)), np.ones((1, 1)))
    scores, owners = np.ones(shape), np.zeros(shape, int)
    with pytest.raises(ValueError, match=r"fresh must be|prior=0\.0; it must be"):
        calibration.extend(known, np.zeros(fresh, bool), scores, owners, prior=prior)


def test_the_precision_is_that_of_the_scores(rng):
    scores, owners = rng.random((2, 4, 4)), np.zeros((2, 4, 4), np.int32)

    def every(scores, owners):
        made = calibration.calibrate(scores, owners, 3)
        grown = calibration.extend(made, np.arange(5) > 2, scores, owners)
        return made, grown, calibration.standardize(made, scores, owners)

    with jax.enable_x64(True):
        for given, expected in ((jnp.float32, jnp.float32), (jnp.bfloat16, jnp.float32),
                                (jnp.float64, jnp.float64)):  # fmt: skip
            found = jax.eval_shape(every, scores.astype(given), owners)
            assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(expected)}


def test_priors_may_be_traced(rng):
    scores, owners = rng.gamma(2.0, size=SHAPE), rng.integers(0, 7, SHAPE)
    fresh = np.arange(8) == 7

    @jax.jit
    def scales(prior):
        known = calibration.calibrate(scores, owners, 7, prior=prior)
        return known, calibration.extend(known, fresh, scores, owners, prior=prior).scales

    with jax.enable_x64(True):
        together = jax.vmap(scales)(np.array([2.0, 10.0]))
        for i, prior in enumerate((2.0, 10.0)):
            for found, alone in zip(*map(jax.tree.leaves, (together, scales(prior))), strict=True):
                np.testing.assert_allclose(found[i], alone, rtol=1e-12)
        slopes = jax.tree.leaves(jax.jit(jax.jacfwd(scales))(10.0))
        ahead, behind = (jax.tree.leaves(scales(10.0 + step)) for step in (1e-5, -1e-5))
        for slope, above, below in zip(slopes, ahead, behind, strict=True):
            np.testing.assert_allclose(slope, (above - below) / 2e-5, atol=1e-9)
