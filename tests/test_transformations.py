"""The core inside JAX's transformations. What they refuse they refuse while tracing, most of it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sgfr_jax import (
    calibration,
    diagnostics,
    explanation,
    growing,
    linalg,
    maps,
    pipeline,
    reconstruction,
    samplers,
    search,
    sharding,
    solvers,
    streaming,
    subspaces,
    types,
)
from tests.solvers.cases import CASES, D, M

N = 16
CODE = partial(solvers.local_code, num_neighbors=3, solve=partial(solvers.affine_ridge, ridge=1e-3))
OMP = partial(solvers.omp, sparsity=2)


def floats(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def integers(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def score(code):
    return partial(pipeline.score, code=code, chunk_size=3)


def started_and_advanced(key, upto, points, weights):
    start = samplers.k_center_start(key, points, weights, 4)
    return samplers.k_center_advance(start, points, upto)


def slope(bank, targets):
    return jax.grad(lambda atoms: jnp.sum(score(OMP)(bank._replace(atoms=atoms), targets)))(
        bank.atoms
    )


KEY = jax.eval_shape(jax.random.key, 0)
BANK = types.Bank(floats(M, D), floats(M), integers(M))
HALVES = BANK._replace(atoms=floats(M, D, dtype=jnp.bfloat16))
CORE = streaming.Core(floats(5, D), floats(5), integers(5), floats(5), integers())
GRID, OWNERS, EXTENTS = floats(4, 5, 5), integers(4, 5, 5), floats(4, 2)
ROWS = floats(N, D), floats(N)
# A function, what all devices share of its arguments, and what each has its own rows of.
DIFFERENT = {case.program or case.code: name for name, case in CASES.items()}
SOLVERS = {
    f"score by {name}": (score(CASES[name].code), [BANK], [ROWS[0]]) for name in DIFFERENT.values()
}
SAMPLERS = {
    name: (partial(sample, num=4), [KEY], ROWS)
    for name, sample in {
        "uniform": samplers.uniform,
        "k_center": samplers.greedy_k_center,
        "d2": samplers.d2_sampling,
        "k_medoids": samplers.k_medoids,
        "self_representation": samplers.self_representation,
        "support_frequency": partial(samplers.support_frequency, code=OMP),
    }.items()
}
LEARNERS = {
    name: (learn, [KEY], ROWS)
    for name, learn in {
        "pca": partial(subspaces.pca, rank=2, affine=True),
        "k_subspaces": partial(subspaces.k_subspaces, num_subspaces=2, rank=2),
        "clustering": partial(subspaces.sparse_clustering, num_subspaces=2, rank=2, code=OMP),
        "dictionary": partial(subspaces.dictionary, num_atoms=4, code=OMP, num_steps=2),
    }.items()
}
SEARCHES = {
    f"search {how.__name__}": (
        lambda bank, targets, how=how: how(targets, bank.atoms, bank.weights, num_neighbors=3),
        [BANK],
        [ROWS[0]],
    )
    for how in (search.exact, search.reduced, search.approximate)
}
OTHERS = {
    "score in bfloat16": (score(CODE), [HALVES], [floats(N, D, dtype=jnp.bfloat16)]),
    "score by each device's bank": (
        lambda targets, bank: score(CODE)(bank, targets),
        [ROWS[0]],
        [BANK],
    ),
    "gradient": (slope, [BANK], [ROWS[0]]),
    "held out": (
        lambda bank, sources, patches, own: pipeline.score_held_out(
            bank, sources, patches, own, code=OMP
        ),
        [BANK, integers(M)],
        [floats(4, N, D), integers(4)],
    ),
    "start and advance": (started_and_advanced, [KEY, integers()], ROWS),
    "l1_cost": (lambda bank, targets: samplers.l1_cost(targets, bank), [BANK], [ROWS[0]]),
    "fold": (streaming.fold, [KEY, CORE], ROWS),
    "cover": (streaming.cover, [CORE], ROWS),
    "calibrate": (
        lambda *grids: calibration.calibrate(*grids[:2], M, extents=grids[2]),
        [],
        [GRID, OWNERS, EXTENTS],
    ),
    "standardize": (
        calibration.standardize,
        [calibration.Calibration(floats(M), floats(3), floats(3))],
        [floats(4, 5, 5, dtype=jnp.bfloat16), OWNERS, EXTENTS],
    ),
    "anomaly_map": (
        lambda *grids: maps.anomaly_map(grids[0], (8, 8), sigma=1.0, extents=grids[1]),
        [],
        [GRID, EXTENTS],
    ),
    "image_score": (partial(maps.image_score, share=0.2), [], [GRID, EXTENTS]),
    "explain": (partial(explanation.explain, code=OMP, level_widths=(D,)), [BANK], [ROWS[0]]),
    "update": (partial(growing.update, code=OMP, level=0.1), [KEY, BANK], ROWS),
    "level": (partial(growing.nominal_level, code=CODE), [], [BANK]),
    "radius": (lambda bank, *rows: diagnostics.covering_radius(*rows, bank), [BANK], ROWS),
    "self-representation": (
        lambda bank, *rows: diagnostics.self_representation_error(*rows, bank, code=OMP),
        [BANK],
        ROWS,
    ),
    "subspaces' bank": (
        types.subspace_bank,
        [],
        [types.Subspaces(floats(2, 3, D), floats(2, D), floats(2))],
    ),
    "elimination": (
        lambda matrix, vector: linalg.solve_by_elimination(matrix, vector[:4]),
        [floats(4, 4)],
        [floats(N)],
    ),
}
EVERY = SOLVERS | SAMPLERS | LEARNERS | SEARCHES | OTHERS


@pytest.mark.parametrize("name", EVERY)
def test_shard_map_checks_every_function_and_no_type_is_promoted_but_by_name(name):
    """Which arrays vary over devices is part of their types; a loop must not change it.

    Both are said while tracing, most of this file's time, so one trace says both.
    """
    function, shared, own = EVERY[name]
    mesh = AbstractMesh((2,), ("data",), axis_types=(AxisType.Auto,))
    split = jax.shard_map(
        lambda *args: jax.tree.map(lambda x: x[None], function(*args)),
        mesh=mesh,
        in_specs=(P(),) * len(shared) + (P("data"),) * len(own),
        out_specs=P("data"),
        check_vma=True,
    )
    twice = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((2 * x.shape[0], *x.shape[1:]), x.dtype), own
    )
    with jax.numpy_dtype_promotion("strict"):
        jax.eval_shape(split, *shared, *twice)


def test_what_all_devices_share_stays_so():
    mesh = AbstractMesh((2,), ("data",), axis_types=(AxisType.Auto,))
    for name in ("k_center", "score by nonnegative"):
        function, shared, own = EVERY[name]
        alike = jax.shard_map(function, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=True)
        jax.eval_shape(alike, *shared, *own)


@pytest.mark.parametrize("name", [*SOLVERS, "k_center", "start and advance", "score in bfloat16"])
def test_axes_that_are_explicit_are_made_automatic(name):
    function, shared, own = EVERY[name]
    mesh = AbstractMesh((2,), ("data",), axis_types=(AxisType.Explicit,))

    def placed(tree, spec):
        place = NamedSharding(mesh, spec)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)

    with jax.sharding.use_abstract_mesh(mesh):
        automatic = jax.sharding.auto_axes(function, out_sharding=P())
        jax.eval_shape(automatic, *placed(shared, P()), *placed(own, P("data")))


def random_bank(rng, dtype):
    atoms = rng.normal(size=(M, D)).astype(dtype)
    return types.Bank(atoms, np.ones(M, dtype), np.arange(M, dtype=np.int32))


def test_the_gradient_with_respect_to_a_bank_is_its_atoms(rng):
    with jax.enable_x64(True):
        bank, targets = random_bank(rng, np.float64), rng.normal(size=(6, D))

        @jax.jit
        def total(bank):
            found = solvers.local_code(
                targets, bank, num_neighbors=3, solve=partial(solvers.affine_ridge, ridge=1e-3)
            )
            return jnp.sum(reconstruction.residual_norm(targets, bank.atoms, found))

        by_atoms = jax.jit(jax.grad(lambda atoms: total(bank._replace(atoms=atoms))))(bank.atoms)
        of_all = jax.jit(jax.grad(total, allow_int=True))(bank)
        along = rng.normal(size=(M, D))
        ahead, behind = (
            total(bank._replace(atoms=bank.atoms + step * along)) for step in (1e-6, -1e-6)
        )
        np.testing.assert_allclose(np.sum(by_atoms * along), (ahead - behind) / 2e-6, rtol=1e-6)
        np.testing.assert_array_equal(of_all.atoms, by_atoms)
        assert of_all.indices.dtype == jax.dtypes.float0


def test_what_is_exported_takes_and_returns_every_type(rng):
    bank = random_bank(rng, np.float32)
    codes = types.Code(np.ones((2, 3), np.int32), np.ones((2, 3), np.float32))
    scalar = np.float32(1)
    every = (
        bank,
        codes,
        codes._replace(indices=None),
        types.Selection(bank.indices, bank.weights, np.int32(M), bank.weights),
        types.Subspaces(bank.atoms[None], bank.atoms[:1], bank.weights[:1]),
        calibration.Calibration(bank.weights, bank.weights, bank.weights),
        streaming.Core(*bank, bank.weights, np.int32(M)),
        growing.Growth(bank, bank.indices, bank.weights, bank.weights > 0),
        explanation.Explanation(codes.indices, codes.coefficients, scalar, scalar),
        solvers.ElasticNetSolution(codes, scalar, np.int32(4)),
        sharding.Traversal(*bank[::2], np.int32(M), scalar, bank.weights, bank.atoms[0]),
    )
    written = export.export(jax.jit(lambda *args: args))(*every).serialize()
    found = export.deserialize(written).call(*every)
    assert [type(x) for x in found] == [type(x) for x in every]
    for made, given in zip(jax.tree.leaves(found), jax.tree.leaves(every), strict=True):
        np.testing.assert_array_equal(made, given)
