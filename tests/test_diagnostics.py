from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sgfr_jax import diagnostics, solvers, types

RIDGE = 1e-3
CODE = partial(
    solvers.local_code, num_neighbors=3, solve=partial(solvers.affine_ridge, ridge=RIDGE)
)
NEAREST = partial(solvers.local_code, num_neighbors=1, solve=solvers.nearest)


def bank_of(atoms, weights=None, indices=None):
    weights = np.ones(len(atoms)) if weights is None else weights
    indices = np.arange(len(atoms)) if indices is None else np.asarray(indices)
    return types.Bank(np.float32(atoms), np.float32(weights), indices)


ERROR = jax.jit(
    diagnostics.self_representation_error, static_argnames=("code", "held_in", "chunk_size")
)
RADIUS = jax.jit(diagnostics.covering_radius, static_argnames="chunk_size")
CONDITIONING = jax.jit(diagnostics.conditioning, static_argnames="chunk_size")
SHARE = jax.jit(diagnostics.share_inside_subspace, static_argnames="num_subspaces")


def affine_residual(point, atoms):
    """By the optimality conditions of the constrained problem, in float64."""
    near = atoms[np.argsort(np.sum((point - atoms) ** 2, axis=1))[:3]]
    scale = np.mean(np.sum((point - near) ** 2, axis=1))
    system = np.ones((4, 4))
    system[3, 3] = 0
    system[:3, :3] = near @ near.T + RIDGE * scale * np.eye(3)
    found = np.linalg.solve(system, np.append(near @ point, 1.0))[:3]
    return np.linalg.norm(point - found @ near)


class TestSelfRepresentationError:
    @pytest.mark.parametrize("held_in", [True, False])
    def test_agrees_with_one_at_a_time(self, rng, held_in):
        points, chosen = rng.normal(size=(30, 6)), np.array([3, 8, 11, 20, 25, 29, 1])
        bank = bank_of(points[chosen], indices=chosen)
        found = ERROR(
            np.float32(points), np.ones(30), bank, code=CODE, held_in=held_in, chunk_size=8
        )
        expected = []
        for n, point in enumerate(points):
            others = chosen[chosen != n] if held_in else chosen
            expected.append(affine_residual(point, points[others]) / np.linalg.norm(point))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)

    def test_padding_and_degenerate_points(self):
        points = np.float32([[1, 0], [0, 0], [np.nan, 0], [5, 5]])
        weights = np.float32([1, 1, 1, 0])
        found = ERROR(points, weights, bank_of([[1.0, 0.0]]), code=NEAREST, held_in=False)
        np.testing.assert_array_equal(found, [0, np.inf, np.nan, 0])

    def test_padding_atoms_may_hold_anything(self):
        for code in (NEAREST, partial(solvers.whole_bank_ridge, ridge=RIDGE)):
            spoiled, clean = (
                ERROR(
                    np.eye(2, dtype=np.float32),
                    np.ones(2),
                    bank_of([[held, 0], [3.0, 1.0]], [0, 1]),
                    code=code,
                )
                for held in (np.nan, 0)
            )
            np.testing.assert_array_equal(spoiled, clean)

    def test_shapes_that_do_not_fit_are_refused(self):
        with pytest.raises(ValueError, match=r"\(4, 2\).*\(4,\).*\(3, 3\)"):
            diagnostics.self_representation_error(
                np.ones((4, 2)), np.ones(4), bank_of(np.eye(3)), code=NEAREST
            )


class TestCoveringRadius:
    @pytest.mark.parametrize("chunk_size", [7, 4096])
    def test_agrees_with_all_distances(self, rng, chunk_size):
        points, atoms = rng.normal(size=(50, 4)), rng.normal(size=(9, 4))
        found = RADIUS(np.float32(points), np.ones(50), bank_of(atoms), chunk_size=chunk_size)
        np.testing.assert_allclose(found, cdist(points, atoms).min(axis=1).max(), rtol=1e-5)

    def test_padding_points_and_atoms_do_not_count(self):
        points, weights = np.float32([[0.0], [3.0], [100.0]]), np.float32([1, 1, 0])
        atoms = [[1.0], [3.0]]
        assert RADIUS(points, weights, bank_of(atoms, [1, 0])) == 2
        assert RADIUS(points, 0 * weights, bank_of(atoms, [1, 0])) == 0
        assert RADIUS(points, weights, bank_of(atoms, [0, 0])) == np.inf

    def test_a_bank_of_all_points_covers_them(self, rng):
        points = rng.normal(size=(20, 3)) + 100
        assert RADIUS(np.float32(points), np.ones(20), bank_of(points)) == 0

    @pytest.mark.parametrize("num_points", [2, 5000])
    def test_nan_is_seen(self, num_points):
        points, weights = np.ones((num_points, 1), np.float32), np.ones(num_points)
        points[num_points // 2] = np.nan
        assert np.isnan(RADIUS(points, weights, bank_of([[0.0]])))
        weights[num_points // 2] = 0
        assert RADIUS(points, weights, bank_of([[0.0]])) == 1


def test_atoms_used_and_effective_atoms_by_hand():
    code = types.Code(None, np.float32([[1, -1, 1, 1], [2, 0, 0, 0], [1, 1e-3, 0, -0.5], 4 * [0]]))
    np.testing.assert_array_equal(diagnostics.atoms_used(code), [4, 1, 2, 0])
    np.testing.assert_array_equal(diagnostics.atoms_used(code, threshold=0.0), [4, 1, 3, 0])
    expected = [4, 1, 1.501**2 / (1.25 + 1e-6), 0]
    np.testing.assert_allclose(diagnostics.effective_atoms(code), expected, rtol=1e-5)
    tiny = types.Code(None, np.float32(1e-30) * code.coefficients)
    np.testing.assert_allclose(diagnostics.effective_atoms(tiny), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="threshold=1"):
        diagnostics.atoms_used(code, threshold=1)


class TestShareInsideSubspace:
    def test_agrees_with_summing_by_label(self, rng):
        labels = rng.integers(-1, 3, size=10)
        indices = np.stack([rng.permutation(10)[:4] for _ in range(20)])
        coefficients = rng.normal(size=(20, 4))
        expected = []
        for row, values in zip(indices, np.abs(coefficients), strict=True):
            masses = [values[labels[row] == s].sum() for s in range(3)]
            expected.append(max(masses) / values.sum())
        code = types.Code(indices, np.float32(coefficients))
        found = SHARE(code, labels, num_subspaces=3)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        full = np.zeros((20, 10))
        np.put_along_axis(full, indices, coefficients, axis=1)
        found = SHARE(types.Code(None, np.float32(full)), labels, num_subspaces=3)
        np.testing.assert_allclose(found, expected, rtol=1e-5)

    def test_a_code_of_zeros_has_no_share(self):
        code = types.Code(None, np.zeros((1, 3), np.float32))
        assert SHARE(code, np.zeros(3, int), num_subspaces=2) == 0

    def test_what_is_refused(self):
        code = types.Code(None, np.zeros((1, 3), np.float32))
        with pytest.raises(ValueError, match=r"\(2,\).*\(1, 3\)"):
            diagnostics.share_inside_subspace(code, np.zeros(2, int), num_subspaces=2)
        with pytest.raises(ValueError, match="num_subspaces=0"):
            diagnostics.share_inside_subspace(code, np.zeros(3, int), num_subspaces=0)


@pytest.mark.parametrize("name", ["error", "radius", "conditioning"])
def test_many_banks_at_once_equal_the_loop_and_compile_once(rng, name):
    def judge(points, weights, atoms):
        bank = types.Bank(atoms, jnp.ones(len(atoms)), jnp.arange(len(atoms)))
        if name == "error":
            return diagnostics.self_representation_error(points, weights, bank, code=CODE)
        if name == "radius":
            return diagnostics.covering_radius(points, weights, bank)
        return diagnostics.conditioning(points, bank, CODE(points, bank))

    points, atoms = (np.float32(rng.normal(size=(2, num, 6))) for num in (12, 5))
    weights = np.ones((2, 12), np.float32)
    weights[1, 8:] = 0
    mapped = np.asarray(jax.jit(jax.vmap(judge))(points, weights, atoms))
    one = jax.jit(judge)
    for i in range(2):
        np.testing.assert_allclose(mapped[i], one(points[i], weights[i], atoms[i]), rtol=1e-3)
    assert one._cache_size() == 1


class TestConditioning:
    @pytest.mark.parametrize("num_features", [3, 12])
    def test_agrees_with_eigenvalues(self, rng, num_features):
        targets, atoms = (rng.normal(size=(num, num_features)) for num in (10, 20))
        bank = bank_of(atoms)
        near = np.argsort(cdist(targets, atoms), axis=1)[:, :5]
        code = types.Code(near, rng.normal(size=(10, 5)).astype(np.float32))
        found = np.asarray(CONDITIONING(np.float32(targets), bank, code, chunk_size=4))
        for n in range(10):
            differences = targets[n] - atoms[near[n]]
            values = np.linalg.eigvalsh(differences @ differences.T)[::-1][:num_features]
            np.testing.assert_allclose(found[n], values[0] / values[-1], rtol=1e-3)

    def test_unused_atoms_do_not_count(self, rng):
        targets, atoms = (np.float32(rng.normal(size=(num, 6))) for num in (1, 4))
        few = types.Code(np.array([[2, 0]]), np.ones((1, 2), np.float32))
        more = types.Code(None, np.float32([[1, 0, 1, 0]]))
        found = [CONDITIONING(targets, bank_of(atoms), code) for code in (few, more)]
        np.testing.assert_allclose(*found, rtol=1e-5)

    def test_degenerate_supports(self):
        bank = bank_of([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
        code = types.Code(
            np.array([[0, 1], [0, 1], [0, 2], [0, 1]]),
            np.float32([[0.5, 0.5], [0.5, 0.5], [0, 0], [1, 1]]),
        )
        targets = np.float32([[0, 0], [1, 0], [1, 1], [np.nan, 0]])
        found = np.asarray(CONDITIONING(targets, bank, code))
        assert 1e12 < found[0] < np.inf
        np.testing.assert_array_equal(found[1:], [1, 1, np.nan])

    def test_shapes_that_do_not_fit_are_refused(self):
        code = types.Code(None, np.ones((2, 3)))
        with pytest.raises(ValueError, match=r"\(2, 4\).*\(3, 3\)"):
            diagnostics.conditioning(np.ones((2, 4)), bank_of(np.eye(3)), code)
        with pytest.raises(ValueError, match=r"\(5, 3\).*\(2, 3\)"):
            diagnostics.conditioning(np.ones((5, 3)), bank_of(np.eye(3)), code)
