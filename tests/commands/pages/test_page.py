import json
import re

import numpy as np
import pytest

from sgfr_jax import curves, datasets, metrics
from sgfr_jax.commands.files import records
from sgfr_jax.commands.files.records import Record
from sgfr_jax.commands.pages import page, review, summary
from sgfr_jax.datasets import images
from tests.commands.pages.test_summary import BASE
from tests.commands.pages.test_summary import record as of_sweep


def finish(workdir, labels, name="cap", num_review=2, notes=()):
    """The files of a run with these images, whose scores are 0, 1, ..."""
    rng = np.random.default_rng(0)
    scores, labels = np.arange(len(labels), dtype=float), np.array(labels, bool)
    maps, masks = rng.random((len(labels), 8, 8)).astype(np.float32), np.zeros((len(labels), 8, 8))
    masks[labels, 2:4, 2:5] = 1
    ranked = metrics.rankings(scores, labels, maps, masks)
    results = metrics.measure(*ranked)._asdict() | {
        "num_train": 5, "num_test": len(labels), "num_atoms": 20,
        "seconds": {"embed_train": 1.0, "metrics": 0.25},
    }  # fmt: skip
    selection = review.Selection(num_review)
    kinds = np.where(labels, "dent", "good")
    for i, (label, kind) in enumerate(zip(labels, kinds, strict=True)):
        pixels = images.Loaded(np.zeros((8, 8, 3), np.uint8), masks[i] > 0)
        example = datasets.Example(f"{i}.png", None, int(label), kind, None)
        selection.add(example, pixels, maps[i], scores[i])
    if num_review:
        points = None if ranked.pixels is None else curves.thin(ranked.pixels, ranked.regions)
        review.save(workdir, name, results, selection, {BASE.method.solver: points})
    rows = [
        {"file": f"{i}.png", "label": int(label), "kind": kind, "score": score}
        for i, (label, kind, score) in enumerate(zip(labels, kinds, scores, strict=True))
    ]
    return Record(name, name, BASE.flat(), {"jax": "1"}, results, {}, rows, list(notes))


def shown(workdir, *found):
    records.open_workdir(workdir)
    records.finish(workdir, found, BASE.flat(), {"jax": "1"})
    return page.of_run(workdir)


def embedded(text):
    """The data in a page, as its script reads it."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(found)


def test_a_run_with_curves_and_pictures(tmp_path):
    found = shown(tmp_path, finish(tmp_path, [0, 1, 0, 0, 1, 1]))
    (category,) = found["categories"]
    assert category["files"] == [f"{i}.png" for i in range(6)]
    assert category["labels"] == [0, 1, 0, 0, 1, 1]
    results = json.loads((tmp_path / "results.json").read_text())["categories"]["cap"]
    areas = category["areas"][BASE.method.solver]
    assert areas == {name: f"{100 * results[name]:.1f}" for name in metrics.Metrics._fields}
    curve = category["image_curves"][BASE.method.solver]
    assert curve["thresholds"] == [5.0, 4.0, 1.0] and curve["false_positives"] == [0, 0, 2]
    assert category["pixel_curves"][BASE.method.solver]["num_positives"] == 3 * 6
    assert [p["file"] for p in category["pictures"]][:4] == ["1.png", "4.png", "3.png", "2.png"]
    (row,) = found["tables"][0]["rows"]
    assert row[:2] == ["cap", BASE.method.solver] and row[2] == [
        areas["image_auroc"],
        results["image_auroc"],
    ]
    assert row[-1] == ["1.2", 1.25] and not found["notes"]


def test_what_a_test_set_cannot_define(tmp_path):
    nominal = finish(tmp_path, [0, 0, 0], "nominal")
    defective = finish(tmp_path, [1, 1], "defective", notes=["no nominal test images"])
    nothing = finish(tmp_path, [], "nothing")
    found = shown(tmp_path, nominal, defective, nothing)
    for category in found["categories"]:
        assert category["image_curves"] == {BASE.method.solver: None}
        assert category["areas"][BASE.method.solver]["image_auroc"] == "-"
    pixel_curves = [c["pixel_curves"][BASE.method.solver] for c in found["categories"]]
    assert [curve is None for curve in pixel_curves] == [True, False, True]
    assert found["categories"][2]["scale"] == [0.0, 1.0]
    assert found["notes"] == ["defective: no nominal test images"]
    (mean,) = found["tables"][0]["foot"]
    assert mean[:3] == ["mean", BASE.method.solver, ["-", None]]
    embedded(page.render(found))


def test_pictures_of_another_run_are_not_shown(tmp_path):
    first, second = finish(tmp_path, [0, 1]), finish(tmp_path, [0, 1], "nut", num_review=0)
    finish(tmp_path, [0, 0, 1])  # in the first one's place
    found = shown(tmp_path, first, second)
    assert [category["pictures"] for category in found["categories"]] == [[], []]
    assert [category["pixel_curves"] for category in found["categories"]] == [{}, {}]
    (note,) = found["notes"]
    assert note.startswith("There are no pictures and pixel curves of cap, nut:")
    assert found["categories"][0]["image_curves"][BASE.method.solver] is not None


def test_many_pictures_are_cut_evenly(tmp_path, monkeypatch):
    made = [finish(tmp_path, [0, 1] * 20, name, num_review=8) for name in ("cap", "nut")]
    whole = shown(tmp_path, *made)
    sizes = [len(p["image"] + p["map"]) for c in whole["categories"] for p in c["pictures"]]
    monkeypatch.setattr(page, "PICTURE_BYTES", sum(sizes) // 2)
    found = page.of_run(tmp_path)
    for category, before in zip(found["categories"], whole["categories"], strict=True):
        groups = [p["group"] for p in category["pictures"]]
        assert 3 <= groups.count("misses") <= 5 and 3 <= groups.count("alarms") <= 5
        files = [
            [p["file"] for p in c["pictures"] if p["group"] == "misses"] for c in (category, before)
        ]
        assert files[0] == files[1][: len(files[0])]
    kept = [len(p["image"] + p["map"]) for c in found["categories"] for p in c["pictures"]]
    assert 0.8 * sum(sizes) / 2 < sum(kept) <= sum(sizes) / 2
    assert found["notes"] == [
        f"{len(kept)} of {len(sizes)} kept pictures are shown, so that the page stays small."
    ]


def test_nothing_shown_becomes_markup():
    words = "</script><script>alert(1)</script><!-- & {{script}} \u2028 é \udcff \"'"
    text = page.render({"title": words, "subtitle": "{{data}}", "names": [words]})
    assert embedded(text)["names"] == [words]
    assert "alert(1)</script>" not in text and text.count("</script>") == 2
    assert "<title>&lt;/script&gt;" in text and "{{data}}</title>" in text


def test_a_sweep():
    found = [of_sweep("cap", 0.25, shots=n, seed=s) for n in (1, 2) for s in (0, 1)]
    found += [of_sweep("nut", 0.5 + 0.1 * s, shots=n, seed=s) for n in (1, 2) for s in (0, 1)]
    found += [of_sweep("cap", 0.3, shots=4)]
    tables = summary.summarize(found), summary.summarize(found, by_category=True)
    described = page.of_sweep(*tables, ["aupro"])
    means, by_category = described["tables"]
    names = [column["name"] for column in means["columns"]]
    assert names[:5] == ["dataset", "shots", "solver", "seeds", "image AUROC"]
    assert [row[1] for row in means["rows"]] == [["1", 1], ["2", 2]]
    cell = means["rows"][0][names.index("AUPRO")]
    assert cell[0] == "40.0 ± 3.5" and cell[1] == pytest.approx(0.4)
    assert len(by_category["rows"]) == 5
    (chart,) = described["charts"]
    assert chart["title"] == "AUPRO by nominal images" and chart["log"]
    (series,) = chart["series"]
    assert series["points"][0] == pytest.approx((1, 40.0, 3.5355), abs=1e-3)
    assert (
        described["notes"] == tables[0].notes and "left out, without nut" in described["notes"][0]
    )
    assert embedded(page.render(described))["charts"]
