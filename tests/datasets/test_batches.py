import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sgfr_jax import datasets
from sgfr_jax.datasets import batches, counts, images
from sgfr_jax.datasets.types import Encoded, Example
from tests.datasets import holding, reading, trees

ROOT = Path(__file__).parents[2]
SIZE = (12, 12)
READ = partial(images.read_example, size=12)


@pytest.fixture
def examples(tmp_path):
    """Files of many kinds: grey and colour, with and without masks, encoded, and bad ones."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(19):
        shape = (20 + i, 30) if i % 2 else (25, 20, 3)
        image, mask = tmp_path / f"{i}.png", None
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(image)
        if i % 3 == 0:
            mask = tmp_path / f"{i}_mask.png"
            Image.fromarray(rng.integers(0, 2, shape[:2], dtype=np.uint8) * 255).save(mask)
        source = Encoded(f"record {i}", partial(reading.file_bytes, image)) if i % 5 == 0 else image
        made.append(Example(f"{i}", source, int(i % 3 != 1), "bad", mask))
    for i in (4, 16):
        path = tmp_path / f"{i}.png"
        path.write_bytes(path.read_bytes()[:100])
    return made


def read(examples, read=READ, *, size=SIZE, batch_size=4, **kwargs):
    return batches.batches(examples, read, size=size, batch_size=batch_size, **kwargs)


def assert_same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        for x, y in zip(a[:-1], b[:-1], strict=True):
            assert x.dtype == y.dtype and type(x) is np.ndarray
            np.testing.assert_array_equal(x, y)
        assert list(map(str, a.errors)) == list(map(str, b.errors))
        assert list(map(type, a.errors)) == list(map(type, b.errors))


def children():
    """Worker processes, but not the tracker of shared memory, which stays."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie too
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def every_worker_ends():
    """However a test has left its batches."""
    yield
    wait_for(lambda: not children())


def test_rows_are_the_examples_in_order_with_errors_in_place(examples):
    found = list(read(examples))
    assert len(found) == 5
    indices = np.concatenate([batch.indices for batch in found])
    np.testing.assert_array_equal(indices, [*range(19), -1])
    for batch in found:
        assert batch.images.shape == (4, 12, 12, 3) and batch.masks.shape == (4, 12, 12)
        for i, index in enumerate(batch.indices):
            if index in (-1, 4, 16):
                assert not (batch.valid[i] or batch.masked[i])
                assert not (batch.images[i].any() or batch.masks[i].any())
                error = batch.errors[i]
                assert error is None if index < 0 else f"{index}.png" in str(error)
                continue
            image, mask = images.read_example(examples[index], 12)
            assert batch.valid[i] and batch.errors[i] is None
            np.testing.assert_array_equal(batch.images[i], image)
            assert batch.masked[i] == (mask is not None)
            np.testing.assert_array_equal(batch.masks[i], 0 if mask is None else mask)


def test_workers_give_the_same_batches_and_end_with_the_reading(examples):
    found = read(examples * 3, workers=2)
    first = list(islice(found, 5))
    assert children()
    found.close()  # in the middle; and then see `every_worker_ends`
    assert_same(first, list(islice(read(examples * 3), 5)))


def test_workers_read_prepared_records_a_share_and_a_shuffle(tmp_path, monkeypatch):
    monkeypatch.setattr(counts, "_is_short", lambda dataset, category: False)
    trees.mvtec(tmp_path / "mvtec")
    (files,) = datasets.load("mvtec", tmp_path / "mvtec")
    (category,) = datasets.load("mvtec", tmp_path / "mvtec", prepared_dir=tmp_path / "prepared")
    assert isinstance(category.test[0].image, Encoded)
    share = {"batch_size": 2, "shard": (1, 2), "seed": 5}
    found = list(read(category.test, workers=1, **share))
    assert any(batch.masks.any() for batch in found) and not found[-1].valid.all()
    assert_same(found, list(read(files.test, **share)))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 40), st.integers(1, 7), st.integers(1, 5), st.none() | st.integers(0, 9)
)  # fmt: skip
def test_shares_have_as_many_batches_and_each_example_once(num, batch_size, count, seed):
    pixels = [np.full((2, 2), i, np.uint8) for i in range(num)]
    examples = [Example(str(i), image, 0, "good", None) for i, image in enumerate(pixels)]
    sizes = {"size": (2, 2), "batch_size": batch_size, "seed": seed}
    read2 = partial(images.read_example, size=2)
    shares = [list(read(examples, read2, shard=(i, count), **sizes)) for i in range(count)]
    assert {len(share) for share in shares} == {-(-num // (batch_size * count))}
    together = [batch for at_a_time in zip(*shares, strict=True) for batch in at_a_time]
    assert_same(together[: -(-num // batch_size)], list(read(examples, read2, **sizes)))
    indices = np.concatenate([b.indices for b in together]) if together else np.zeros(0, int)
    valid = np.concatenate([b.valid for b in together]) if together else np.zeros(0, bool)
    np.testing.assert_array_equal(valid, np.arange(len(indices)) < num)
    assert (indices[~valid] == -1).all()
    order = list(range(num))
    assert sorted(indices[valid]) == order
    if seed is None:
        assert list(indices[valid]) == order
    for batch in together:
        np.testing.assert_array_equal(
            batch.images[batch.valid, 0, 0, 0], batch.indices[batch.valid]
        )


def test_a_seed_shuffles(examples):
    def order(seed):
        return [i for batch in read(examples, seed=seed) for i in batch.indices[batch.valid]]

    assert order(1) == order(1) != order(2)


def test_arrays_are_read_by_threads(examples):
    examples = [*examples, Example("array", np.zeros((20, 20), np.uint8), 0, "good", None)]
    found = read(examples, workers=2)
    next(found)
    assert not children()
    found.close()


def test_reading_ahead_is_bounded_and_stops_when_closed():
    started = []

    def count(example):
        started.append(example)
        return images.Loaded(np.zeros((2, 2, 3), np.uint8), None)

    example = Example("x", Path("x"), 0, "good", None)
    found = read([example] * 1000, count, size=(2, 2))
    for _ in range(10):
        next(found)
    found.close()
    assert len(started) <= 12 * 4


def test_no_examples():
    assert list(read([])) == list(read([], workers=1)) == []


def test_what_is_not_foreseen_is_raised(examples):
    with pytest.raises(ZeroDivisionError, match="not foreseen"):
        list(read(examples, reading.fail))


def test_a_worker_that_dies_ends_the_reading(examples):
    with pytest.raises(ChildProcessError, match=r"worker process .* has died \(.*-9"):
        list(read(examples, reading.die, workers=2))


def test_another_size_than_announced(examples):
    with pytest.raises(ValueError, match=r"\(12, 12, 3\), not \(12, 13, 3\)"):
        list(read(examples, size=(12, 13)))


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"workers": -1}, {"shard": (2, 2)}, {"shard": (-1, 2)}]
)
def test_arguments_out_of_range(wrong):
    with pytest.raises(ValueError, match="must be at least 1"):
        read([], **wrong)


def test_shared_memory_that_is_too_small(examples, monkeypatch):
    monkeypatch.setattr(
        batches.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})
    )
    with pytest.raises(OSError, match=r"has 0 MB free .* fewer workers"):
        read(examples, workers=2)
    assert len(list(read(examples))) == 5


def test_threads_import_no_grain_and_workers_no_tensorflow(examples):
    """And either raises what is not foreseen, and leaves nothing to be said at the end."""
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from sgfr_jax.datasets import Example, batches
        from tests.datasets import reading
        examples = [Example(name, Path(sys.argv[1]), 0, "good", None) for name in ("x", "7")]
        if __name__ == "__main__":
            for workers in (0, 1):
                how = {"size": (12, 12), "batch_size": 1, "workers": workers}
                loaded = batches.batches(examples, reading.fail, **how)
                assert next(loaded).valid.all()
                assert ("grain" in sys.modules) == bool(workers)
                try:
                    next(loaded)
                except ZeroDivisionError as error:
                    print(error)
            assert "tensorflow" not in sys.modules
    """)
    done = run_script(script, Path(examples[1].image)).communicate(timeout=60)
    assert done == ("not foreseen\n" * 2, "")


SLOW = """
    import sys, time
    from pathlib import Path
    from sgfr_jax.datasets import Example, batches, images
    import numpy as np

    def read(example):
        time.sleep(0.02)
        return images.Loaded(np.zeros((8, 8, 3), np.uint8), None)

    if __name__ == "__main__":
        from sgfr_jax.commands.host import interruption
        interruption.exit_at_once(batches.end_workers)
        example = Example("x", Path("x"), 0, "good", None)
        workers = int(sys.argv[2])
        sizes = {"size": (8, 8), "batch_size": 4}
        loaded = batches.batches([example] * 10**5, read, **sizes, workers=workers)
        for batch in loaded:
            print("read", flush=True)
"""


def run_script(script, *arguments):
    path = Path(arguments[0]).parent / "script.py"
    path.write_text(textwrap.dedent(script))
    return subprocess.Popen(
        [sys.executable, path, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a shell's job
    )


def shared_memory():
    """Names of what processes share, but for the semaphores of joblib, which is not used here."""
    return {name for name in os.listdir("/dev/shm") if not name.startswith("sem.loky")}


@pytest.mark.parametrize(
    ("number", "early", "workers"),
    [(signal.SIGINT, True, 2), (signal.SIGINT, False, 2), (signal.SIGKILL, False, 1)],
)  # each worker finds by itself that its parent is gone
def test_no_worker_outlives_its_parent(tmp_path, number, early, workers):
    process = run_script(SLOW, tmp_path / "x", str(workers))
    parent = psutil.Process(process.pid)
    if early:  # while the workers still import
        wait_for(lambda: len(parent.children()) == workers + 1)
    else:
        assert process.stdout.readline() == "read\n"
    started = parent.children(recursive=True)
    assert len(started) == workers + 1  # and the tracker
    before = shared_memory()
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal sends it: to all
    else:
        os.kill(process.pid, number)
    _, errors = process.communicate(timeout=30)  # ends when the last that holds the pipe has ended
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    psutil.wait_procs(started, timeout=30)
    assert not any(child.is_running() for child in started)
    wait_for(lambda: not shared_memory() - before)  # tests beside this one have some, too
    if number == signal.SIGINT:
        assert errors == (
            "\ninterrupted: the same command goes on after the last finished category\n"
        )


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no /dev/shm")
def test_what_a_killed_worker_had_not_told_of_is_removed():
    path = Path("/dev/shm") / f"psm_test_{os.getpid()}"
    context = multiprocessing.get_context("spawn")
    opened = context.Event()
    worker = context.Process(target=holding.hold, args=(path, opened))
    worker.start()
    assert opened.wait(60) and path.exists()
    batches.end_workers()
    worker.join(30)
    assert worker.exitcode == -signal.SIGKILL and not path.exists()
