"""The script runs in one call on whatever there is, here a CPU; no time is asserted."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import accelerator, device, device_metrics, timing
from benchmarks import metrics as made
from sgfr_jax import metrics

WAYS = set(accelerator.SEARCHES)


def run(stages, capsys, tmp_path):
    path = tmp_path / "figures.json"
    rows = accelerator.main(["--small", "--repeats=1", f"--json={path}", "--stages", *stages])
    printed, record = capsys.readouterr().out, json.loads(path.read_text())
    assert all(row.stage in printed for row in rows)
    assert all(seconds > 0 for row in rows for seconds in row.seconds)
    assert [row["stage"] for row in record["rows"]] == [row.stage for row in rows]
    assert record["command"].startswith("python -m benchmarks.accelerator --small")
    assert all(rate > 0 for rate in record["rates"].values())
    return rows


@pytest.mark.slow
def test_stages_of_patches(capsys, tmp_path):
    rows = run(["coding", "maps", "metrics"], capsys, tmp_path)
    codings = [row for row in rows if row.stage.startswith("coding")]
    assert {row.way for row in codings} == WAYS
    assert len(codings) == len(WAYS) * len(accelerator.SMALL.banks)
    for row in codings:
        assert row.values["recall"] > 0.999
        assert row.values["largest_relative_error"] < 1e-3
    (on_device,) = [row for row in rows if row.way == "compiled"]
    assert on_device.values["largest_error"] < 1e-5
    assert all(row.kernels for row in rows if row.work is not None)


@pytest.mark.slow
def test_stages_of_images(capsys, tmp_path):
    rows = run(["backbone", "k_center", "images"], capsys, tmp_path)
    assert {row.way for row in rows if row.stage.startswith("images to maps")} == WAYS
    assert any(row.stage.startswith("JPEG") for row in rows)


def test_the_floor_is_the_longer_of_arithmetic_and_traffic():
    rates = device.Rates(float32=10.0, tf32=20.0, bfloat16=40.0, bandwidth=5.0)
    floor = device.floor(device.Work(float32=10.0, bfloat16=40.0, bytes=5.0), rates)
    assert floor == (2.0, 1.0) and floor.seconds == 2.0 and floor.bound == "arithmetic"
    assert device.floor(device.Work(float32=1.0, bytes=5.0), rates).bound == "memory"


def test_transfers_and_calls_to_the_host_are_found():
    constant = np.ones(3, np.float32)
    sample = device.contender(lambda x: x + 1, constant)
    np.testing.assert_array_equal(sample(2).value, 2 * constant)
    with pytest.raises(RuntimeError, match="goes back to the host within: callback"):
        device.contender(
            lambda x: jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((3,), x.dtype), x),
            constant,
        )


def test_kernels_share_the_time():
    events = [
        {"ph": "X", "name": "gemm", "dur": 3.0, "args": {"hlo_op": "dot.1"}},
        {"ph": "X", "name": "sort", "dur": 1.0, "args": {"hlo_op": "sort.2"}},
        {"ph": "X", "name": "loop", "dur": 9.0, "args": {"hlo_op": "while.3"}},
        {"ph": "X", "name": "python", "dur": 9.0},
        {"ph": "M", "name": "process_name", "args": {"name": "/device:GPU:0"}},
    ]
    assert device.shares(events) == {"gemm": 0.75, "sort": 0.25}
    assert device.shares([]) == {}


def test_a_measurement_has_calls_enough_and_not_too_many():
    for seconds, number in ((1.0, 1), (0.05, 4), (1e-6, 100)):
        assert device.calls(lambda _, seconds=seconds: timing.Sample(seconds, None)) == number


def test_recall_is_the_share_that_was_found():
    expected = np.array([[0, 1], [2, 3]])
    assert accelerator.recall(np.array([[1, 0], [3, 9]]), expected) == 0.75


def test_widened_points_keep_their_distances(rng):
    points = rng.normal(size=(5, 4)).astype(np.float32)
    wide = accelerator._widened(points, 9)
    assert wide.shape == (5, 9) and wide.dtype == np.float32
    np.testing.assert_allclose(wide @ wide.T, points @ points.T, atol=1e-5)


@pytest.mark.parametrize("digits", [1, 2, 7])  # rounding makes ties
def test_metrics_on_the_device_are_the_hosts(digits):
    maps, masks = made.made_maps(6, 32)
    maps = np.round(maps, digits)
    weights = np.zeros(maps.shape, np.float32)
    weights[masks] = metrics.region_weights(masks)
    found = METRICS(*(jnp.asarray(array.ravel()) for array in (maps, masks, weights)))
    expected = metrics.evaluate(maps.max(axis=(1, 2)), masks.any(axis=(1, 2)), maps, masks)
    for name, value in found._asdict().items():
        np.testing.assert_allclose(value, getattr(expected, name), atol=2e-6, err_msg=name)


def test_metrics_on_the_device_by_hand():
    found = METRICS(jnp.float32([3, 2, 2, 1]), jnp.array([1, 0, 1, 0], bool), jnp.ones(4) * 0.5)
    np.testing.assert_allclose(found.pixel_auroc, 7 / 8)
    np.testing.assert_allclose(found.pixel_ap, 1 / 2 + 1 / 2 * 2 / 3)
    np.testing.assert_allclose(found.pixel_f1_max, 4 / 5)


METRICS = jax.jit(device_metrics.evaluate)
