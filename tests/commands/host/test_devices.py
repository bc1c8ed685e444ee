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

import jax
import numpy as np
import pytest

from sgfr_jax import saving
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.host import devices, machine
from sgfr_jax.detector import services
from sgfr_jax.metrics import Metrics
from tests.commands.host.test_processes import GONE, free_port
from tests.sharding.eight_devices import count_collectives

# The indices of the first solver's bank, in a saved model.
BANK = "[0].looks[0].banks[0].indices"
SECONDS = 400  # of a loaded machine; a run takes about ten


class Ran(NamedTuple):
    results: dict[str, Any]
    scores: np.ndarray
    model: dict[str, np.ndarray]
    programs: dict[str, dict[str, list[int]]]  # name to its collectives


def start(place, num_devices, *flags, moment="live"):
    """A run that leaves its results, and its programs, in a directory."""
    xla = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={num_devices}"
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
    np.testing.assert_array_equal(eight.model[BANK], one.model[BANK])


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
    assert [process.returncode for process in processes] == [-signal.SIGABRT, -signal.SIGKILL]
    errors = printed[0][1]
    assert re.search(GONE[1], errors), errors[-3000:]
    assert "Fatal Python error" not in errors  # nor the stacks of all threads that follow it


@pytest.mark.parametrize("text,expected", [("auto", None), ("1", 1), ("8", 8)])
def test_the_flag_is_read(text, expected):
    assert devices.parse(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1", "two", "2x2", "data=4", "data=4,atoms=2"])
def test_what_the_flag_may_not_be(text):
    with pytest.raises(ConfigError, match=r"--mesh=.* must be auto, or a number of devices"):
        devices.parse(text)


def test_one_device_needs_no_layout(tmp_path):
    assert devices.lay_out("auto") is None
    assert devices.lay_out("1") is None
    found = machine.services(machine.Resources(tmp_path, batch_size=5))
    assert found.batch_size == 5
    assert found.compile is services.PLAIN.compile


def test_devices_that_are_not_there():
    with pytest.raises(ConfigError, match=r"--mesh=2 needs 2 devices, and there are 1"):
        devices.lay_out("2")


def test_processes_that_jax_alone_knows_of(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"JAX sees 2 processes .* add --distributed=always"):
        devices.lay_out("auto")
