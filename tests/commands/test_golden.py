"""Whole runs come to the numbers that are kept, and two ways to one result are the same.

`tests/commands/golden.py` has the configurations, and says how the numbers are written anew.
"""

import jax
import numpy as np
import pytest

from sgfr_jax.datasets.geometry import to_size
from sgfr_jax.detector import saved
from tests.commands import golden

# Slow, but on every Python that CI runs.
pytestmark = [pytest.mark.slow, pytest.mark.main_path]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return golden.Bench(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("name", golden.CONFIGURATIONS)
def test_numbers_are_those_that_are_kept(name, bench):
    kept = golden.kept()
    changed = golden.differences(kept["numbers"][name], bench.numbers(name))
    made_with = {key: kept["made_with"][key] for key in ("jax", "python", "cpu")}
    assert not changed, (
        f"'{name}' has come to other numbers than {golden.FILE.name} (made with {made_with}); by"
        " stage, the first of which is where to look:\n  "
        + "\n  ".join(changed)
        + "\nIf that is meant, write them anew: python -m tests.commands.golden"
    )


def assert_same(one, other):
    """To the last bit: scores of every solver, maps, and the saved model."""
    for key in one.record.images[0]:
        assert [of[key] for of in one.record.images] == [of[key] for of in other.record.images], key
    np.testing.assert_array_equal(one.maps, other.maps)
    states = [saved.load(run.model).state for run in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_the_cache_of_embeddings_changes_nothing(bench):
    first, fresh = bench.run("one_bank"), bench.run_anew("one_bank", cached=False)
    assert_same(first, fresh)
    assert_same(first, bench.run_anew("one_bank"))  # embeddings lie in the cache by now


@pytest.mark.parametrize("name", ["one_bank", "both_looks"])
def test_the_size_of_a_batch_changes_nothing(name, bench):
    """Of the same embeddings, from the cache; the network itself may round otherwise."""
    assert_same(bench.run(name), bench.run_anew(name, batch_size=3))


@pytest.mark.parametrize("name", ["one_bank", "streams", "both_looks"])
def test_a_saved_model_scores_as_its_run_did(name, bench):
    of_run = bench.run(name)
    found = golden.predicted(bench, name, bench.photographs(name))
    assert [one.score for one in found] == [image["score"] for image in of_run.record.images]
    maps = [to_size(one.found.anomaly_map, of_run.maps[0].shape) for one in found]
    np.testing.assert_array_equal(maps, of_run.maps)


def test_an_exported_model_scores_as_the_run_did(bench):
    of_run, found = bench.run("one_bank"), golden.exported(bench, "one_bank")
    expected = [image["score"] for image in of_run.record.images]
    np.testing.assert_allclose([one.score for one in found], expected, rtol=golden.TOLERANCE)
    maps = np.stack([one.anomaly_map for one in found])
    np.testing.assert_allclose(maps, of_run.maps, atol=golden.TOLERANCE * maps.max(), rtol=0)


def test_a_model_that_learns_what_it_knows_stays_as_it_is(bench):
    known = bench.squares / "part" / "test" / "good" / "0.png"
    detector, seen = golden.grown(bench, "one_bank", known)
    assert seen.known.tolist() == [1.0]
    before = bench.detector("one_bank")
    jax.tree.map(np.testing.assert_array_equal, detector.state, before.state)


def test_a_difference_names_the_stage_and_the_number():
    kept = {"atoms": [1, 2], "score": [100.0, 0.001], "null": [1.0]}
    assert not golden.differences(kept, kept | {"score": [100.0005, 0.0015]})
    (line,) = golden.differences(kept, kept | {"score": [100.0, 0.01]})
    assert line.startswith("score: off by 9e-05") and "number 1 of 2: 0.001 is kept, 0.01" in line
    (line,) = golden.differences(kept, kept | {"atoms": [1, 3]})
    assert line.startswith("atoms:") and "0 is allowed" in line
    (line,) = golden.differences(kept, kept | {"null": [float("nan")]})
    assert line.startswith("null:")
    maps = {"map of image 0": [0.01], "map of image 1": [1.0]}  # of one magnitude
    assert not golden.differences(maps, maps | {"map of image 0": [0.010009]})
    assert golden.differences(maps, maps | {"map of image 0": [0.010011]})
    assert not golden.differences(kept, kept | {"null": [1.0005]})  # a score as the others are
    assert golden.differences({"null": [1.0]}, {"null": [1.0005]})
    (line,) = golden.differences(kept, {"atoms": [1, 2], "score": [100.0, 0.001]})
    assert line == "null: 1 numbers are kept, 0 were found"
