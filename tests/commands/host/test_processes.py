import re
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.host import processes
from sgfr_jax.commands.host.processes import Cluster

NOTHING = Cluster()
SLURM = {"SLURM_STEP_NODELIST": "a,b", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}


@pytest.mark.parametrize(
    "environment,together",
    [
        ({}, False),
        (SLURM, True),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, False),  # `srun -n 1` in a job of two tasks
        ({"SLURM_NTASKS": "2"}, False),  # the script that calls `srun`
        ({"OMPI_MCA_orte_hnp_uri": "1.0;tcp://a:1", "OMPI_COMM_WORLD_SIZE": "4"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c,d"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
    ],
)
def test_a_cluster_is_found_in_the_environment(environment, together):
    assert (processes.find(NOTHING, "auto", environment) == NOTHING) is together
    assert processes.find(NOTHING, "never", environment) is None
    assert processes.find(NOTHING, "always", environment) == NOTHING


def test_flags_name_a_cluster():
    given = Cluster("10.0.0.1:1234", 2, 0)
    assert processes.find(given, "auto", {}) == given
    assert processes.find(given, "never", SLURM) == given


@pytest.mark.parametrize(
    "given,message",
    [
        (Cluster("a:1", 2, None), "--coordinator_address, --num_processes and --process_id go tog"),
        (Cluster(None, None, 0), "--coordinator_address, --num_processes and --process_id go tog"),
        (Cluster("a", 2, 0), "--coordinator_address=a must be HOST:PORT"),
        *(
            (Cluster(address, 2, 0), "must be HOST:PORT")
            for address in ("a:-1", "a:0", "a:65536", "a:b", ":1", ":", "[::", "a:٣")
        ),
        (Cluster("a:1", 2, 2), "--process_id=2 from 0 to below --num_processes=2"),
    ],
)
def test_what_flags_must_name(given, message):
    with pytest.raises(ConfigError, match=message):
        processes.find(given, "auto", {})


@pytest.mark.parametrize("num", [0, 1, 5, 12, 13])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_thing_is_seen_to_once(num, count, monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: count)
    shares, dealt = [], []
    for index in range(count):
        monkeypatch.setattr(processes, "index", lambda index=index: index)
        shares.append(list(processes.share(num)))
        dealt.append(processes.deal(num, 3))
    assert [i for own in shares for i in own] == list(range(num))
    assert max(map(len, shares)) <= -(-num // count)
    # A batch of each process after the other, round after round.
    rounds = -(-num // (3 * count))
    in_step = [i for r in range(rounds) for own in dealt for i in own[3 * r : 3 * r + 3]]
    assert in_step == list(range(num))


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# What JAX says where process 0 has ended or does not answer, and where it has not heard of 1.
GONE = (
    r"leader task was preempted/died|DEADLINE_EXCEEDED[^/]*/xla.coordination\S*/Heartbeat",
    r"tasks are unhealthy \(stopped sending heartbeats\):\n1\n",
)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize(
    "moment,words",
    [("mistake", "error: this image is bad"), ("crash", "RuntimeError: something odd")],
)
def test_a_process_that_fails_says_why_and_is_named_by_the_other(victim, moment, words):
    codes, errors = together(*(moment if i == victim else "exchange" for i in range(2)))
    assert codes[victim] == 1
    assert errors[victim].splitlines()[-1] == f"process {victim}: {words}"
    assert ("Traceback" in errors[victim]) is (moment == "crash")
    assert codes[1 - victim] == -signal.SIGABRT
    assert re.search(GONE[victim], errors[1 - victim]), errors[1 - victim]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize(
    "moment,other", [("die", "exchange"), ("die", "compute"), ("hang", "exchange")]
)
def test_a_process_that_is_not_heard_of_is_named(victim, moment, other):
    codes, errors = together(*(moment if i == victim else other for i in range(2)))
    assert codes == [-signal.SIGKILL if i == victim else -signal.SIGABRT for i in range(2)]
    assert re.search(GONE[victim], errors[1 - victim]), errors[1 - victim]


def together(*moments):
    """How processes end, one for each moment, and what they print as errors.

    Those that hang are killed when the others have ended.
    """
    address = f"127.0.0.1:{free_port()}"
    module = "tests.commands.host.failing_together"
    started = [
        subprocess.Popen(
            [sys.executable, "-m", module, address, str(len(moments)), str(i), moment],
            stderr=subprocess.PIPE, text=True,
        )
        for i, moment in enumerate(moments)
    ]  # fmt: skip
    errors = {}
    try:
        for i in sorted(range(len(moments)), key=lambda i: moments[i] == "hang"):
            if moments[i] == "hang":
                started[i].kill()
            errors[i] = started[i].communicate(timeout=120)[1]
    finally:
        for process in started:
            process.kill()
    return [process.returncode for process in started], errors


@pytest.mark.slow
def test_a_process_whom_the_others_do_not_meet_says_so():
    code = (
        "from sgfr_jax.commands.host import processes; processes.MEETING_SECONDS = 2;"
        f"processes.join(processes.Cluster('127.0.0.1:{free_port()}', 2, 0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 1
    assert "error: the processes of the run have not met within 2 seconds" in done.stderr


def test_a_cluster_of_one_process_ends_as_one_alone():
    code = (
        "from sgfr_jax.commands.host import processes;"
        f"processes.join(processes.Cluster('127.0.0.1:{free_port()}', 1, 0));"
        "assert processes.joined([1]) == [1]; processes.leave()"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


def test_one_process_has_all_there_is():
    assert (processes.count(), processes.index(), processes.first()) == (1, 0, True)
    assert processes.joined((1, 2)) == [1, 2]
    rows = np.arange(3)
    assert processes.concatenated(rows) is rows
    assert processes.agreed(rows) is rows
    assert processes.first_then_others(lambda: 7) == 7
    processes.leave()
    for end in (KeyError, SystemExit):
        with pytest.raises(end), processes.ending_together():
            raise end("error: a mistake")
