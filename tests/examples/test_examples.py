"""The examples run as their readers would run them, offline, and what they print holds."""

import inspect
import json
import re
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(capsys):
    """Runs a script; returns its globals and the numbers that it printed, by line."""

    def run_script(name):
        with jax.numpy_rank_promotion("allow"):  # as outside of these tests
            found = runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        lines = capsys.readouterr().out.splitlines()
        return found, [[float(n) for n in re.findall(r"-?\d+\.?\d*", line)] for line in lines]

    return run_script


@pytest.mark.slow
def test_own_features(run):
    found, lines = run("own_features.py")
    assert found["nominal"].shape == (60, 14, 14, 81)
    (nearest, ten), chance = [line[-3:] for line in lines], 50
    assert nearest[0] > chance and nearest[1] > chance
    # Image AUROC, pixel AUROC and AUPRO: reconstruction reads the same bank better.
    assert all(np.array(ten) > np.array(nearest))


@pytest.mark.slow
def test_the_default_method_with_own_features(run):
    found, (weights, (image_auroc, pixel_auroc, aupro)) = run("default_method.py")
    assert len(weights) == 2 and sum(weights) == pytest.approx(1, abs=0.011)
    # Ten nearest atoms of one bank of the finer level: 86, 92 and 77.
    assert image_auroc > 88 and pixel_auroc > 93 and aupro > 79
    # With the method, the compiled score and its call: the whole of it in fifteen lines.
    assert len(inspect.getsource(found["fit"]).splitlines()) + 3 <= 15


@pytest.mark.slow
def test_own_solver(run, rng):
    found, _ = run("own_solver.py")
    by_name = {name: result.pixel_ap for name, result in found["results"].items()}
    assert by_name["nearest"] < by_name["softmax weights"] < 1
    # As the library's solvers: padding takes no part, and a cold softmax is the nearest atom.
    solve, target = found["softmax_weights"], rng.normal(size=6).astype(np.float32)
    support = rng.normal(size=(5, 6)).astype(np.float32)
    valid = np.array([True, True, False, True, True])
    coefficients = solve(target, support, valid, temperature=0.5)
    assert coefficients[2] == 0 and np.isclose(coefficients.sum(), 1, atol=1e-6)
    others = solve(target, support[valid], np.ones(4, bool), temperature=0.5)
    np.testing.assert_allclose(coefficients[valid], others, rtol=1e-5)
    cold = solve(target, support, valid, temperature=1e-4)
    squared = np.where(valid, np.sum((target - support) ** 2, axis=1), np.inf)
    np.testing.assert_allclose(cold, np.arange(5) == np.argmin(squared), atol=1e-5)


def test_vmap_over_categories_is_each_by_itself(run):
    found, lines = run("vmap_over_categories.py")
    assert [line[0] for line in lines] == list(found["NUM_TRAIN"].values())
    assert all(line[1] > 80 for line in lines)
    # The category of the fewest images, which is padded most.
    own = found["train"][2].reshape(-1, found["train"][2].shape[-1])
    bank = found["fit"](jax.random.key(0), own, np.ones(len(own), np.float32))
    np.testing.assert_array_equal(np.sort(found["banks"].indices[2]), np.sort(bank.indices))


@pytest.mark.slow
def test_gradient_of_a_score(run):
    found, lines = run("gradient_of_a_score.py")
    (_,), (contrast,), (_, before, after, ordinary), (there, elsewhere) = lines
    assert contrast > 2 and ordinary < before and after < 0.8 * before
    assert there > 2 * elsewhere
    # The gradient is that of the score: a small step down it lowers the score by its square.
    pixels, gradient = found["image"].astype(np.float32), np.asarray(found["gradient"])
    step = 0.2 / np.abs(gradient).max()
    lower = found["score"](pixels - step * gradient)
    expected = step * np.sum(gradient**2)
    np.testing.assert_allclose(found["before"] - lower, expected, rtol=0.2)


@pytest.mark.slow
def test_own_network(run):
    found, lines = run("own_network.py")
    assert lines[0][0] > 30
    rates = np.array([[r.image_auroc, r.pixel_auroc] for r in found["results"].values()])
    assert (rates.mean(axis=0) > 0.65).all()


@pytest.mark.slow
def test_the_tutorial_runs(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    cells = json.loads((EXAMPLES / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    names = {}
    with jax.numpy_rank_promotion("allow"):
        for cell in cells:
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), "tutorial.ipynb", "exec"), names)
    pyplot.close("all")
    measured = names["measured"]
    assert measured["affine ridge"].pixel_ap > measured["nearest atom"].pixel_ap > 0.5
    assert measured["affine ridge"].aupro > measured["nearest atom"].aupro
    assert names["above"][names["labels"]].mean() > 0.6  # defects that the threshold finds
    assert names["above"][~names["labels"]].mean() < 0.3


def test_the_tutorial_is_stored_without_outputs():
    cells = json.loads((EXAMPLES / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code and not any(cell["outputs"] or cell["execution_count"] for cell in code)


def test_every_example_is_tested_and_documented():
    tests = Path(__file__).read_text(encoding="utf-8")
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text(encoding="utf-8")
    scripts = [path.name for path in EXAMPLES.glob("*.py")]
    assert len(scripts) >= 5
    for name in scripts:
        assert f'run("{name}")' in tests and f"../examples/{name}" in page
