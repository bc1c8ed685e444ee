"""The script tries claims on a few small images; what they come to is for `docs/results.md`."""

import json
from functools import partial

import jax
import numpy as np
import pytest

import sgfr_jax as sgfr
from benchmarks import claims, kernel_codes
from benchmarks import claims_data as data
from benchmarks import claims_judging as judging
from sgfr_jax import datasets, types


@pytest.mark.slow
def test_small_trial(capsys, tmp_path):
    path = tmp_path / "claims.json"
    argv = ["--small", "--claims=1,6", "--seeds=1", f"--cache_dir={tmp_path}", f"--json={path}"]
    results = claims.main(argv)
    record = json.loads(path.read_text())
    printed = capsys.readouterr().out
    assert set(results) == {1, 6}
    for number, rows in results.items():
        assert f"## Claim {number}" in printed
        assert len(record[str(number)]["rows"]) == len(rows)
        figures = [cell for row in rows for cell in row.values() if isinstance(cell, tuple)]
        assert figures and np.isfinite(figures).all()
    # The nearest atom and the linear code of claim 6 are those of claim 1 at 1%.
    (one,) = (r for r in results[1] if r["sampler"] == "k_center" and r["bank"] == "1.00%")
    by_code = {row["code"]: row for row in results[6] if row["data"] == "demo brick"}
    assert by_code["nearest"]["pixel AP"] == one["AP nearest"]
    assert by_code["affine ridge, linear"]["pixel AP"] == one["AP affine"]
    # And it is decided without a test image, by the criterion of `experiments.select`.
    posed = [row for row in results[6] if row["data"] == "demo brick, validation"]
    assert [row["code"] for row in posed] == list(by_code)
    names = ("pixel AP", "pixel AUROC", "AUPRO", "image AUROC")
    for row in posed:
        assert row["criterion"][0] == pytest.approx(np.mean([row[name][0] for name in names]))


@pytest.mark.slow
def test_every_sampler_is_tried_at_every_size(tmp_path):
    argv = ["--small", "--claims=2", "--seeds=1", f"--cache_dir={tmp_path}"]
    full, *rows = claims.main(argv)[2]
    assert full["sampler"] == "all of the pool"
    tried = [(row["sampler"], row["atoms"]) for row in rows]
    assert tried == [(name, size) for name in judging.SAMPLERS for size in (20, 40, 80)]


@pytest.mark.slow
def test_bases_of_equal_memory_are_a_row_each():
    rows = claims.main(["--small", "--claims=4", "--seeds=1"])[4]
    assert [row["runs"] for row in rows] == [1] * len(rows)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--claims=7", "--claims=7: they are 1 to 6"),
        ("--claims=1;2", "--claims=1;2: they are 1 to 6"),
        ("--seeds=0", "--seeds=0: there must be one at least"),
        ("--splits=half", "--splits=half: they are random and grouped"),
        ("--json=absent/claims.json", "there is no directory absent"),
    ],
)
def test_mistaken_flags_are_named(flag, message, capsys):
    with pytest.raises(SystemExit):
        claims.main(["--small", flag])
    assert message in capsys.readouterr().err


@pytest.fixture
def embedded(monkeypatch):
    """The examples that were embedded, one list a call: the network is a stand-in."""
    calls = []

    def embed(examples, modes, setting):
        calls.append(list(examples))
        features = np.stack([x.image.astype(np.float32).reshape(1, -1) for x in examples])
        kinds = np.array([x.kind for x in examples])
        return data.Images(features, np.zeros((len(kinds), 2, 2), bool), kinds, np.array(modes))

    monkeypatch.setattr(data, "embed", embed)
    return calls


@pytest.fixture
def kept(tmp_path):
    """Features of some images, from a cache in `tmp_path`."""
    setting = data.Setting(2, 1, 2, 1, 1, None, tmp_path)
    images = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)

    def get(images=images, **changes):
        examples = [datasets.Example(str(i), x, 0, "good", None) for i, x in enumerate(images)]
        return data._embedded("some", examples, ["a", "b"], setting._replace(**changes))

    return get


def test_features_are_made_once(embedded, kept):
    made, again = kept(), kept()
    assert len(embedded) == 1
    for field in data.Images._fields:
        np.testing.assert_array_equal(getattr(made, field), getattr(again, field))


def test_features_of_anything_else_are_others(embedded, kept, monkeypatch):
    kept()
    kept(np.ones((2, 2, 2), np.uint8))
    kept(map_size=1)
    changes = [
        (data, "LEVELS", ("block4",)),
        (data.backbones, "weights_digest", lambda name: "other weights"),
        (data.cache, "source_digest", lambda *parts: "other code"),
    ]
    for place, name, value in changes:
        monkeypatch.setattr(place, name, value)
        kept()
    assert len(embedded) == 3 + len(changes)
    kept()
    assert len(embedded) == 3 + len(changes)


def test_features_are_kept_whole_or_not_at_all(embedded, kept, monkeypatch, tmp_path):
    def cut_off(file, **arrays):
        np.save(file, arrays["features"])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", cut_off)
        with pytest.raises(KeyboardInterrupt):
            kept()
    assert not list(tmp_path.iterdir())
    kept()
    kept()
    assert len(embedded) == 2


def test_summary_groups_by_what_was_done_and_not_by_seed():
    records = [{"code": "a", "atoms": 2, "AP": 1.0}, {"code": "a", "atoms": 2, "AP": 3.0},
               {"code": "b", "atoms": 2, "AP": 5.0}]  # fmt: skip
    first, second = claims.summarise(records)
    assert (first["runs"], first["AP"]) == (2, (2.0, pytest.approx(2**0.5)))
    assert (second["runs"], second["AP"]) == (1, (5.0, 0.0))
    assert claims.table([first, second]).splitlines() == [
        "| code | atoms | runs | AP |",
        "| --- | --- | --- | --- |",
        "| a | 2 | 2 | 2.0 ± 1.4 |",
        "| b | 2 | 1 | 5.0 |",
    ]


def bank_of(atoms):
    num = len(atoms)
    return types.Bank(np.float32(atoms), np.ones(num, np.float32), np.arange(num))


def test_both_scores_are_those_of_their_coders():
    rng = np.random.default_rng(0)
    bank = bank_of(rng.normal(size=(30, 6)))
    targets = rng.normal(size=(2, 4, 6)).astype(np.float32)
    images = data.Images(targets, np.zeros((2, 4, 4), bool), np.array(["good"] * 2), np.zeros(2))
    nearest, affine = judging.both_scores(images, bank, num_neighbors=5)
    gaps = np.linalg.norm(targets[:, :, None] - bank.atoms, axis=-1)
    np.testing.assert_allclose(nearest, gaps.min(-1), rtol=1e-5)
    expected = jax.jit(partial(sgfr.score, code=judging.affine(5)))(bank, images.patches)
    np.testing.assert_allclose(affine.ravel(), expected, rtol=1e-5)


def test_false_alarms_by_hand():
    masks = np.zeros((4, 4, 4), bool)
    masks[2:, :2] = True
    images = data.Images(np.zeros((4, 4, 1), np.float32), masks,
                         np.array(["good", "good", "crack", "crack"]), np.zeros(4))  # fmt: skip
    flat = np.array([[0.0] * 4, [3.0] * 4, [1.0] * 4, [4.0] * 4])  # constant maps
    found = judging.false_alarms(images, flat)
    assert found["image FPR at 90% TPR"] == found["pixel FPR at 90% TPR"] == 50
    assert found["pixel FPR at 50% TPR"] == 0
    assert found["image AUROC"] == 75


def test_covered_patches():
    masks = np.zeros((1, 4, 4), bool)
    masks[0, 0, 0] = masks[0, 2:, 2:] = True
    images = data.Images(np.zeros((1, 4, 1), np.float32), masks, np.array(["a"]), np.zeros(1))
    assert judging.covered(images).tolist() == [[True, False, False, True]]
    assert judging.covered(images, 0.5).tolist() == [[False, False, False, True]]


def test_wide_kernel_is_the_linear_code():
    rng = np.random.default_rng(1)
    bank, targets = bank_of(rng.normal(size=(40, 12))), np.float32(rng.normal(size=(7, 12)))

    @jax.jit
    def scores(targets, bank):
        linear = sgfr.score(bank, targets, code=judging.affine(6))
        wide = {"num_neighbors": 6, "ridge": judging.RIDGE, "bandwidth": 100.0}
        return kernel_codes.kernel_scores(targets, bank, **wide), linear

    found, linear = scores(targets, bank)
    np.testing.assert_allclose(found, linear, rtol=2e-3)


def test_narrow_kernel_against_float64():
    rng = np.random.default_rng(2)
    atoms, target = rng.normal(size=(5, 3)), rng.normal(size=3)

    def kernel(x, y):
        return np.exp(-np.sum((x[:, None] - y[None]) ** 2, -1) / 2)

    inner, cross = kernel(atoms, atoms), kernel(target[None], atoms)[0]
    gram = 1 - cross[:, None] - cross[None] + inner
    gram_ridge = gram + 1e-3 * np.trace(gram) / 5 * np.eye(5)
    weights = np.linalg.solve(gram_ridge, np.ones(5))
    weights /= weights.sum()
    expected = np.sqrt(1 - 2 * weights @ cross + weights @ inner @ weights)
    bank = bank_of(atoms)
    found = jax.jit(
        partial(kernel_codes.kernel_scores, num_neighbors=5, ridge=1e-3, bandwidth=1.0)
    )(np.float32(target)[None], bank)
    np.testing.assert_allclose(found, [expected], rtol=1e-5)
