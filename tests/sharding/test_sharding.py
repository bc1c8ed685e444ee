import json
import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import samplers, sharding

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def found():
    """What one process with eight fake devices found."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    ran = subprocess.run(
        [sys.executable, "-m", "tests.sharding.eight_devices"],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    report = json.loads(ran.stdout.splitlines()[-1])
    assert report["devices"] == 8
    return report


@pytest.mark.parametrize("pool", [1, 16, 256])
def test_k_center_over_patches_makes_the_bank_of_one_device(found, pool):
    of_pool = found[f"k_center {pool}"]
    assert of_pool["same"] and of_pool["atoms"] == 0
    assert of_pool["radius"] < 1e-5


@pytest.mark.parametrize("pool", [1, 16, 256])
def test_k_center_gathers_its_pool_and_never_the_patches(found, pool):
    counted = found[f"k_center {pool}"]["collectives"]
    assert set(counted) == {"all-gather", "all-reduce"}
    # 8 devices' pools of `[pool, 12]`; 3008 x 12 = 36,096 would be the patches.
    assert max(counted["all-gather"]) == 8 * pool * 12
    assert sorted(counted["all-reduce"])[-2:] == [1, 12]  # once the mean of the patches


def test_k_center_leaves_slots_empty_where_points_are_too_few(found):
    assert found["few"] == {"filled": 9, "radius": 0.0}  # 10 points, of which one weighs 0


def test_scores_of_a_split_batch_need_no_collective(found):
    data = found["data"]
    assert data["error"] < 1e-5 and data["nan"] == [9]
    assert data["collectives"] == {} and data["parts"] == 8


@pytest.mark.parametrize("parts", [2, 8])
def test_scores_over_split_atoms_are_those_of_the_whole_bank(found, parts):
    atoms = found[f"atoms {parts}"]
    # `tight`: fewer atoms on a device than neighbours; `chunked`: a few patches at a time.
    assert all(atoms[name] < 1e-5 for name in ("error", "tight", "chunked"))
    assert atoms["nan"] == [9]


@pytest.mark.parametrize("parts", [2, 8])
def test_split_atoms_move_only_what_was_chosen(found, parts):
    counted, rows = found[f"atoms {parts}"]["collectives"], 64 // (8 // parts)
    assert counted == {"all-gather": [rows * parts * 5], "all-reduce": [rows * 5 * 12]}


def test_shard_map_may_check_types(found):
    assert found["checked"]["same"] and found["checked"]["error"] < 1e-5


@pytest.mark.parametrize("way", ["explicit", "automatic"])
def test_axes_may_be_explicit(found, way):
    assert found[way]["same"] and found[way]["error"] < 1e-5 and found[way]["parts"] == 8


@pytest.mark.parametrize("what", ["atoms", "targets", "points", "batch"])
def test_what_the_devices_do_not_divide_is_to_be_padded(found, what):
    message = found["undivided"][what]
    assert "pad them with `pad_rows`" in message
    assert {"atoms": "119 atoms", "targets": "63 patches", "points": "3001 points",
            "batch": "[63] rows"}[what] in message  # fmt: skip


def test_a_mesh_needs_parts_that_divide_the_devices():
    with pytest.raises(ValueError, match="num_atoms_shards=2 must divide the 1 devices"):
        sharding.make_mesh(jax.devices()[:1], num_atoms_shards=2)
    with pytest.raises(ValueError, match="0 devices"):
        sharding.make_mesh([])


def test_the_devices_of_a_mesh_make_another(found):
    assert found["again"]


def test_rows_are_padded_with_zeros():
    padded = sharding.pad_rows(jnp.ones((5, 2)), 4)
    np.testing.assert_array_equal(padded[:, 0], [1, 1, 1, 1, 1, 0, 0, 0])
    assert sharding.pad_rows(padded, 4) is padded
    with pytest.raises(ValueError, match="multiple=0"):
        sharding.pad_rows(padded, 0)
    with pytest.raises(ValueError, match="no rows to pad"):
        sharding.pad_rows(jnp.float32(1), 4)


def test_a_batch_has_rows():
    mesh = sharding.make_mesh(jax.devices()[:1])
    split = sharding.data_parallel(lambda state, batch: batch["a"] * state, mesh)
    for single in (jnp.float32(1), 1.0):
        with pytest.raises(ValueError, match=r"must be \[B, \.\.\.\], got .*\(\)"):
            split(2.0, {"a": jnp.ones(3), "b": single})
    np.testing.assert_array_equal(split(2.0, {"a": np.ones(3)}), [2, 2, 2])


@pytest.fixture(scope="module")
def traversal():
    """Points, a mesh of one device, and a traversal of which the first choice is made."""
    points = jnp.float32(np.random.default_rng(0).normal(size=(40, 3)))
    mesh = sharding.make_mesh(jax.devices()[:1])
    start = jax.jit(partial(sharding.k_center_start_over_patches, num=9, mesh=mesh))
    return points, mesh, start(KEY, points, jnp.ones(40))


def test_a_traversal_goes_on_as_far_as_it_is_told(traversal):
    points, mesh, state = traversal
    advance = jax.jit(partial(sharding.k_center_advance_over_patches, mesh=mesh))
    alone = jax.jit(samplers.greedy_k_center, static_argnums=3)
    expected = alone(KEY, points, jnp.ones(40), 9).indices
    for upto, filled in ((4, 4), (2, 4), (5, 5), (100, 9)):
        state = advance(state, points, upto)
        assert int(state.count) == filled
        bank = sharding.bank_of(state)
        np.testing.assert_array_equal(bank.weights, np.arange(9) < filled)
        np.testing.assert_array_equal(bank.indices[:filled], expected[:filled])


def test_a_traversal_is_of_its_own_points(traversal):
    points, mesh, state = traversal
    for others in (points[:20], points[:, :2], points[0]):
        with pytest.raises(ValueError, match=r"over points \(40, 3\), got .* it was started with"):
            sharding.k_center_advance_over_patches(state, others, 9, mesh=mesh)


@pytest.mark.parametrize("sizes", [{"pool_size": 0}, {"block_size": -1}])
def test_sizes_of_a_traversal_are_positive(sizes, traversal):
    points, mesh, state = traversal
    with pytest.raises(ValueError, match="must be positive and finite, such as 128"):
        sharding.k_center_advance_over_patches(state, points, 9, mesh=mesh, **sizes)
