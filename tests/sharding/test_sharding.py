import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import sharding


@pytest.fixture(scope="module")
def found():
    """What one process with eight fake devices found."""
    flags = "--xla_force_host_platform_device_count=8"
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
    assert max(counted["all-reduce"]) == 1


def test_k_center_leaves_slots_empty_where_points_are_too_few(found):
    assert found["few"] == {"filled": 9, "radius": 0.0}  # 10 points, of which one weighs 0


def test_scores_of_a_split_batch_need_no_collective(found):
    data = found["data"]
    assert data["error"] < 1e-5 and data["nan"] == [9]
    assert data["collectives"] == {} and data["parts"] == 8


@pytest.mark.parametrize("parts", [2, 8])
def test_scores_over_split_atoms_are_those_of_the_whole_bank(found, parts):
    atoms = found[f"atoms {parts}"]
    # `tight`: fewer atoms on a device than neighbours.
    assert atoms["error"] < 1e-5 and atoms["tight"] < 1e-5 and atoms["nan"] == [9]


@pytest.mark.parametrize("parts", [2, 8])
def test_split_atoms_move_only_what_was_chosen(found, parts):
    counted, rows = found[f"atoms {parts}"]["collectives"], 64 // (8 // parts)
    assert counted == {"all-gather": [rows * parts * 5], "all-reduce": [rows * 5 * 12]}


def test_a_mesh_needs_parts_that_divide_the_devices():
    with pytest.raises(ValueError, match="num_atoms_shards=2 must divide the 1 devices"):
        sharding.make_mesh(jax.devices()[:1], num_atoms_shards=2)
    with pytest.raises(ValueError, match="0 devices"):
        sharding.make_mesh([])


def test_rows_are_padded_with_zeros():
    padded = sharding.pad_rows(jnp.ones((5, 2)), 4)
    np.testing.assert_array_equal(padded[:, 0], [1, 1, 1, 1, 1, 0, 0, 0])
    assert sharding.pad_rows(padded, 4) is padded
    with pytest.raises(ValueError, match="multiple=0"):
        sharding.pad_rows(padded, 0)
