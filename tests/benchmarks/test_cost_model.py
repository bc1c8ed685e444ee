"""The cost model against what compiled programs count, and against sums done by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from benchmarks import backbone, compiled, cost_model, fake_devices, scaling
from sgfr_jax import backbones, maps, patches, pipeline, samplers, solvers, types

FEATURES, NEIGHBORS = 344, 10
DEVICE = cost_model.Device("made up", 100.0, 10.0, 1e9, 4.0, 2.0, 1, 0.5, 3.0)


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def bank(atoms):
    return types.Bank(
        array(atoms, FEATURES), array(atoms), jax.ShapeDtypeStruct((atoms,), jnp.int32)
    )


@pytest.mark.parametrize("targets, atoms, neighbors", [(256, 500, 10), (128, 3000, 20)])
def test_coding_costs_what_its_program_counts(targets, atoms, neighbors):
    solve = partial(solvers.affine_ridge, ridge=1e-3)
    code = partial(solvers.local_code, num_neighbors=neighbors, solve=solve)
    counted = compiled.count(
        partial(pipeline.score, code=code, chunk_size=None), bank(atoms), array(targets, FEATURES)
    )
    expected = cost_model.code(targets, FEATURES, atoms, neighbors)
    assert counted.flops == pytest.approx(expected.flops, rel=0.03)
    assert counted.gathered == counted.reduced == 0


def test_maps_cost_what_their_program_counts():
    def found(scores):
        drawn = maps.anomaly_map(scores, (128, 128), sigma=4.0)
        return drawn, maps.image_score(drawn)

    counted = compiled.count(found, array(3, 16, 16))
    assert counted.flops == pytest.approx(cost_model.maps(3, grid=16, size=128).flops, rel=1e-3)


def test_embedding_costs_what_its_program_counts():
    network = backbones.load("efficientnet_lite0")
    architecture, size, grid = network.architecture, 64, 8

    def embed(state, images):
        return patches.unit_norm(patches.merge_levels(network.embed(state, images), (grid, grid)))

    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
    levels = [
        cost_model.Level(size // architecture.strides[name], architecture.widths[name])
        for name in network.levels
    ]
    flops = backbone.work(architecture, network.levels, size, 1).flops
    expected = cost_model.embed(1, flops=flops, weights=0, levels=levels, grid=grid, size=size)
    assert compiled.count(embed, network.state, images).flops == pytest.approx(
        expected.flops, rel=0.05
    )


def test_sampling_on_one_device_costs_a_product_and_a_step_of_the_pool():
    counted = compiled.count(
        partial(samplers.greedy_k_center, num=256), jax.random.key(0),
        array(8192, FEATURES), array(8192),
    )  # fmt: skip
    expected = cost_model.k_center_program(8192, FEATURES, devices=1, pool=cost_model.ALONE)
    assert counted.flops == pytest.approx(expected.flops, rel=0.05)


@pytest.fixture(scope="module")
def found():
    """What a process with eight fake devices counts."""
    problem = fake_devices.Problem(targets=256, atoms=1000, points=2048, chosen=160, repeats=1)
    return scaling._with_devices(problem, 8)


def test_sharded_programs_cost_what_the_model_says(found):
    assert len(found) == 3
    for stage, figures in found.items():
        model, counted = figures["model"], figures["counted"]
        # Sums over a few rows here, and what is done once in a loop's beginning.
        assert counted["flops"] == pytest.approx(model["flops"], rel=0.1), stage
        assert counted["gathered"] == model["gathered"], stage
        assert counted["reduced"] == model["reduced"], stage
        assert min(figures["seconds"]) > 0 and min(figures["core_seconds"]) > 0


def test_nothing_moves_where_patches_are_split_and_chosen_atoms_do_where_atoms_are(found):
    assert found["score, patches split"]["counted"]["gathered"] == 0
    assert found["score, atoms split"]["counted"]["reduced"] == 4 * 256 * NEIGHBORS * FEATURES


def test_work_of_a_device_falls_with_their_number_but_for_the_pool():
    def cost(devices):
        return cost_model.k_center(1e6, FEATURES, 1000, rounds=10, devices=devices)

    pools = [2 * n * cost_model.POOL * FEATURES * 1000 for n in (2, 4)]
    assert cost(2).flops - pools[0] == pytest.approx(2 * (cost(4).flops - pools[1]))
    assert cost(4).gathered == 2 * cost(2).gathered


def test_least_time_by_hand():
    arithmetic = cost_model.Cost(flops=1000.0, bytes=50.0, steps=2, transferred=6.0)
    assert cost_model.seconds(arithmetic, DEVICE) == 10 + 1 + 3
    traffic = cost_model.Cost(flops=100.0, bytes=50.0)
    assert cost_model.seconds(traffic, DEVICE) == 5
    moved = cost_model.Cost(gathered=16.0, reduced=8.0, collectives=2)
    assert cost_model.seconds(moved, DEVICE, devices=4) == 0.75 * (16 + 16) / 4 + 6
    assert cost_model.seconds(moved, DEVICE, devices=1) == 6


def test_predictions_scale_with_devices_but_for_the_host_thread():
    one, pod = (scaling.predict(scaling.MVTEC, scaling.POD, n) for n in (1, 256))
    for stage in ("decode (host)", "embed", "code and maps"):
        assert one[stage] == pytest.approx(256 * pod[stage])
    assert one["metrics (one thread)"] == pod["metrics (one thread)"]


def test_patches_that_do_not_fit_are_streamed():
    fitting = scaling._sampling(1e6, FEATURES, 1000, scaling.V5E, 1)
    assert fitting == cost_model.k_center(1e6, FEATURES, 1000, rounds=10, pool=cost_model.ALONE)
    streamed = scaling._sampling(1e9, FEATURES, 1000, scaling.V5E, 1)
    assert streamed == cost_model.stream(1e9, FEATURES, 1000, rounds=10)


def test_rounds_are_counted():
    points = jax.random.normal(jax.random.key(0), (300, 8))
    # A pool of all points but one goes on to the end; a pool of one soon has to be made anew.
    assert scaling.count_rounds(points, 20, 299) <= 2
    assert 10 <= scaling.count_rounds(points, 20, 1) <= 19


def test_tables_have_a_heading_and_one_width():
    for table in (scaling.peaks(), scaling.predicted()):
        heading, *rows = list(table)
        assert rows and all(len(row) == len(heading) for row in rows)


def test_the_script_prints_its_tables(found, monkeypatch, capsys):
    monkeypatch.setattr(scaling, "_with_devices", lambda problem, devices: found)
    scaling.main(["--devices", "1", "8"])
    printed = capsys.readouterr().out
    for title in ("peaks", "predicted", "compiled, one of 8 devices", "fake"):
        assert f"\n{title}\n" in printed
    assert printed.count("| score, atoms split ") == 5  # counts; strong and weak, twice
