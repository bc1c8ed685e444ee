import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from sgfr_jax.datasets import Encoded, Example
from sgfr_jax.datasets.geometry import Geometry
from sgfr_jax.detector import held_out, model, splits
from tests.detector import made_models, pretended


@pytest.fixture(scope="module")
def detector(one_bank):
    return model.make(
        one_bank.stages, 0, one_bank.train, [Geometry()], one_bank.fitted,
        name="cap", notes=("a note",), labelled=(np.array([0.1, 0.2, 5.0]), np.array([0, 0, 1])),
    )  # fmt: skip


def test_a_detector_is_a_pytree_with_a_static_plan():
    detector = made_models.of(pretended.settled(), pretended.NETWORK)
    leaves = jax.tree.leaves(detector)
    assert leaves and all(isinstance(leaf, np.ndarray) for leaf in leaves)
    doubled = jax.tree.map(lambda x: 2 * x, detector)
    assert doubled.method == detector.method and hash(detector.method) and hash(detector.about)
    assert jax.jit(lambda of: of.state.looks[0].halo_above)(detector) > 0


def test_it_says_what_it_was_made_of(detector, one_bank):
    about = detector.about
    assert about.category == "cap" and about.seed == 0 and about.f1_threshold is not None
    assert about.train == tuple(f"image {i}" for i in range(5)) and about.paths == (None,) * 5
    assert about.hashes == one_bank.train.hashes and len(about.data) == 64
    assert about.notes[0] == "a note" and about.notes[-1].startswith("null of 5 training images")
    assert about.patches == (5 * 64,) and about.white == 65535
    fitted = one_bank.fitted.states["nearest"]
    jax.tree.map(np.testing.assert_array_equal, detector.state, fitted)
    nulls, _ = held_out.nulls(one_bank.stages, fitted, one_bank.train, (), 0)
    jax.tree.map(np.testing.assert_array_equal, detector.nulls, nulls)


def test_the_method_names_how_images_were_looked_at(detector, one_bank):
    assert detector.method == dataclasses.replace(one_bank.stages.method, geometry="square")
    stages = model.stages_of(detector)
    assert stages.streams == one_bank.stages.streams and stages.network is detector.network


def test_without_labels_of_both_kinds_there_is_no_threshold(one_bank):
    for labels in (np.zeros(2), np.ones(2)):
        made = model.make(
            one_bank.stages, 0, one_bank.train, [Geometry()], one_bank.fitted,
            labelled=(np.array([1.0, 2.0]), labels),
        )  # fmt: skip
        assert made.about.f1_threshold is None


def test_patches_of_every_bank_are_counted_look_by_look(streams):
    kinds = [Geometry(), Geometry("pad")]
    split = splits.laid(pretended.split_of([np.zeros((64, 32), np.uint8)] * 2), kinds)
    assert model.num_patches(split, streams.stages) == (32, 288, 72, 16, 144, 36)


def test_sources_of_images_are_kept(tmp_path):
    path = tmp_path / "a.png"
    assert model.path_of(Example("a", path, 0, "good", None)) == str(path)
    relative = Example("a", Path("some.png"), 0, "good", None)
    assert model.path_of(relative) == str(Path.cwd() / "some.png")
    for without in (Encoded("a", bytes), np.zeros((2, 2), np.uint8)):
        assert model.path_of(Example("a", without, 0, "good", None)) is None
