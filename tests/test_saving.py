import json
import os
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import saving, types, unfinished
from tests.test_unfinished import name_of_the_dead


class State(NamedTuple):
    banks: tuple[types.Bank, ...]
    mean: jax.Array
    nothing: np.ndarray


def make_state(rng, num=3):
    bank = types.Bank(
        jnp.asarray(rng.normal(size=(6, 4)), jnp.float32),
        jnp.ones(6, jnp.float32),
        jnp.arange(6, dtype=jnp.int32),
    )
    return State((bank,) * num, np.float32(2.5), np.zeros((0, 3), np.int64))


@pytest.fixture
def saved(rng, tmp_path):
    state = make_state(rng)
    saving.save(tmp_path / "model", state, {"category": "cap", "layers": ["a"]})
    return tmp_path / "model", state


def test_what_is_loaded_is_what_was_saved(saved):
    path, state = saved
    found = saving.load(path)
    assert found.description == {"category": "cap", "layers": ["a"]} == saving.describe(path)
    restored = saving.restore(jax.tree.map(lambda x: 0, state), found.arrays)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for before, after in zip(*map(jax.tree.leaves, (state, restored)), strict=True):
        np.testing.assert_array_equal(before, after)
        assert np.asarray(before).dtype == after.dtype and np.shape(before) == after.shape
    assert [p.name for p in path.parent.iterdir()] == ["model"]


def test_a_copy_elsewhere_is_the_same(saved, tmp_path):
    path, _ = saved
    shutil.move(path, tmp_path / "far" / "away")
    assert saving.load(tmp_path / "far" / "away").description["category"] == "cap"


def test_another_model_takes_its_place(saved, rng):
    path, _ = saved
    saving.save(path, make_state(rng, 1), {"category": "nut"})
    found = saving.load(path)
    assert found.description == {"category": "nut"} and len(found.arrays) == 5
    assert [p.name for p in path.parent.iterdir()] == ["model"]


def test_what_is_not_the_models_moves_to_its_successor(saved, rng):
    path, _ = saved
    mine = ("notes.txt", "arrays/notes.txt", "predictions/scores.csv", "linked/a.png")
    (path.parent / "far").mkdir()
    (path.parent / "far" / "a.png").write_text("mine")
    (path / "linked").symlink_to(path.parent / "far")
    for name in mine:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("mine")
    for category in ("nut", "cap"):
        saving.save(path, make_state(rng, 1), {"category": category})
        assert saving.load(path).description == {"category": category}
        assert all((path / name).read_text() == "mine" for name in mine)
    assert (path / "linked").is_symlink()
    assert sorted(p.name for p in path.parent.iterdir()) == ["far", "model"]


def test_what_does_not_say_what_it_consists_of_is_kept_beside(saved, rng):
    """Models of earlier versions, and damaged ones."""
    path, _ = saved
    whole = json.loads((path / "model.json").read_text())
    whole["format_version"] = 1
    (path / "model.json").write_text(json.dumps(whole))
    saving.save(path, make_state(rng, 1), {"category": "nut"})
    (old,) = path.parent.glob(".old.model.*")
    kept = json.loads((old / "model.json").read_text())
    assert kept["description"]["category"] == "cap" and list((old / "arrays").iterdir())
    assert saving.load(path).description == {"category": "nut"}


def test_what_a_link_leads_to_is_left_alone(saved, rng):
    path, _ = saved
    (path / "notes.txt").write_text("mine")
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    link = path.with_name("current")
    link.symlink_to(path)
    with pytest.raises(saving.SavingError, match=r"current' is a link: name the directory"):
        saving.save(link, make_state(rng, 1), {"category": "nut"})
    assert link.is_symlink() and saving.load(link).description["category"] == "cap"
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


def test_what_is_no_model_is_not_overwritten(rng, tmp_path):
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "mine.png").write_bytes(b"dear to me")
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "model.json").write_text('{"format": "layers-model"}')
    for name in ("photographs", "file", "link", "keras"):
        why = "is a link: name the directory" if name == "link" else "is in the way"
        with pytest.raises(saving.SavingError, match=why):
            saving.save(tmp_path / name, make_state(rng), {})
    assert (tmp_path / "photographs" / "mine.png").read_bytes() == b"dear to me"
    (tmp_path / "empty").mkdir()
    saving.save(tmp_path / "empty", make_state(rng), {})


def test_an_interrupted_save_leaves_the_old_model(saved, rng, monkeypatch):
    path, _ = saved

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(saving.Path, "write_text", fail)
    with pytest.raises(KeyboardInterrupt):
        saving.save(path, make_state(rng), {"category": "nut"})
    monkeypatch.undo()
    assert saving.load(path).description["category"] == "cap"
    assert [p.name for p in path.parent.iterdir()] == ["model"]


def test_a_rename_that_fails_puts_the_old_model_back(saved, rng, monkeypatch):
    path, _ = saved
    replace, failed = saving.os.replace, []

    def fail(source, target):
        if target == path and not failed:
            failed.append(source)
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(saving.os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        saving.save(path, make_state(rng), {"category": "nut"})
    monkeypatch.undo()
    assert saving.load(path).description["category"] == "cap"


def test_a_disk_that_is_full(saved, rng, monkeypatch):
    """TensorStore does not raise what the system does."""
    path, _ = saved

    def full(*args, **kwargs):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing 'a': No space left on device [28]")

    monkeypatch.setattr(saving, "_checkpointer", full)
    message = r"no model can be written in '.*' \(No space left on device \[28\]\): make room"
    with pytest.raises(saving.SavingError, match=message):
        saving.save(path, make_state(rng), {"category": "nut"})
    monkeypatch.undo()
    assert saving.load(path).description["category"] == "cap"
    assert [p.name for p in path.parent.iterdir()] == ["model"]


def test_what_a_killed_save_left_goes_with_the_next(saved, rng):
    path, _ = saved
    new = saving._beside(path)[0]
    own = unfinished.name_for(new)  # of an earlier process that had this one's number
    cut, live = name_of_the_dead(new), own.replace(f".{os.getpid()}.", f".{os.getppid()}.")
    for left in map(path.with_name, (own, cut, live, ".new.model.mine")):
        (left / "arrays").mkdir(parents=True)
    saving.check_place(path)
    assert {p.name for p in path.parent.iterdir()} == {"model", live, ".new.model.mine"}


def test_what_was_being_replaced_comes_back(saved):
    """Killed between the two renames, whoever asks for the place next finds the old model."""
    path, _ = saved
    moved = path.with_name(name_of_the_dead(saving._beside(path)[1]))
    path.rename(moved)
    saving.check_place(path)
    assert saving.load(path).description["category"] == "cap" and not moved.exists()


def damages():
    def cut_json(path):
        text = (path / "model.json").read_text()
        (path / "model.json").write_text(text[: len(text) // 2])

    def lose_a_field(path):
        whole = json.loads((path / "model.json").read_text())
        del whole["arrays_sha256"]
        (path / "model.json").write_text(json.dumps(whole))

    def flip(path):
        for file in (p for p in (path / "arrays").rglob("*") if p.parent.name == "d"):
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 0xFF
            file.write_bytes(bytes(content))

    return {
        "cut_json": cut_json,
        "lose_a_field": lose_a_field,
        "flip": flip,
        "lose_the_arrays": lambda path: shutil.rmtree(path / "arrays"),
        "lose_data": lambda path: [
            shutil.rmtree(p) for p in sorted((path / "arrays").rglob("d")) if p.is_dir()
        ],
    }


@pytest.mark.parametrize("damage", damages())
def test_damage_is_found(saved, damage):
    path, _ = saved
    damages()[damage](path)
    with pytest.raises(saving.SavingError, match=r"model' is damaged: .*; save it again$"):
        saving.load(path)


def test_arrays_of_another_model_are_found(saved, rng, tmp_path):
    path, _ = saved
    saving.save(tmp_path / "other", make_state(np.random.default_rng(9)), {})
    shutil.rmtree(path / "arrays")
    shutil.copytree(tmp_path / "other" / "arrays", path / "arrays")
    with pytest.raises(saving.SavingError, match=r"its file arrays/.* is not what was written"):
        saving.load(path)


def test_the_home_directory(rng, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    saving.save("~/model", make_state(rng), {})
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert saving.load("~/model").description == saving.describe("~/model") == {}


@pytest.mark.parametrize("name", ["a\0b", "file/model"])
def test_what_is_no_path_of_a_directory(name, rng, tmp_path):
    (tmp_path / "file").write_text("")
    for call in (lambda path: saving.save(path, make_state(rng), {}), saving.load):
        with pytest.raises(saving.SavingError, match=r"cannot be a directory \((embedded|Not a)"):
            call(tmp_path / name)


def test_what_is_no_model(tmp_path, saved):
    path, _ = saved
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.json").write_text('{"format": "a yacht"}')
    for name, words in {
        "none": "does not exist",
        "file": "is a file",
        "empty": r"holds no model: there is no model\.json",
        "other": r"holds no model: its model\.json is of something else",
    }.items():
        with pytest.raises(saving.SavingError, match=words):
            saving.load(tmp_path / name)
    whole = json.loads((path / "model.json").read_text())
    (path / "model.json").write_text(json.dumps(whole | {"format_version": saving.FORMAT + 1}))
    with pytest.raises(saving.SavingError, match=rf"newer version .*; {saving.FORMAT} is"):
        saving.load(path)
    (path / "model.json").write_text(json.dumps(whole | {"format_version": 1}))
    with pytest.raises(saving.SavingError, match=r"earlier version \(format 1.*: fit it again"):
        saving.load(path)


def test_a_tree_of_another_structure_is_refused(saved, rng):
    path, _ = saved
    with pytest.raises(saving.SavingError, match="another kind of model"):
        saving.restore(make_state(rng, 2), saving.load(path).arrays)
