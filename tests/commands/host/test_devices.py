"""One run on one device, on eight, and on two processes with four each."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

import numpy as np
import pytest

from sgfr_jax import saving
from sgfr_jax.commands.flags import config
from sgfr_jax.commands.host import devices
from sgfr_jax.metrics import Metrics
from tests.commands.host.test_processes import free_port
from tests.sharding.eight_devices import count_collectives

SECONDS = 400  # of a loaded machine; a run takes about ten


class Ran(NamedTuple):
    results: dict[str, Any]
    scores: np.ndarray
    model: dict[str, np.ndarray]
    programs: dict[str, dict[str, list[int]]]  # name to its collectives


def start(place, num_devices, *flags, moment="live"):
    """A run that leaves its results, and its programs, in a directory."""
    xla = f"--xla_force_host_platform_device_count={num_devices}"
    xla += f" --xla_dump_to={place}/programs --xla_dump_hlo_as_text"
    # Factorisations in one program may wait for each other on fake devices.
    xla += " --xla_cpu_enable_concurrency_optimized_scheduler=false"
    command = [sys.executable, "-m", "tests.commands.host.on_devices", moment]
    return subprocess.Popen(
        [*command, f"--workdir={place}", *flags],
        env=os.environ | {"XLA_FLAGS": xla, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def end(processes):
    """What they have printed; none of them outlives the time limit."""
    limit = time.monotonic() + SECONDS
    try:
        return [process.communicate(timeout=limit - time.monotonic()) for process in processes]
    finally:
        for process in processes:
            process.kill()


def read(place):
    found = json.loads((place / "results.json").read_text())["categories"]["brick"]
    with open(place / "scores.csv", newline="") as file:
        scores = np.array([float(row["score"]) for row in csv.DictReader(file)])
    programs: dict[str, dict[str, list[int]]] = {}
    for path in (place / "programs").glob("*after_optimizations.txt"):
        name = re.search(r"\.jit_(\w+)\.", path.name)
        for kind, sizes in count_collectives(path.read_text()).items():
            programs.setdefault(name[1], {}).setdefault(kind, []).extend(sizes)
    model = saving.load(place / "models" / "brick").arrays
    return Ran(found, scores, model, programs)


def alone(place, num_devices, *flags) -> Ran:
    process = start(place, num_devices, *flags)
    ((_, errors),) = end([process])
    assert process.returncode == 0, errors[-3000:]
    return read(place)


def together(place, *flags, victim=None, moment="live"):
    """Two processes with four devices each, and what they printed."""
    cluster = (f"--coordinator_address=127.0.0.1:{free_port()}", "--num_processes=2")
    processes = [
        start(place, 4, *flags, *cluster, f"--process_id={i}",
              moment=moment if i == victim else "live")
        for i in range(2)
    ]  # fmt: skip
    return processes, end(processes)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return lambda name: tmp_path_factory.mktemp(name)


@pytest.fixture(scope="module")
def one(places):
    return alone(places("one"), 1, "--layers=fast")


@pytest.fixture(scope="module")
def eight(places):
    return alone(places("eight"), 8, "--layers=fast")


@pytest.fixture(scope="module")
def one_auto(places):
    return alone(places("one_auto"), 1, "--layers=auto")


def assert_same(found: Ran, expected: Ran):
    """But for ties at float32's rounding, which may change places in a bank."""
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4, atol=1e-4)
    for name in Metrics._fields:
        assert found.results[name] == pytest.approx(expected.results[name], abs=1e-4), name
    banks = [name for name in expected.model if name.endswith(".indices")]
    assert banks
    for name in banks:
        common = np.intersect1d(found.model[name], expected.model[name])
        assert len(common) >= 0.9 * len(np.unique(expected.model[name])), name


@pytest.mark.slow
def test_one_device_exchanges_nothing(one):
    assert one.programs == {}


@pytest.mark.slow
def test_eight_devices_find_what_one_finds(one, eight):
    assert_same(eight, one)
    np.testing.assert_array_equal(eight.model["[0].indices"], one.model["[0].indices"])


@pytest.mark.slow
def test_a_run_gathers_pools_and_never_the_patches(eight):
    # Embedding, scoring and maps exchange nothing.
    assert set(eight.programs) == {"start_over_patches", "advance_over_patches"}
    num_patches, features = 40 * 8 * 8, 344
    for collectives in eight.programs.values():
        assert set(collectives) == {"all-gather", "all-reduce"}
        assert set(collectives["all-reduce"]) <= {1, features}  # the mean, seen from which it is
    largest = max(eight.programs["advance_over_patches"]["all-gather"])
    assert largest == 8 * 256 * features < num_patches * features
    assert max(eight.programs["start_over_patches"]["all-gather"]) == 8 * features


@pytest.mark.slow
def test_a_bank_split_over_atoms_scores_the_same(one, places):
    split = alone(places("atoms"), 4, "--layers=fast", "--mesh=data=2,atoms=2", "--batch_size=4")
    assert_same(split, one)
    # Of the patches of a device's images, two in a batch and one where nulls are scored, the five
    # nearest atoms of either part, and what was chosen of them.
    patches = [2 * 64, 64]
    collectives = split.programs["score"]
    assert set(collectives) == {"all-gather", "all-reduce"}
    assert sorted(collectives["all-gather"]) == sorted(n * 2 * 5 for n in patches)
    assert sorted(collectives["all-reduce"]) == sorted(n * 5 * 344 for n in patches)


def test_a_bank_is_split_where_it_does_not_fit(monkeypatch):
    settings = config.resolve(config.Config(layers=("fast",)))
    bank = type("Bank", (), {"atoms": np.zeros((1000, 344), np.float32)})
    mesh = type("Mesh", (), {"size": 8})
    layout = devices.Layout(mesh, mesh, None)
    need = 4 * 1000 * (344 + 256)
    for free, parts in ((need, 1), (need - 1, 2), (need // 4, 4), (need // 100, 8)):
        monkeypatch.setattr(devices.memory, "available", lambda free=free: free)
        assert devices._fewest_parts(bank, settings, layout, 256) == parts
    whole = config.resolve(config.Config(layers=("fast",), solver="omp"))
    assert devices._fewest_parts(bank, whole, layout, 256) == 1


@pytest.mark.slow
def test_eight_devices_weigh_streams_as_one_does(one_auto, places):
    found = alone(places("eight_auto"), 8, "--layers=auto")
    assert_same(found, one_auto)
    assert set(found.programs) == {"start_over_patches", "advance_over_patches"}


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["fast", "auto"])
def test_two_processes_find_what_one_device_finds(layers, places, request):
    place = places(f"two_{layers}")
    processes, printed = together(place, f"--layers={layers}")
    assert [process.returncode for process in processes] == [0, 0], printed
    expected = request.getfixturevalue("one" if layers == "fast" else "one_auto")
    assert_same(read(place), expected)
    (first, _), (second, errors) = printed
    # Process 0 alone talks.
    assert "Written to" in first
    assert "Written to" not in second and "images/s" not in errors


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_run_and_is_named(places):
    """Other ways to fail, of processes that run no network: `test_processes`."""
    processes, printed = together(places("die"), "--layers=fast", victim=1, moment="die")
    assert [process.returncode for process in processes] == [1, -signal.SIGKILL]
    assert re.search(r"^process 1: has ended$", printed[0][1], re.MULTILINE), printed[0][1][-3000:]


@pytest.mark.parametrize(
    "text,expected",
    [("auto", (None, None)), ("1", (1, None)), ("8", (8, None)), ("data=4", (4, 1)),
     ("data=4,atoms=2", (8, 2)), ("data=1, atoms=2", (2, 2))],
)  # fmt: skip
def test_the_flag_is_read(text, expected):
    assert devices.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "two", "data=", "atoms=2", "data=2;atoms=2", "2x2"]
)
def test_what_the_flag_may_not_be(text):
    with pytest.raises(config.ConfigError, match=r"--mesh=.* must be auto, a number of devices"):
        devices.parse(text)


def test_one_device_needs_no_layout():
    settings = config.resolve(config.Config(layers=("fast",)))
    assert devices.lay_out("auto", settings) is None
    assert devices.lay_out("1", settings) is None
    assert devices.round_up(5, None) == 5
    compiled = devices.spread(lambda state, batch: state + batch, None)
    np.testing.assert_array_equal(compiled(np.ones(3), np.ones(3)), [2, 2, 2])
    assert "shard" not in compiled.lower(np.ones(3), np.ones(3)).as_text()


@pytest.mark.parametrize(
    "text,fields,message",
    [
        ("2", {}, "--mesh=2 needs 2 devices, and there are 1"),
        ("data=1,atoms=2", {}, "--mesh=data=1,atoms=2 needs 2 devices, and there are 1"),
    ],
)
def test_devices_that_are_not_there(text, fields, message):
    with pytest.raises(config.ConfigError, match=message):
        devices.lay_out(text, config.resolve(config.Config(layers=("fast",), **fields)))


@pytest.mark.parametrize(
    "fields,message",
    [
        ({}, "--layers=auto has a small bank for every level, so"),
        ({"layers": ("fast",), "solver": "omp"}, "omp codes over the whole bank, so"),
        ({"layers": ("fast",), "search": "reduced"}, "--search=reduced ranks the whole bank, so"),
    ],
)
def test_banks_that_cannot_be_split(fields, message, monkeypatch):
    monkeypatch.setattr(devices, "_by_process", lambda: {0: list(range(4))})
    with pytest.raises(config.ConfigError, match=message):
        devices.lay_out("data=2,atoms=2", config.resolve(config.Config(**fields)))
