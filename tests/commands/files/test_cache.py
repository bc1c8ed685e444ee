import importlib
import itertools
import os
import sys
import time

import numpy as np
import pytest

from sgfr_jax import unfinished
from sgfr_jax.commands.files import cache
from tests.test_unfinished import name_of_the_dead

LIMIT = 10**9


def blocks(array, size=3):
    return (array[i : i + size] for i in range(0, len(array), size))


def store(directory, name, array, limit=LIMIT):
    passed = cache.write_through(directory, name, array.shape, blocks(array), limit)
    return np.concatenate(list(passed))


def read(directory, name):
    found = cache.read(directory, name, 3)
    return None if found is None else np.concatenate(list(found))


@pytest.fixture
def array(rng):
    return rng.normal(size=(8, 4, 5)).astype(np.float32)


def test_what_is_stored_comes_back(tmp_path, array):
    assert read(tmp_path, "a") is None and not cache.holds(tmp_path, "a")
    np.testing.assert_array_equal(store(tmp_path, "a", array), array)
    assert cache.holds(tmp_path, "a")
    np.testing.assert_array_equal(read(tmp_path, "a"), array)
    assert len(list(tmp_path.iterdir())) == 1


def test_an_entry_appears_when_it_is_whole(tmp_path, array):
    passed = cache.write_through(tmp_path, "a", array.shape, blocks(array), LIMIT)
    for _ in itertools.islice(passed, 2):
        assert not cache.holds(tmp_path, "a")
    passed.close()  # as an exception in its consumer does
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_what_is_stored_leaves_nothing(tmp_path, array):
    def failing():
        yield array[:3]
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        list(cache.write_through(tmp_path, "a", array.shape, failing(), LIMIT))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", [0, 20, 200, -6, -1])
def test_a_damaged_entry_is_found_and_removed(tmp_path, array, where, capsys):
    store(tmp_path, "a", array)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[where] ^= 0xFF
    path.write_bytes(content)
    assert read(tmp_path, "a") is None
    assert "is damaged" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize("size", [0, 5, 100, 500])
def test_a_truncated_entry_is_found_and_removed(tmp_path, array, size):
    store(tmp_path, "a", array)
    (path,) = tmp_path.iterdir()
    os.truncate(path, size)
    assert read(tmp_path, "a") is None
    assert not path.exists()


def test_an_entry_that_is_evicted_while_it_is_read(tmp_path, array):
    store(tmp_path, "a", array)
    found = cache.read(tmp_path, "a", 3)
    next(tmp_path.iterdir()).unlink()
    np.testing.assert_array_equal(np.concatenate(list(found)), array)


def test_the_longest_unused_go_first(tmp_path, array):
    """Of entries: files of others with their suffix are none."""
    a, b, c, d = (letter * 64 for letter in "abcd")
    mine = ("mine", "a" * 63, "A" * 64, f"x{a}")
    for i, name in enumerate((*mine, a, b, c)):
        store(tmp_path, name, array)
        path = tmp_path / f"{name}.embeddings"
        os.utime(path, (1000 + i, 1000 + i))
    size = path.stat().st_size
    read(tmp_path, a)  # used again
    store(tmp_path, d, array, limit=int(3.5 * size))
    assert {name for name in (*mine, a, b, c, d) if cache.holds(tmp_path, name)} == {
        *mine, a, c, d
    }  # fmt: skip


def test_an_entry_larger_than_the_limit_is_passed_on_and_not_stored(tmp_path, array):
    np.testing.assert_array_equal(store(tmp_path, "a", array, limit=10), array)
    assert list(tmp_path.iterdir()) == []


def test_what_is_being_stored_can_be_removed_at_once(tmp_path, array):
    store(tmp_path, "kept", array)
    passed = cache.write_through(tmp_path, "a", array.shape, blocks(array), LIMIT)
    next(passed)
    other = tmp_path / f".b.{os.getpid()}.unfinished"  # of another host's process
    other.write_bytes(b"half")
    cache.remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"kept.embeddings", other.name}


def test_a_directory_that_cannot_be_written_stops_nothing(tmp_path, array, capsys):
    (tmp_path / "file").write_text("")
    np.testing.assert_array_equal(store(tmp_path / "file", "a", array), array)
    assert "going on without storing" in capsys.readouterr().err


def test_what_a_killed_process_left_is_removed_in_the_end(tmp_path, array):
    old, new = name_of_the_dead("0" * 64), unfinished.name_for("1" * 64)
    others = (".bashrc", ".mine.unfinished", ".mine.1.unfinished")
    for name, age in ((old, 10), (new, 10), *((name, 10**6) for name in others)):
        path = tmp_path / name
        path.write_bytes(b"half an entry")
        os.utime(path, (time.time() - age,) * 2)
    store(tmp_path, "a", array)
    assert not (tmp_path / old).exists()
    assert all((tmp_path / name).exists() for name in (new, *others))


@pytest.mark.parametrize(
    "environment, directory",
    [
        ({"HOME": "/home/me"}, "/home/me/.cache/sgfr_jax"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": "/caches"}, "/caches/sgfr_jax"),
        ({}, ""),  # nor in the system's list of users, of whom containers may have none
    ],
)
def test_where_the_cache_lies(monkeypatch, environment, directory):
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache.default_directory() == directory


def test_the_key_depends_on_every_part():
    keys = {cache.key(a=1, b=2), cache.key(a=2, b=2), cache.key(a=1, b=3), cache.key(a=1)}
    assert len(keys) == 4
    assert cache.key(a=1, b=2) == cache.key(b=2, a=1)


def make_package(directory, **sources):
    root = directory / "made_for_a_test"
    root.mkdir(parents=True, exist_ok=True)
    for name, source in sources.items():
        (root / f"{name}.py").write_text(source)


def digest_of(directory, name, monkeypatch):
    """The digest in a process that starts now, as far as this one can play it."""
    monkeypatch.syspath_prepend(directory)
    for module in [name for name in sys.modules if name.startswith("made_for_a_test")]:
        del sys.modules[module]
    importlib.invalidate_caches()
    return cache.source_digest.__wrapped__(importlib.import_module(name))


@pytest.mark.parametrize("edited, package, module", [
    ({}, False, False),
    ({"first": "x = 2"}, True, True),
    ({"second": "# a comment"}, True, False),
    ({"third": ""}, True, False),
])  # fmt: skip
def test_the_source_counts(tmp_path, monkeypatch, edited, package, module):
    sources = {"__init__": "", "first": "x = 1", "second": "y = 1"}
    make_package(tmp_path / "before", **sources)
    make_package(tmp_path / "after", **sources | edited)
    for name, changes in (("made_for_a_test", package), ("made_for_a_test.first", module)):
        before, after = (digest_of(tmp_path / x, name, monkeypatch) for x in ("before", "after"))
        assert (before != after) == changes


def test_the_source_of_functions_counts():
    assert cache.source_digest(blocks) == cache.source_digest(blocks)
    assert cache.source_digest(blocks) != cache.source_digest(blocks, store)
    assert cache.source_digest(blocks, store) != cache.source_digest(store, blocks)


def test_files_are_kept_within_a_limit(tmp_path):
    for i in range(4):
        path = tmp_path / f"{i}"
        path.write_bytes(bytes(100))
        os.utime(path, (1000 + i, 1000 - i))  # used last, changed last: the later counts
    absent = tmp_path / "removed by another process"
    cache.keep_within(250, [*tmp_path.iterdir(), absent])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]
