import os
import posixpath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgfr_jax.commands.files.filenames import Names, shortened


def test_most_names_stay_as_they_are():
    names = Names()
    for name in ("a.png", "a.jpg", "below/a.png", "ü/n\n,.png"):
        assert names.of(name, ".png") == f"{name}.png" == names.of(name, ".png")


@pytest.mark.parametrize("letter", ["a", "ü", "画"])
def test_long_names_are_told_apart(letter):
    one, other = (letter * (250 // len(letter.encode())) + end for end in ("1.png", "2.png"))
    short = [shortened(name, ".npy") for name in (one, other)]
    assert len(set(short)) == 2
    for name in short:
        assert len(name.encode()) <= 240 and name.startswith(letter * 60) and name.endswith(".npy")
    deep = "/".join([letter * 60] * 60)
    assert len(os.fsencode(Names().of(f"{deep}/a.png", ".png"))) <= 240


@pytest.mark.parametrize("name", ["../a", "a/../b", "/etc/passwd", "", "."])
def test_names_stay_below(name):
    with pytest.raises(ValueError, match="must be a path below a directory"):
        Names().of(name, ".png")


_PARTS = st.sampled_from(["a", "A", "a.png", "a.png.png", "é", "e\u0301", "ß", "SS"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(_PARTS, min_size=1, max_size=3).map("/".join), unique=True))
def test_all_can_be_kept_on_any_file_system(wanted):
    """No two alike, and none the directory of another."""
    names = Names()
    found = [names.of(name, ".png").upper() for name in wanted]
    assert len(set(found)) == len(found)
    above = {posixpath.dirname(name) for name in found}
    above |= {posixpath.dirname(name) for name in above}
    assert not above & set(found)
