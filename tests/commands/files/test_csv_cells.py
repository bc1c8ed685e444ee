import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgfr_jax.commands.files import csv_cells

FORMULA = re.compile(r"\s*[=+\-@]")


@pytest.mark.parametrize(
    "text, cell",
    [
        ("a/b.png", "a/b.png"),
        (r"c:\photographs\a.png", r"c:\photographs\a.png"),
        ("größe = 3.png", "größe = 3.png"),
        ("", ""),
        ("=1+1.png", "'=1+1.png"),
        (" @sum.png", "' @sum.png"),
        ("-2.png", "'-2.png"),
        ("'quoted'.png", "''quoted'.png"),
        ("\x1b[2J.png", r"'\u001b[2J.png"),
        ("=a\\b", r"'=a\\b"),
        ("a\nb", r"'a\u000ab"),
        ("\udcff.png", r"'\udcff.png"),
    ],
)
def test_cells(text, cell):
    assert csv_cells.cell(text) == cell and csv_cells.text(cell) == text


@given(st.text(st.characters(codec=None) | st.sampled_from("=+-@'\\\t\r\x1b \u202eu0")))
def test_every_text_comes_back_and_none_is_a_formula(text):
    cell = csv_cells.cell(text)
    assert csv_cells.text(cell) == text
    assert not FORMULA.match(cell) and not re.search(r"[\x00-\x1f\x7f-\x9f]", cell)
    written = io.StringIO(newline="")
    csv.writer(written).writerow([cell, "0.5"])
    ((found, _),) = csv.reader(io.StringIO(written.getvalue().encode().decode(), newline=""))
    assert found == cell


@pytest.mark.parametrize("cell", ["'\\", "'\\u00", "'\\x", "'a\\U0001"])
def test_cells_that_were_never_written(cell):
    with pytest.raises(ValueError, match="escapes nothing"):
        csv_cells.text(cell)
