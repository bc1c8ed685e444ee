import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgfr_jax.commands.pages.figures import Panel
from sgfr_jax.commands.pages.gallery import Gallery, names


def panel(name, value=0.0):
    anomaly_map = np.full((8, 8), value, np.float32)
    return Panel(name, np.zeros((8, 8, 3), np.uint8), anomaly_map > 2, anomaly_map)


def titles(gallery):
    return {name: panel.title for name, panel in gallery.chosen().items()}


def test_most_certain_is_high_for_defects_and_low_for_nominal_images():
    gallery = Gallery(1)
    for name, kind, score in [
        ("a", "good", 0.1), ("b", "good", 0.9), ("c", "cut", 0.5), ("d", "cut", 0.2),
        ("e", "cut", 0.8),
    ]:  # fmt: skip
        gallery.add(kind, int(kind != "good"), score, panel(name))
    assert titles(gallery) == {
        "good_most_1": "a", "good_least_1": "b", "cut_most_1": "e", "cut_least_1": "d"
    }  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=12), st.integers(0, 3))
def test_the_same_as_sorting_all(scores, num):
    gallery = Gallery(num)
    for i, score in enumerate(scores):
        gallery.add("cut", 1, score, panel(str(i)))
        assert len(gallery.kept.get("cut", ())) <= 2 * num
    # Of equal scores the earlier counts as the more certain.
    ordered = [str(i) for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i))]
    most = ordered[:num]
    least = ordered[num:][::-1][:num]
    assert titles(gallery) == {
        **{f"cut_most_{i}": title for i, title in enumerate(most, 1)},
        **{f"cut_least_{i}": title for i, title in enumerate(least, 1)},
    }


def test_one_scale_for_all_figures(tmp_path):
    gallery = Gallery(1)
    assert gallery.scale() == (0.0, 1.0)
    for value in (1.0, 2.0, 3.0):
        gallery.add("good", 0, value, panel("a", value))
    low, high = gallery.scale()
    assert low == 2.0 and high == pytest.approx(2.96)
    gallery.save(lambda name: tmp_path / f"{name}.png")
    assert {path.name for path in tmp_path.iterdir()} == {"good_most_1.png", "good_least_1.png"}
    assert set(gallery.chosen()) == set(names(["good", "good"], 1))
