import json
from typing import NamedTuple

import jax
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sgfr_jax import types
from sgfr_jax.commands import run
from sgfr_jax.commands.flags import config
from sgfr_jax.commands.host.machine import Resources
from sgfr_jax.datasets import Example
from sgfr_jax.detector import alternatives, diagnosis, splits, state, streams
from sgfr_jax.detector.services import PLAIN, silent
from sgfr_jax.detector.stages import Stages
from tests.detector import pretended
from tests.small import SMALL

EVERYTHING = {
    "atoms_used", "conditioning", "covering_radius", "effective_atoms", "self_representation_error"
}  # fmt: skip


def method_of(**fields):
    """One bank of a grid of 3 x 3, unless the fields say otherwise."""
    return pretended.settled(**{"layers": ("fine",), "grid": 3} | fields)


class Known(NamedTuple):
    """Gives the patches `[B, P, D]` of every stream, which are known, image by image."""

    embedded: list

    def batches(self, split):
        for example in split.examples:
            yield [x[int(example.name)][None] for x in self.embedded]


def diagnose(method, embedded, banks, sources, seed=0):
    """Of images whose patches `[B, P, D]` for every bank are given."""
    images = [Example(f"{i}", np.zeros((8, 8)), 0, "good", None) for i in range(len(embedded[0]))]
    train = splits.Split(tuple(images), ("",) * len(images), None)
    planned = streams.plan(method, pretended.NETWORK)
    stages = Stages(method, pretended.NETWORK, planned, (Known(embedded),), {}, PLAIN)
    origins = tuple(state.Origins(*[np.int32(own)] * 3) for own in sources)
    look = state.plain_look(tuple(banks), origins)
    return diagnosis.diagnose(stages, look, train, seed, "nut", silent)


@pytest.fixture
def patches(rng):
    """Of five images, nine each; those of the second are apart from the others."""
    found = rng.normal(size=(5, 9, 5)).astype(np.float32)
    found[1] += 10
    return found


def bank_of(atoms):
    return types.Bank(np.asarray(atoms), np.ones(len(atoms), np.float32), np.arange(len(atoms)))


def test_patches_are_coded_without_the_atoms_of_their_image(patches):
    """Against distances in NumPy: one nearest atom, all patches, and the atoms of the others."""
    atoms, sources = patches[:, :4].reshape(-1, 5), np.repeat(np.arange(5), 4)
    method = method_of(solver="nearest")
    found, note = diagnose(method, [patches], [bank_of(atoms)], [sources])
    (of_bank,) = found.values()
    nearest = np.stack(
        [cdist(own, atoms[sources != i]).min(axis=1) for i, own in enumerate(patches)]
    )
    shares = nearest / np.linalg.norm(patches, axis=-1)
    assert of_bank["covering_radius"] == pytest.approx(nearest.max(), rel=1e-5)
    error = of_bank["self_representation_error"]
    assert error["mean"] == pytest.approx(shares.mean(), rel=1e-5)
    assert error["max"] == pytest.approx(shares.max(), rel=1e-5)
    assert error["median"] == pytest.approx(np.median(shares), rel=1e-5)
    assert set(of_bank["atoms_used"].values()) == {1.0}
    assert of_bank["patches"] == 45 and of_bank["held_out"]
    assert "45 nominal patches" in note and "without the atoms of their images" in note
    assert set(found) == {"fine@64"} and set(of_bank) == EVERYTHING - {"conditioning"} | {
        "patches", "held_out"
    }  # fmt: skip
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.slow
def test_every_stream_has_its_own(rng):
    method = method_of(layers=("auto",), grid=None)
    planned = streams.plan(method, pretended.NETWORK)
    embedded = [
        (1 + i) * rng.normal(size=(3, *stream.shape)).astype(np.float32)
        for i, stream in enumerate(planned)
    ]
    banks = [bank_of(x[:, :2].reshape(-1, x.shape[-1])) for x in embedded]
    sources = [np.repeat(np.arange(3), 2)] * len(planned)
    found, _ = diagnose(method, embedded, banks, sources)
    assert list(found) == [stream.name for stream in planned]
    for stream, of_bank, x in zip(planned, found.values(), embedded, strict=True):
        assert set(of_bank) == EVERYTHING | {"patches", "held_out"}
        assert of_bank["patches"] == 3 * min(diagnosis.NUM_PATCHES, stream.grid**2)
        # Every stream has its own scale, so no other's patches are as far from its atoms.
        distances = np.concatenate(
            [cdist(x[i], np.delete(x, i, axis=0)[:, :2].reshape(4, -1)).min(axis=1)
             for i in range(3)]
        )  # fmt: skip
        assert distances.min() <= of_bank["covering_radius"] <= distances.max() * (1 + 1e-5)


def test_the_sample_is_bounded_and_follows_the_seed(rng, monkeypatch):
    monkeypatch.setattr(diagnosis, "NUM_SQUARES", 3)
    monkeypatch.setattr(diagnosis, "NUM_PATCHES", 2)
    patches = rng.normal(size=(6, 9, 4)).astype(np.float32)
    bank, sources = bank_of(patches[:, 0]), np.arange(6)

    def of(seed):
        return diagnose(method_of(), [patches], [bank], [sources], seed)[0]["fine@64"]

    assert of(0) == of(0) != of(1)
    assert of(0)["patches"] == 6


def test_the_only_image_is_not_held_out(patches):
    found, note = diagnose(method_of(), [patches[:1]], [bank_of(patches[0])], [np.zeros(9)])
    (of_bank,) = found.values()
    assert not of_bank["held_out"] and "which the banks have seen" in note
    assert of_bank["covering_radius"] == 0  # the patches are the atoms


def test_what_is_left_of_a_bank_of_one_image_is_nothing(patches):
    found, _ = diagnose(method_of(), [patches[:2]], [bank_of(patches[0])], [np.zeros(9)])
    (of_bank,) = found.values()
    assert of_bank["covering_radius"] is None
    assert of_bank["self_representation_error"]["max"] == 1
    assert of_bank["atoms_used"]["max"] > 0


def test_padding_is_not_drawn_where_there_is_more_and_never_counts(rng):
    shown = np.ones((2, 100), np.float32)
    shown[1, 10:] = 0
    cells, weights = diagnosis._pick(rng, shown)
    assert cells.shape == (2, diagnosis.NUM_PATCHES)
    assert weights[0].all() and len(set(cells[0])) == diagnosis.NUM_PATCHES
    assert set(cells[1][weights[1] > 0]) == set(range(10))
    values = [{"atoms_used": np.where(of_square > 0, 2, 99)} for of_square in weights]
    assert set(diagnosis._summaries(values, weights > 0)["atoms_used"].values()) == {2}


@pytest.mark.parametrize(
    "solver,subspaces,expected",
    [
        ("affine_ridge", "implicit", EVERYTHING),
        ("omp", "implicit", EVERYTHING - {"conditioning"}),
        ("whole_bank_ridge", "implicit", EVERYTHING - {"conditioning"}),
        ("ridge", "dictionary", EVERYTHING - {"covering_radius"}),
        pytest.param("omp", "pca", {"atoms_used", "effective_atoms", "self_representation_error"},
                     marks=pytest.mark.slow),
        *[
            (solver, "k_subspaces",
             {"atoms_used", "effective_atoms", "self_representation_error",
              "share_inside_subspace"})
            for solver in ("omp", "project")
        ],
    ],
)  # fmt: skip
def test_each_solver_and_learner_is_asked_what_makes_sense(rng, solver, subspaces, expected):
    method = method_of(
        solver=solver, subspaces=subspaces, sparsity=3, num_subspaces=3, subspace_rank=2
    )
    bank = bank_of(rng.normal(size=(30, 5)).astype(np.float32))
    if subspaces in alternatives.SUBSPACE_LEARNERS:
        bank = jax.jit(alternatives.make_learner(method))(jax.random.key(0), bank)
    targets = rng.normal(size=(4, 5)).astype(np.float32)
    found = diagnosis.make_probe(method, jax.jit)(bank, targets, np.ones(4, np.float32))
    assert set(found) == expected
    code = jax.jit(alternatives.make_coder(solver, method))(targets, bank)
    left = targets - (code.coefficients[:, None] @ (
        bank.atoms[None] if code.indices is None else bank.atoms[code.indices]
    ))[:, 0]  # fmt: skip
    np.testing.assert_allclose(
        found["self_representation_error"],
        np.linalg.norm(left, axis=1) / np.linalg.norm(targets, axis=1),
        rtol=1e-3, atol=1e-5,
    )  # fmt: skip
    if solver == "project":  # a code of one subspace by its making
        np.testing.assert_allclose(found["share_inside_subspace"], 1, rtol=1e-6)
    elif "share_inside_subspace" in found:
        assert 1 / 3 < found["share_inside_subspace"].min() < 0.999


@pytest.mark.parametrize(
    "layers", [("fine", "coarse"), pytest.param(("auto",), marks=pytest.mark.slow)]
)
def test_a_run_that_is_asked_has_them_in_its_results(folder, tmp_path, layers, monkeypatch):
    pretended.stand_in(monkeypatch)
    settings = config.resolve(
        SMALL.replace(data_dir=str(folder), categories=("cap",), layers=layers)
    )
    resources = Resources(tmp_path / "out", batch_size=4, num_figures=0, diagnose=True)
    (record,) = run.run(settings, resources)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    found = results["categories"]["cap"]["diagnostics"]
    assert found == record.results["diagnostics"]
    assert any(note.startswith("diagnostics (results.json)") for note in record.notes)
    assert ("fine+coarse@64" in found) == (layers == ("fine", "coarse"))
    for of_bank in found.values():
        assert of_bank["held_out"] and 0 < of_bank["self_representation_error"]["median"] < 1
        assert of_bank["conditioning"]["max"] >= of_bank["conditioning"]["median"] > 1
        assert 1 < of_bank["effective_atoms"]["mean"] <= of_bank["atoms_used"]["max"] <= 5
    assert "diagnostics" not in (tmp_path / "out" / "results.csv").read_text()

    plain = run.run(settings, resources._replace(workdir=tmp_path / "plain", diagnose=False))
    assert "diagnostics" not in plain[0].results and plain[0].images == record.images
    assert plain[0].digest != record.digest  # one does not go on with the other
