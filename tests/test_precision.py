"""Of float32 float32 is made, also where JAX would make float64 of what has no type."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import (
    calibration,
    diagnostics,
    growing,
    pipeline,
    samplers,
    solvers,
    streaming,
    types,
)

CODE = partial(solvers.local_code, num_neighbors=3, solve=partial(solvers.affine_ridge, ridge=1e-3))
OWNERS = jnp.zeros((2, 4, 4), jnp.int32)


def bank_of(points):
    return types.Bank(points[:12], jnp.ones(12, points.dtype), jnp.arange(12, dtype=jnp.int32))


def calibrated(points):
    return calibration.calibrate(points[:32, 0].reshape(2, 4, 4) ** 2, OWNERS, 3)


MADE = {
    "k_center": lambda key, p, w: samplers.greedy_k_center(key, p, w, 5),
    "k_medoids": lambda key, p, w: samplers.k_medoids(key, p, w, 12),
    "few_medoids": lambda key, p, w: samplers.k_medoids(key, p, w, 5),
    "score": lambda key, p, w: pipeline.score(bank_of(p), p, code=CODE),
    "omp": lambda key, p, w: solvers.omp(p, bank_of(p), sparsity=2),
    "elastic_net": lambda key, p, w: solvers.elastic_net_solution(p, bank_of(p), l1=0.1, l2=1e-3),
    "l1_cost": lambda key, p, w: samplers.l1_cost(p, bank_of(p)),
    "fold": lambda key, p, w: streaming.fold(key, streaming.empty(5, 4), p, w),
    "level": lambda key, p, w: growing.nominal_level(bank_of(p), code=CODE),
    "radius": lambda key, p, w: diagnostics.covering_radius(p, w, bank_of(p)),
    "calibrate": lambda key, p, w: calibrated(p),
    "extend": lambda key, p, w: calibration.extend(
        calibrated(p), jnp.arange(4) == 3, p[:32, 0].reshape(2, 4, 4) ** 2, OWNERS
    ),
}


def test_a_bank_grows_in_the_precision_of_what_is_new():
    with jax.enable_x64(True):
        points = jax.ShapeDtypeStruct((40, 4), jnp.float32)
        bank = jax.eval_shape(bank_of, points)
        for given in (jnp.bfloat16, jnp.float32, jnp.float64):
            new, weights = jax.ShapeDtypeStruct((9, 4), given), jax.ShapeDtypeStruct((9,), given)
            grow = partial(growing.update, code=CODE, level=0.1)
            grown = jax.eval_shape(grow, jax.random.key(0), bank, new, weights).bank
            assert grown.atoms.dtype == grown.weights.dtype == jnp.promote_types(given, jnp.float32)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_float32_stays_float32_where_float64_is_allowed(make):
    with jax.enable_x64(True):
        points = jax.ShapeDtypeStruct((40, 4), jnp.float32)
        weights = jax.ShapeDtypeStruct((40,), jnp.float32)
        made = jax.eval_shape(make, jax.random.key(0), points, weights)
    kinds = {x.dtype for x in jax.tree.leaves(made) if jnp.issubdtype(x.dtype, np.floating)}
    assert kinds == {jnp.dtype(jnp.float32)}
