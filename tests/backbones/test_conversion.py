import numpy as np
import pytest

from sgfr_jax.backbones import conversion
from sgfr_jax.backbones.naming import Biased, Folded, Normalised, Tokenised
from tests.backbones import made_weights

KINDS = [
    (Folded("a", "b"), {"kernel": (3, 3, 4, 6), "bias": (6,)}),
    (Biased(("a",)), {"kernel": (14, 14, 3, 6), "bias": (6,)}),
    (Biased(("a", "b", "c"), "d"), {"kernel": (5, 6), "bias": (6,)}),
    (Normalised("a"), {"scale": (6,), "bias": (6,)}),
    (Tokenised("a", "b", "c", True), {"first": (5, 6), "positions": (7, 7, 6)}),
    (Tokenised("a", None, "c", True), {"first": (1, 6), "positions": (7, 7, 6)}),
    (Tokenised("a", "b", "c", False), {"first": (5, 6), "positions": (7, 7, 6)}),
]


@pytest.mark.parametrize(("names", "shapes"), KINDS)
def test_what_a_file_holds_makes_the_parameters(names, shapes):
    arrays = made_weights.make(conversion.file_shapes(names, shapes))
    found = conversion.parameters(names, arrays, 1e-5)
    assert {name: x.shape for name, x in found.items()} == shapes
    assert all(x.dtype == np.float64 for x in found.values())


def test_parts_stand_side_by_side_and_are_scaled(rng):
    names = Biased(("q", "k"), "gamma")
    arrays = {f"{part}.weight": rng.normal(size=(3, 5)) for part in "qk"}
    arrays |= {f"{part}.bias": rng.normal(size=3) for part in "qk"} | {"gamma": rng.normal(size=6)}
    layer, x = conversion.parameters(names, arrays, 0.0), rng.normal(size=5)
    parts = [arrays[f"{part}.weight"] @ x + arrays[f"{part}.bias"] for part in "qk"]
    expected = arrays["gamma"] * np.concatenate(parts)
    np.testing.assert_allclose(x @ layer["kernel"] + layer["bias"], expected, rtol=1e-12)


def test_the_class_token_gets_its_position():
    arrays = {"a": np.full((1, 1, 2), 10.0), "b": np.full((1, 3, 2), 7.0)}
    arrays["c"] = np.arange(10.0).reshape(1, 5, 2)
    found = conversion.parameters(Tokenised("a", "b", "c", True), arrays, 0.0)
    np.testing.assert_array_equal(found["first"], [[10, 11], [7, 7], [7, 7], [7, 7]])
    np.testing.assert_array_equal(found["positions"][1], [[6, 7], [8, 9]])
