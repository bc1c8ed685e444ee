import io
import sys

import pytest
from PIL import Image

from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.pages import plots, summary
from tests.commands.pages.test_summary import record


def rows_of(*found):
    return summary.summarize(found).rows


def test_a_curve_for_every_solver_and_a_panel_for_what_else_differs():
    rows = rows_of(*(
        record(bank_ratio=r, solver=s, sampler=p, value=r)
        for r in (0.1, 0.01) for s in ("ridge", "nearest") for p in ("random", "k_center")
    ))  # fmt: skip
    made = plots.curves(rows, plots.AXES["bank_ratio"], "pixel_ap")
    assert {(c.panel, c.solver) for c in made} == {
        (f"sampler={p}", s) for p in ("random", "k_center") for s in ("ridge", "nearest")
    }
    assert all(c.points == [(0.01, 1.0, 0.0), (0.1, 10.0, 0.0)] for c in made)
    assert plots.curves(rows, plots.AXES["shots"], "pixel_ap") == []
    assert plots.curves(rows, plots.AXES["neighbors"], "pixel_ap") == []


def test_k_is_the_sparsity_of_omp_and_one_of_the_nearest():
    rows = rows_of(
        record(solver="ridge", num_neighbors=3), record(solver="ridge", num_neighbors=9),
        record(solver="omp", sparsity=2), record(solver="omp", sparsity=4),
        record(solver="nearest"),
    )  # fmt: skip
    made = plots.curves(rows, plots.AXES["neighbors"], "aupro")
    assert {c.solver: [x for x, _, _ in c.points] for c in made} == {
        "ridge": [3, 9], "omp": [2, 4], "nearest": [1]
    }  # fmt: skip
    assert {c.panel for c in made} == {""}


def test_undefined_metrics_have_no_place():
    rows = rows_of(record(shots=1, value=None), record(shots=2), record(shots=4))
    (curve,) = plots.curves(rows, plots.AXES["shots"], "aupro")
    assert [x for x, _, _ in curve.points] == [2, 4]


def test_drawn_as_an_image():
    pytest.importorskip("matplotlib", reason="the extra `report`")
    found = [record(shots=n, seed=s, value=n / 9 + s / 20, sampler=p, split=split)
             for n in (1, 2) for s in (0, 1) for p in ("random", "k_center")
             for split in ("random", "grouped")]  # fmt: skip
    axis = plots.AXES["shots"]
    image = plots.draw(plots.curves(rows_of(*found), axis, "aupro"), axis, "aupro")
    shown = Image.open(io.BytesIO(image))
    assert shown.format == "PNG" and shown.width > 1500 and shown.height > 900
    assert len(shown.convert("RGB").getcolors(1 << 24)) > 50


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'sgfr_jax\[report\]', or --no_plots"):
        plots.draw([], plots.AXES["shots"], "aupro")
