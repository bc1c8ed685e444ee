from sgfr_jax.commands.pages import tables
from tests.commands.files.test_records import record


def test_rows_of_every_category_and_method_then_means():
    lines = tables.render([record("cap", 0.75), record("nut", None)]).splitlines()
    assert lines[0].split()[:3] == ["category", "method", "I-AUROC"]
    rows = [line.split() for line in lines[2:]]
    assert rows[0] == ["cap", "affine_ridge", *["75.0"] * 8]
    assert rows[1] == ["cap", "baseline:", "nearest", *["50.0"] * 8]
    assert rows[2] == ["nut", "affine_ridge", *["-"] * 8]
    assert rows[4] == ["mean", "affine_ridge", *["75.0"] * 8]
    assert len({len(line) for line in lines}) == 1 or all(len(x) <= len(lines[1]) for x in lines)


def test_one_category_needs_no_mean():
    assert "mean" not in tables.render([record("cap", 0.75)])
