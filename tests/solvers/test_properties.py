"""What holds for every coder; a new one joins by a row in `cases`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgfr_jax import pipeline, reconstruction, solvers, types
from tests.solvers.cases import CASES, JITTED, PROGRAMS, D, M, N, bank_of, dense, draw, run

every_coder = pytest.mark.parametrize("name", CASES)


def code_of(name, targets, atoms, weights=None):
    return JITTED[name](np.float32(targets), bank_of(atoms, weights))


def with_arrays(code):
    """The coder with JAX's scalars for its numbers, those of its penalty too."""
    bound = {}
    for key, value in code.keywords.items():
        value = with_arrays(value) if isinstance(value, partial) else value
        bound[key] = jnp.float32(value) if isinstance(value, float) else value
    return partial(code.func, **bound)


def left_of(name, targets, atoms, weights=None):
    code = code_of(name, targets, atoms, weights)
    return np.asarray(targets) - dense(code, len(atoms)) @ np.asarray(atoms)


def draw_two(rng, name):
    """The targets `[2, N, D]` and atoms `[2, M, D]` of two banks."""
    return tuple(map(np.stack, zip(*(draw(rng, name) for _ in range(2)), strict=True)))


@partial(jax.jit, static_argnums=0)
def _judge(program, numbers, targets, atoms, weights):
    def left(targets, atoms, weights):
        found = program(targets, types.Bank(atoms, weights, jnp.arange(M)), **numbers)
        norms = reconstruction.residual_norm(targets, atoms, found)
        # The sum alone could hide one target's error in another's.
        return jnp.sum(jnp.linspace(1, 2, N) * norms), found

    return jax.vmap(jax.value_and_grad(left, argnums=(0, 1), has_aux=True))(targets, atoms, weights)


def in_float64(name, targets, atoms):
    """Of two banks at once what is left, weighted and summed, the codes, and the gradients."""
    with jax.enable_x64(True):
        return jax.device_get(_judge(*PROGRAMS[name], targets, atoms, np.ones((2, M))))


@every_coder
class TestEveryCoder:
    def test_agrees_with_its_reference(self, rng, name):
        targets, atoms = draw(rng, name)
        found = dense(code_of(name, targets, atoms), M)
        np.testing.assert_allclose(found, CASES[name].reference(targets, atoms), atol=2e-4)

    def test_many_banks_at_once_agree_to_more_digits_in_float64(self, rng, name):
        targets, atoms = draw_two(rng, name)
        (_, codes), _ = in_float64(name, targets, atoms)
        assert codes.coefficients.dtype == np.float64
        for i in range(2):
            code = jax.tree.map(lambda x, i=i: x[i], codes)
            expected = CASES[name].reference(targets[i], atoms[i])
            np.testing.assert_allclose(dense(code, M), expected, atol=CASES[name].accuracy)

    def test_leaves_no_more_of_an_atom_than_its_penalty(self, rng, name):
        _, atoms = draw(rng, name)
        if name == "project":  # nor of what lies in a subspace
            targets = atoms[::4][np.arange(N) % 4] + rng.normal(size=(N, 1)) * atoms[1]
            targets[1:] = atoms[[4, 8, 12, 0, 4]]
        else:
            targets = atoms[:N]
        left = np.linalg.norm(left_of(name, targets, atoms), axis=1)
        bounds = [CASES[name].left_of_atom(target, atoms) for target in targets]
        assert (left <= np.array(bounds) + 1e-5).all()

    def test_does_not_depend_on_the_order_of_atoms(self, rng, name):
        targets, atoms = draw(rng, name)
        groups = atoms.reshape(-1, CASES[name].group, D)
        shuffled = groups[rng.permutation(len(groups))].reshape(M, D)
        np.testing.assert_allclose(
            left_of(name, targets, shuffled), left_of(name, targets, atoms), atol=1e-4
        )

    @settings(max_examples=10, deadline=None)
    @given(seed=st.integers(0, 2**31), scale=st.floats(1e-3, 1e3))
    def test_does_not_depend_on_the_unit(self, name, seed, scale):
        plain, scaled = (
            left_of(name, *draw(np.random.default_rng(seed), name, s)) for s in (1.0, scale)
        )
        # One rounding more or less decides between neighbours, hence norms, and loosely.
        norms, scaled_norms = (np.linalg.norm(x, axis=1) for x in (plain, scaled / scale))
        np.testing.assert_allclose(scaled_norms, norms, rtol=5e-3, atol=1e-3)

    @pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-12, 1e12, 1e19, 1e30])
    def test_nor_is_an_extreme_unit_too_much(self, rng, name, scale):
        plain, scaled = (
            left_of(name, *draw(np.random.default_rng(1), name, s)) for s in (1, scale)
        )
        norms, scaled_norms = (np.linalg.norm(x, axis=1) for x in (plain, scaled / scale))
        np.testing.assert_allclose(scaled_norms, norms, rtol=5e-3, atol=1e-3)

    @pytest.mark.parametrize("rubbish", [0.0, 7.0, np.nan, np.inf, -np.inf])
    def test_padding_changes_nothing(self, rng, name, rubbish):
        targets, atoms = draw(rng, name)
        padded, weights = atoms.copy(), np.ones(M)
        padded[12:], weights[12:] = rubbish, 0
        found = dense(code_of(name, targets, padded, weights), M)
        np.testing.assert_array_equal(found[:, 12:], 0)
        expected = CASES[name].reference(targets, atoms[:12])
        np.testing.assert_allclose(found[:, :12], expected, atol=2e-4)

    @pytest.mark.parametrize("rubbish", [np.nan, np.inf])
    def test_scores_do_not_see_what_padding_holds(self, rng, name, rubbish):
        targets, atoms = draw(rng, name)
        for num_real in (12, 0):  # with none, every slot of a code is padding
            weights = np.arange(M) < num_real
            clean, spoiled = (
                pipeline.score(
                    bank_of(np.where(weights[:, None], atoms, held), weights),
                    np.float32(targets),
                    code=JITTED[name],
                )
                for held in (0, rubbish)
            )
            assert np.isfinite(clean).all()
            np.testing.assert_array_equal(spoiled, clean)

    def test_a_bank_of_padding_codes_nothing(self, rng, name):
        targets, atoms = draw(rng, name)
        found = code_of(name, targets, 0 * atoms, np.zeros(M))
        np.testing.assert_array_equal(found.coefficients, 0)

    def test_duplicates_and_constants_stay_finite(self, rng, name):
        targets, atoms = draw(rng, name)
        for value in (0.0, 1.0):
            constant = np.full((M, D), value)
            for these in (targets, np.full((N, D), value), np.zeros((N, D))):
                assert np.isfinite(code_of(name, these, constant).coefficients).all()
        twice = np.concatenate([atoms[:8], atoms[:8]])
        left = np.linalg.norm(left_of(name, targets, twice), axis=1)
        assert np.isfinite(left).all()
        # 0 is a code too, but not an affine one.
        if name not in ("nearest", "affine_ridge", "project"):
            assert (left <= np.linalg.norm(targets, axis=1) * (1 + 1e-5)).all()

    def test_nan_in_one_target_stays_there(self, rng, name):
        targets, atoms = draw(rng, name)
        spoiled = targets.copy()
        spoiled[1, 2] = np.nan
        bank = bank_of(atoms)
        left, expected = (
            np.asarray(reconstruction.residual_norm(t, bank.atoms, JITTED[name](t, bank)))
            for t in (np.float32(spoiled), np.float32(targets))
        )
        assert np.isnan(left[1])
        others = np.arange(N) != 1
        np.testing.assert_allclose(left[others], expected[others], rtol=1e-5)

    def test_nan_in_an_atom_reaches_every_target(self, rng, name):
        """Else the bank would score as if it were empty, or the atom were not there."""
        targets, atoms = draw(rng, name)
        for number in (4, M - 1):
            spoiled = atoms.copy()
            spoiled[number, 2] = np.nan
            bank = bank_of(spoiled)
            left = pipeline.score(bank, jnp.float32(targets), code=JITTED[name])
            assert np.isnan(left).all()
            padding = bank_of(spoiled, np.float32(np.arange(M) != number))
            left = pipeline.score(padding, jnp.float32(targets), code=JITTED[name])
            assert np.isfinite(left).all()

    def test_a_target_of_another_scale_is_coded_too(self, rng, name):
        targets, atoms = draw(rng, name)

        def score(targets):
            found = pipeline.score(bank_of(atoms), jnp.float32(targets), code=JITTED[name])
            return np.asarray(found)

        plain, others = score(targets), np.arange(N) != 1
        for scale in (1e-20, 1e19):
            mixed = targets.copy()
            mixed[1] *= scale
            found = score(mixed)
            np.testing.assert_allclose(found[others], plain[others], rtol=1e-4, atol=1e-6)
            # A code shrinks its target or, if affine, goes from the atom nearest to it.
            nearest = np.linalg.norm(atoms, axis=1).min()
            assert 0 < found[1] <= 1.001 * (np.linalg.norm(mixed[1]) + 2 * nearest)

    def test_gradients_agree_with_finite_differences(self, rng, name):
        arguments = draw_two(rng, name)
        directions = [rng.normal(size=argument.shape) for argument in arguments]
        _, slopes = in_float64(name, *arguments)
        ahead, behind = (
            in_float64(
                name,
                *(at + step * along for at, along in zip(arguments, directions, strict=True)),
            )[0][0]
            for step in (1e-6, -1e-6)
        )
        along = (
            np.sum(slope * direction, axis=(1, 2))
            for slope, direction in zip(slopes, directions, strict=True)
        )
        np.testing.assert_allclose((ahead - behind) / 2e-6, sum(along), rtol=1e-4, atol=1e-5)

    def test_new_values_do_not_compile_again(self, rng, name):
        code_of(name, *draw(rng, name))
        before = run._cache_size()
        for last in (1, 0):
            code_of(name, *draw(rng, name), np.append(np.ones(M - 1), last))
        assert run._cache_size() == before

    def test_hyperparameters_may_be_arrays(self, name):
        arguments = np.ones((N, D), np.float32), bank_of(np.ones((M, D)))
        found = jax.eval_shape(with_arrays(CASES[name].code), *arguments)
        assert found == jax.eval_shape(JITTED[name], *arguments)

    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
    def test_half_precision_is_computed_in_float32(self, name, dtype):
        bank = types.Bank(np.ones((M, D), dtype), np.ones(M), np.arange(M))
        found = jax.eval_shape(JITTED[name], np.ones((N, D), dtype), bank)
        assert found.coefficients.dtype == jnp.float32

    def test_features_that_differ(self, name):
        with pytest.raises(ValueError, match=r"\(6, 4\) and atoms \(16, 8\)"):
            jax.eval_shape(CASES[name].code, np.ones((N, 4)), bank_of(np.ones((M, D))))

    def test_one_target_without_its_axis(self, name):
        with pytest.raises(ValueError, match=r"must be \[N, D\]"):
            jax.eval_shape(CASES[name].code, np.ones(D), bank_of(np.ones((M, D))))

    def test_an_empty_bank(self, name):
        with pytest.raises(ValueError, match=r"empty: atoms \(0, 8\)"):
            jax.eval_shape(CASES[name].code, np.ones((N, D)), bank_of(np.ones((0, D))))

    def test_weights_of_another_bank(self, name):
        with pytest.raises(ValueError, match=r"weights \(3,\) and atoms \(16, 8\)"):
            bank = bank_of(np.ones((M, D)), np.ones(3))
            jax.eval_shape(CASES[name].code, np.ones((N, D)), bank)

    @pytest.mark.parametrize("which", ["targets", "atoms"])
    def test_integers(self, name, which):
        kinds = {"targets": jnp.float32, "atoms": jnp.float32, which: jnp.int32}
        bank = types.Bank(np.ones((M, D), kinds["atoms"]), np.ones(M), np.arange(M))
        with pytest.raises(ValueError, match=rf"{which} .* are int32.*astype"):
            jax.eval_shape(CASES[name].code, np.ones((N, D), kinds["targets"]), bank)


PENALTIES = {
    "affine_ridge": partial(solvers.affine_ridge, ridge=1e-3),
    "ridge": partial(solvers.ridge, ridge=1e-3),
    "nonnegative": solvers.nonnegative,
    "elastic_net": partial(solvers.elastic_net, l1=0.05, l2=1e-2),
    "lasso": partial(solvers.lasso, l1=0.05),
}


@pytest.mark.parametrize("solve", PENALTIES.values(), ids=PENALTIES)
def test_penalties_have_no_unit_and_do_not_look_past_nan(rng, solve):
    target, support = np.float32(rng.normal(size=6)), np.float32(rng.normal(size=(4, 6)))
    support[3] = np.nan  # padding may hold NaN
    solve = partial(jax.jit(solve), valid=np.arange(4) < 3)
    plain = solve(target, support)
    assert np.isfinite(plain).all()
    for scale in np.float32([1e-30, 1e-20, 1e19, 1e30]):
        np.testing.assert_allclose(
            solve(target * scale, support * scale), plain, rtol=1e-4, atol=1e-6
        )
    for spoiled in (target, support[1]):
        kept, spoiled[2] = spoiled[2], np.nan
        assert np.isnan(solve(target, support)[:3]).all()
        spoiled[2] = kept
