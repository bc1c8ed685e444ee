"""Every file that is read back, damaged in all ways: a message, or what was written."""

import dataclasses
import json
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

from sgfr_jax import saving
from sgfr_jax.commands.files import cache, frozen, records
from sgfr_jax.commands.flags import config
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.host import compilation
from sgfr_jax.commands.pages import page, review
from sgfr_jax.commands.sweeping import collection
from sgfr_jax.detector import saved
from tests.commands.files import test_records
from tests.detector import made_models

VALUES = (None, True, 0, -1, 11, 1e308, "", "x" * 99, [], {}, [[]], {"a": 1}, "\ud800", "../..")
SELF = "digest-of-cap"


def damages(data, rng, num):
    """A file's bytes with flipped bits, cut off, overwritten, doubled, or with another digit."""
    digits = [i for i, byte in enumerate(data) if byte in b"0123456789"]
    for _ in range(num):
        changed = bytearray(data)
        for place in rng.integers(len(data), size=rng.integers(1, 4)):
            changed[place] ^= 1 << rng.integers(8)
        yield bytes(changed)
        cut = int(rng.integers(len(data)))
        yield data[:cut]
        yield data[:cut] + bytes(len(data) - cut)
        yield data[:cut] + rng.bytes(4) + data[cut:]
        if digits:
            place = digits[rng.integers(len(digits))]
            changed = bytearray(data)
            changed[place] = ord("9") - changed[place] + ord("0")
            yield bytes(changed)
    yield from (b"", b"null", b"{}", b"[]", data + data, b"\xff" * 9, bytes(len(data)))


def edits(data, rng, num):
    """The text of a JSON file with another value, without a name, or with a strange one."""
    whole = json.loads(data)
    for _ in range(num):
        changed = json.loads(data)
        where, name = _somewhere(changed, rng)
        value = VALUES[rng.integers(len(VALUES))]
        if isinstance(where, dict) and rng.integers(4) == 0:
            where[f"{name}x"] = where.pop(name)
        else:
            where[name] = value
        if changed != whole or repr(changed) != repr(whole):
            yield json.dumps(changed).encode()


def _somewhere(content, rng):
    """A container and a name or place in it, of all depths."""
    while True:
        names = list(content) if isinstance(content, dict) else range(len(content))
        name = names[rng.integers(len(names))]
        inner = content[name]
        if not isinstance(inner, dict | list) or not inner or rng.integers(3) == 0:
            return content, name
        content = inner


def check(path, read, rng, num=25, same=None, edited=True):
    """Reads a file after every damage: `read` gives None or raises a message, or what it gave."""
    data, path = Path(path).read_bytes(), Path(path)
    wanted = repr(read()) if same is None else same(read())
    found = list(damages(data, rng, num))
    if edited:
        found += edits(data, rng, 2 * num)
    for changed in found:
        path.write_bytes(changed)
        try:
            outcome = read()
        except (ConfigError, saving.SavingError) as error:
            assert path.name in str(error) or "models/cap" in str(error), error
            assert len(str(error).splitlines()) == 1
            continue
        finally:
            path.write_bytes(data)
        if outcome is not None:
            assert (repr(outcome) if same is None else same(outcome)) == wanted, changed[:200]


def test_cache_entries(tmp_path, rng, capsys):
    array = rng.normal(size=(8, 3, 4)).astype(np.float32)
    list(cache.write_through(tmp_path, "a", array.shape, iter([array]), 10**9))
    (path,) = tmp_path.iterdir()

    def read():
        found = cache.read(tmp_path, "a", 3)
        return None if found is None else np.concatenate(list(found)).tolist()

    check(path, read, rng, num=150, edited=False)
    header = path.read_bytes()
    for place in range(8 * 128):  # every bit of the header
        changed = bytearray(header)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        assert read() is None and not path.exists()  # made again


def test_compiled_programs(tmp_path, rng, capsys):
    path = tmp_path / "jit_score-0123-cache"
    path.write_bytes(zlib.compress(rng.bytes(900)))
    program = zlib.decompress(path.read_bytes())

    def read():
        compilation._remove_damaged([path])
        return zlib.decompress(path.read_bytes()) if path.exists() else None

    check(path, read, rng, num=100, edited=False)
    path.write_bytes(zlib.compress(program)[:-1])
    assert read() is None and "is damaged: made again" in capsys.readouterr().err


@pytest.fixture
def choice():
    row = {"point": "a", "criterion": 0.5, "categories": {"cap": {"aupro": 0.25}}}
    return frozen.Choice("a", {"layers": ["fast"]}, [row], "the question", "the test set")


def test_records_of_a_run(tmp_path, rng):
    kept = test_records.record("cap", 0.75)
    records.keep(tmp_path, kept)
    check(tmp_path / "unfinished" / f"{SELF}.json", lambda: records.kept(tmp_path, SELF), rng)


def test_a_choice(tmp_path, rng, choice):
    frozen.keep(tmp_path, choice)
    check(tmp_path / "chosen.json", lambda: frozen.kept(tmp_path, "the question"), rng)
    test_records.finish(tmp_path / "test", [test_records.record("cap", 0.75)])
    check(tmp_path / "test" / "results.json", lambda: frozen.scored(tmp_path), rng)
    (tmp_path / "chosen.json").write_bytes(b"{")
    with pytest.raises(ConfigError, match=r"chosen\.json is damaged .* restore the file, or give"):
        frozen.kept(tmp_path, "the question")  # which would be scored a second time


def test_what_was_validated(tmp_path, rng):
    frozen.keep_validated(tmp_path, "the question", {"cap": {"aupro": 0.25, "pixel_ap": None}})
    read = lambda: frozen.validated(tmp_path, "the question")  # noqa: E731
    check(tmp_path / "validated.json", read, rng)


def test_records_of_a_sweep(tmp_path, rng):
    workdir, kept = epath.Path(tmp_path), test_records.record("cap", 0.75)
    collection.open_workdir(workdir)
    collection.keep(workdir, kept)

    def read():
        found, damaged = collection.load_some(workdir, [SELF])
        assert bool(found) != bool(damaged)
        assert len(collection.load_all(workdir)[0]) == len(found)
        return found.get(SELF)

    check(tmp_path / "records" / f"{SELF}.json", read, rng)


def test_results_of_a_run(tmp_path, rng):
    """What the page of `experiments.report` shows."""
    made = test_records.record("cap", 0.75)
    images = [made.images[0], made.images[0] | {"file": "=b.png", "label": 0, "kind": "good"}]
    results = made.results | {"seconds": made.results["seconds"] | {"calibrate": 0.0}}
    made = dataclasses.replace(made, images=images, results=results)
    (tmp_path / "review").mkdir()
    settings = {"solver": "affine_ridge", "dataset": "folder", "backbone": "a"}
    records.finish(tmp_path, [made], settings, {})
    review.save(tmp_path, "cap", made.results, review.Selection(1), {"affine_ridge": None})
    read = lambda: page.of_run(tmp_path)  # noqa: E731
    assert read()["categories"][0]["files"] == ["a.png", "=b.png"]
    assert read()["categories"][0]["reviewed"]
    for name in ("results.json", "scores.csv"):
        check(tmp_path / name, read, rng, edited=name.endswith("json"))
    # Without what is damaged the page is one of a run that keeps no pictures.
    path = tmp_path / "review" / "cap.json"
    for changed in damages(path.read_bytes(), rng, 25):
        data = path.read_bytes()
        path.write_bytes(changed)
        read()
        path.write_bytes(data)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    made = made_models.make(config.resolve(config.Config.of(layers=("fast",), bank_size=12)))
    path = tmp_path_factory.mktemp("made") / "models" / "cap"
    saved.save(path, made)
    return path


def _leaves(found):
    arrays = [x.tobytes() for x in jax.tree.leaves(found)]
    return arrays, found.method, found.network, found.about


def test_models(model, rng):
    read = lambda: saved.load(model)  # noqa: E731
    check(model / "model.json", read, rng, num=60, same=_leaves)
    for path in (path for path in (model / "arrays").rglob("*") if path.is_file()):
        if path.stat().st_size:
            check(path, read, rng, num=4, same=_leaves, edited=False)


def test_files_that_are_missing_or_directories(model):
    for path in [path for path in model.rglob("*") if path.is_file()]:
        moved = path.rename(path.with_name("moved"))
        for there in (False, True):
            if there:
                path.mkdir()
            with pytest.raises(saving.SavingError):
                saved.load(model)
        path.rmdir()
        moved.rename(path)
    saved.load(model)
