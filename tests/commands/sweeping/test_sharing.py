"""Records of shared work are those of separate runs."""

import dataclasses

import pytest
from etils import epath

from sgfr_jax.commands import run
from sgfr_jax.commands.host import machine, memory
from sgfr_jax.commands.pages import pixels
from sgfr_jax.commands.sweeping import collection, sharing, tasks
from sgfr_jax.detector import sampling, streams
from tests.commands.sweeping.small_sweep import go, points, two_samplers

# A nearest atom needs no number of neighbours, and shares a bank where that is the default.
SHARING = ({"solver": "affine_ridge", "num_neighbors": 10}, {"solver": "nearest"})


def without_times(record):
    timeless = dict(record.results)
    del timeless["seconds"]
    return record.category, record.config, timeless, record.images, record.notes


def separately(found, tmp_path):
    """The records of one `experiments.run` for every point."""
    made = []
    for number, point in enumerate(found):
        resources = machine.Resources(
            tmp_path / f"run{number}", batch_size=4, num_figures=0,
            cache_dir=tmp_path / "cache", cache_bytes=10**9,
        )  # fmt: skip
        for record in run.run(point.config, resources):
            settings = record.config | {"categories": (record.category,)}
            made.append(dataclasses.replace(record, config=settings))
    return made


def swept(workdir):
    found, damaged = collection.load_all(epath.Path(workdir))
    assert not damaged
    return found


def sorted_by_config(found):
    return sorted(found, key=lambda r: (r.category, str(sorted(r.config.items()))))


def as_read(record):
    """As JSON has it."""
    listed = {k: list(v) if isinstance(v, tuple) else v for k, v in record.config.items()}
    return dataclasses.replace(record, config=listed)


def compare(found, tmp_path, check):
    assert go(found, tmp_path / "out", tmp_path / "cache") == []
    ours = sorted_by_config(swept(tmp_path / "out"))
    theirs = sorted_by_config(map(as_read, separately(found, tmp_path)))
    assert len(ours) == len(theirs)
    for own, other in zip(ours, theirs, strict=True):
        check(without_times(own), without_times(other))


def same(own, other):
    assert own == other


def nearly_the_same(own, other):
    assert own[:2] == other[:2] and own[4] == other[4]
    assert own[2] == pytest.approx(other[2], rel=1e-4, abs=1e-4)
    assert len(own[3]) == len(other[3])
    for one, two in zip(own[3], other[3], strict=True):
        assert one["file"] == two["file"]
        assert one["score"] == pytest.approx(two["score"], rel=1e-5, abs=1e-6)


def test_several_solvers_of_a_bank(folder, tmp_path, monkeypatch):
    made = []
    make_bank = sampling.make_bank

    def counted(*args, **more):
        made.append(args[0].sampler)
        return make_bank(*args, **more)

    monkeypatch.setattr(sampling, "make_bank", counted)
    compare(points(folder), tmp_path, same)
    # Each bank once for its two solvers; then every run its own.
    assert made[:4] == ["k_center", "random"] * 2 and len(made) == 12


def test_memory_is_not_asked_for_what_it_holds_already(folder, tmp_path, monkeypatch):
    """Patches of one group serve the next: there is no room for them twice."""

    def grid(add):
        for seed in range(3):
            add(seed=seed, sampler="random")

    found, asked = points(folder, grid), []
    gather = sharing._gather

    def gathered(*args):
        monkeypatch.setattr(memory, "available", lambda: 0)
        return gather(*args)

    def available():
        asked.append(True)
        return 10**9

    monkeypatch.setattr(memory, "available", available)
    monkeypatch.setattr(sharing, "_gather", gathered)
    alone = [point._replace(config=point.config.replace(categories=("cap",))) for point in found]
    assert go(alone, tmp_path / "out") == []
    assert len(swept(tmp_path / "out")) == 3 and len(asked) == 1


def test_penalties_of_a_tuple_are_one_program(folder, tmp_path):
    def grid(add):
        add(solver="affine_ridge", ridge=(1e-4, 1e-2, 1.0))

    sharing.mapped_scorer.cache_clear()
    compare(points(folder, grid), tmp_path, nearly_the_same)
    planned = tasks.plan(points(folder, grid))
    method, mapped = planned[0].config.method, ("ridge", "l2")
    planned_streams = streams.plan(method, planned[0].config.network)
    compiled = sharing.mapped_scorer(*sharing._program(method, mapped), planned_streams)
    # Made once by the sweep, and compiled once for both categories and all values.
    assert sharing.mapped_scorer.cache_info().misses == 1
    assert compiled._cache_size() == 1


@pytest.mark.slow
def test_both_penalties_of_the_elastic_net(folder, tmp_path):
    def grid(add):
        add(solver="elastic_net", l1=(0.02, 0.2), l2=(1e-3, 0.1))

    compare(points(folder, grid), tmp_path, nearly_the_same)


@pytest.mark.slow
def test_more_solvers_than_their_pixels_fit_in(folder, tmp_path, monkeypatch):
    kept = 2 * 6 * 64**2 * 4  # of two solvers
    monkeypatch.setattr(pixels, "KEPT_BYTES", kept)

    def grid(add):
        add(ridge=(1e-3, 1e-2, 0.1))
        add(solver="nearest")

    (first, *_) = tasks.groups(tasks.plan(points(folder, grid)))
    parts = [[len(axis) for axis in part] for part in sharing._parts(first, 2)]
    assert parts == [[2], [1, 1]]
    compare(points(folder, grid), tmp_path, nearly_the_same)
    assert all(not record.notes for record in swept(tmp_path / "out"))


@pytest.mark.slow
def test_other_samplers_learners_and_metrics(folder, tmp_path):
    def grid(add):
        add(metrics="streaming")
        add(sampler="support_frequency", num_neighbors=3)
        add(subspaces="pca", subspace_rank=4, solver="project")

    compare(points(folder, grid), tmp_path, same)


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["auto", "block4@1,block10@1.5"])
def test_several_levels_with_a_bank_each(layers, folder, tmp_path):
    def grid(add):
        for fields in SHARING:
            add(layers=layers, **fields)

    def same_but_for_another_s_weights(own, other):
        notes = other[4] if own[1]["solver"] == "affine_ridge" else []
        assert own == (*other[:4], notes)

    compare(points(folder, grid), tmp_path, same_but_for_another_s_weights)


@pytest.mark.slow
def test_several_looks_with_a_bank_each(folder, tmp_path):
    def grid(add):
        for fields in SHARING:
            add(geometry="square+tile", tile=40, **fields)
        add(geometry="square+tile", tile=40, ridge=0.1, num_neighbors=10)

    assert {len(group) for group in tasks.groups(tasks.plan(points(folder, grid)))} == {1, 2}
    compare(points(folder, grid), tmp_path, same)


def test_embeddings_are_read_once(folder, tmp_path, monkeypatch):
    go(points(folder), tmp_path / "first", tmp_path / "cache")
    read, from_disk = [], machine.Kept.read

    def counted(self, described, rows):
        read.append(len(described["images"]))
        return from_disk(self, described, rows)

    monkeypatch.setattr(machine.Kept, "read", counted)
    monkeypatch.setattr(
        "sgfr_jax.backbones.load", lambda *args: pytest.fail("a network was loaded")
    )
    go(points(folder), tmp_path / "second", tmp_path / "cache")
    assert sorted(read) == [5, 5, 6, 6]  # of each category, for two banks and four solvers
    first, second = (sorted_by_config(swept(tmp_path / name)) for name in ("first", "second"))
    assert list(map(without_times, first)) == list(map(without_times, second))


def test_a_category_of_no_test_images(folder, tmp_path):
    import shutil

    for name in ("cap", "nut"):
        shutil.rmtree(folder / name / "test")
        shutil.rmtree(folder / name / "ground_truth")
    assert go(points(folder, two_samplers), tmp_path / "out") == []
    assert all("no test images" in record.notes[0] for record in swept(tmp_path / "out"))
