import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import pipeline, samplers, types
from tests.sharding import one_of_two


def run(victim=-1):
    """Return codes and outputs of two processes, and when they had ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    began = time.monotonic()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.sharding.one_of_two", str(port), str(i), str(victim)],
            env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], outputs, time.monotonic() - began


@pytest.mark.slow
def test_two_processes_find_what_one_device_finds():
    codes, outputs, _ = run()
    assert codes == [0, 0], [errors[-2000:] for _, errors in outputs]
    (indices, radius, first), (indices_too, radius_too, second) = (
        json.loads(out.splitlines()[-1]) for out, _ in outputs
    )
    points = jnp.asarray(one_of_two.points())
    selection = samplers.greedy_k_center(jax.random.key(3), points, jnp.ones(1600), 60)
    bank = types.make_bank(points, selection)
    assert indices == indices_too == selection.indices.tolist()
    expected_radius = float(jnp.sqrt(jnp.max(selection.distances)))
    assert radius == radius_too == pytest.approx(expected_radius, abs=1e-5)
    score = jax.jit(partial(pipeline.score, code=one_of_two.CODE))
    np.testing.assert_allclose([*first, *second], score(bank, points), atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_other_which_says_so(victim):
    codes, outputs, seconds = run(victim)
    errors = outputs[1 - victim][1]
    assert codes[victim] == -signal.SIGKILL and codes[1 - victim] != 0
    assert seconds < 120  # a limit of the promise, of which the short heartbeat needs a tenth
    if victim == 0:  # the coordinator: whoever it led is told that it is gone
        assert "leader task" in errors
    else:
        assert "tasks are unhealthy (stopped sending heartbeats)" in errors
        # The next line of the service's message has the numbers of the processes.
        after = errors.split("stopped sending heartbeats):")[1].splitlines()
        assert after[1].strip().startswith("1")
