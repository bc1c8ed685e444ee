import csv
import io
import statistics

import numpy as np
import pytest

from sgfr_jax.commands.files.records import Record
from sgfr_jax.commands.flags import config
from sgfr_jax.commands.pages import summary
from sgfr_jax.metrics import Metrics

BASE = config.Config.of(layers=("block2",), image_size=64, grid=8)


def record(category="cap", value=0.5, digest=None, num_test=10, **fields):
    settings = BASE.flat() | {"split_seed": 0} | fields
    results = dict.fromkeys(Metrics._fields, value) | {
        "num_test": num_test, "num_train": 5, "num_atoms": 20,
        "seconds": {"embed_train": 1.0, "sample": 2.0, "calibrate": 0.5, "score_test": 0.2,
                    "metrics": 9.0},
    }  # fmt: skip
    name = digest or f"{category} {sorted((k, str(v)) for k, v in settings.items())}"
    return Record(category, name, settings, {}, results, {}, [], [])


def test_means_over_categories_then_over_seeds():
    values = {0: (0.2, 0.4), 1: (0.5, 0.9), 2: (0.1, 0.3)}
    found = [
        record(category, value, seed=seed)
        for seed, pair in values.items()
        for category, value in zip(("cap", "nut"), pair, strict=True)
    ]
    table = summary.summarize(found)
    (row,) = table.rows
    of_seeds = [np.mean(pair) for pair in values.values()]
    assert row.mean["pixel_ap"] == pytest.approx(np.mean(of_seeds))
    assert row.std["pixel_ap"] == pytest.approx(statistics.stdev(of_seeds))
    assert (row.num_seeds, row.num_categories, table.notes) == (3, 2, [])
    assert row.fit_time == pytest.approx(3.5) and row.ms_per_image == pytest.approx(20)


def test_a_seed_without_all_categories_is_left_out_and_named():
    found = [record("cap", 0.9, seed=0), record("nut", 0.1, seed=0), record("cap", 1.0, seed=1)]
    table = summary.summarize(found)
    assert [row.mean["aupro"] for row in table.rows] == [pytest.approx(0.5)]
    assert table.notes == [
        "dataset=demo solver=affine_ridge, seed=1, split_seed=0: left out, without nut"
    ]
    by_category = summary.summarize(found, by_category=True)
    assert [(r.category, r.num_seeds) for r in by_category.rows] == [("cap", 2), ("nut", 1)]
    assert by_category.rows[0].mean["aupro"] == pytest.approx(0.95) and not by_category.notes


def test_rows_show_what_differs_in_order_of_size():
    found = [record(bank_ratio=ratio, solver="nearest") for ratio in (0.1, 0.01, None)]
    found += [record(bank_ratio=0.05, data_dir="elsewhere", metrics="exact")]
    rows = summary.summarize(found).rows
    assert [row.parameters for row in rows] == [
        {"dataset": "demo", "bank_ratio": 0.01, "solver": "nearest"},
        {"dataset": "demo", "bank_ratio": 0.05, "solver": "affine_ridge"},
        {"dataset": "demo", "bank_ratio": 0.1, "solver": "nearest"},
        {"dataset": "demo", "bank_ratio": None, "solver": "nearest"},
    ]
    assert [row.num_neighbors for row in rows].count(1) == 3


def test_a_record_of_two_work_directories_counts_once():
    assert summary.summarize([record(), record()]).rows[0].num_seeds == 1
    both = summary.summarize([record(digest="a"), record(digest="b", value=0.7)])
    assert both.rows[0].mean["pixel_ap"] == 0.7 and "two records" in both.notes[0]


def test_what_no_category_defines():
    (row,) = summary.summarize([record(value=None), record(value=None, seed=1)]).rows
    assert row.mean["aupro"] is None and row.std["aupro"] is None
    assert "| - |" in summary.to_markdown([row], ["aupro"])
    (line,) = csv.DictReader(io.StringIO(summary.to_csv([row])))
    assert line["mean_test_aupro"] == ""


def test_a_category_that_defines_a_metric_counts_alone():
    (row,) = summary.summarize([record("cap", None), record("nut", 0.3)]).rows
    assert row.mean["aupro"] == 0.3


def test_written_as_three_formats():
    found = [record(value=v, seed=s) for s, v in enumerate((0.25, 0.75))]
    rows = summary.summarize(found).rows
    (line,) = csv.DictReader(io.StringIO(summary.to_csv(rows)))
    assert line["param_solver"] == "affine_ridge" and line["n_seeds"] == "2"
    assert float(line["mean_test_pixel_ap"]) == 0.5
    assert float(line["std_test_pixel_ap"]) == pytest.approx(0.5**0.5 / 2)
    assert {"mean_fit_time", "mean_score_time", "mean_ms_per_image"} <= set(line)
    assert summary.to_markdown(rows, ["pixel_ap"]).splitlines() == [
        "| dataset | solver | seeds | pixel_ap |",
        "|---|---|---|---|",
        "| demo | affine_ridge | 2 | 50.0 ± 35.4 |",
    ]
    latex = summary.to_latex(rows, ["pixel_ap"]).splitlines()
    assert latex[0] == r"\begin{tabular}{lllr}"
    assert latex[4] == r"demo & affine\_ridge & 2 & $50.0 \pm 35.4$ \\"


def test_records_of_an_older_version_lack_a_field():
    old = record(solver="ridge")
    del old.config["shots"]
    rows = summary.summarize([old, record(shots=4)]).rows
    assert [row.parameters["shots"] for row in rows] == [4, None]


def test_names_are_escaped():
    found = [record(category=c, seed=s) for c in ("nuts & bolts #1", "x|y^2_{~}\\") for s in (0, 1)]
    rows = summary.summarize(found, by_category=True).rows
    latex = summary.to_latex(rows, ["pixel_ap"]).splitlines()
    assert r"nuts \& bolts \#1 & 2 & $" in latex[4]
    assert r"x|y\textasciicircum{}2\_\{\textasciitilde{}\}\textbackslash{} & 2" in latex[5]
    assert all(line.count(" & ") == 4 for line in (latex[2], *latex[4:6]))
    marks = summary.to_markdown(rows, ["pixel_ap"]).splitlines()
    assert r"| x\|y^2_{~}\ |" in marks[3]


def test_two_folders_are_two_data_sets():
    """Of one product each, which are no categories of one set."""
    found = [
        record(dataset="folder", data_dir=f"/data/{name}", category=name, value=value)
        for name, value in (("screws", 0.9), ("bottles", 0.5))
    ]
    table = summary.summarize(found)
    assert {row.parameters["data_dir"]: row.mean["pixel_ap"] for row in table.rows} == {
        "/data/screws": 0.9, "/data/bottles": 0.5
    }  # fmt: skip
    assert not table.notes and all(row.num_categories == 1 for row in table.rows)
    # Elsewhere a place says nothing: two workers may have the same set in two of them.
    found = [record(dataset="mtd", data_dir=f"/disk{i}/mtd", seed=i) for i in range(2)]
    (row,) = summary.summarize(found).rows
    assert row.num_seeds == 2
