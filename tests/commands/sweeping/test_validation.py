import numpy as np
import pytest

from sgfr_jax.commands import select
from sgfr_jax.commands.flags import config
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.sweeping import validation
from sgfr_jax.datasets import Category, Example, defects, synthesis
from sgfr_jax.detector import splits, synthetic


def category_of(rng, num, shape=(80, 80, 3)):
    train = tuple(
        Example(f"{i}", rng.integers(0, 255, shape).astype(np.uint8), 0, "good", None)
        for i in range(num)
    )
    return Category("nut", train, ())


def candidates(grid="", **fields):
    settings = config.Config.of(**{"layers": ("block2",), "image_size": 64} | fields)
    return [of for _, of in select.parse_grid(grid, settings)]


def test_validation_images_are_never_fitted_on(rng):
    found = validation.of_category(category_of(rng, 10), 0.3, seed=1)
    nominal = [e for e in found.test if not e.label]
    defective = [e for e in found.test if e.label]
    assert all(e.mask.any() for e in defective)
    assert len(found.train) == 7 and len(nominal) == 3
    held_out = {e.name for e in nominal}
    assert not held_out & {e.name for e in found.train}
    assert all(e.name.split(" on ")[1] in held_out for e in defective)
    of_demo = [e for e in defective if e.name.startswith("demo/")]
    assert {e.kind for e in of_demo} == set(defects.DEFECTS)
    others = [e for e in defective if e not in of_demo]
    assert {e.kind.split()[0] for e in others} == set(synthesis.KINDS)
    # Of sizes that no detector is weighed by as well.
    assert {float(e.kind.split()[1]) for e in others} == set(validation.SIZES)
    assert set(validation.SIZES) > set(synthetic.SIZES)
    large = [e.mask.mean() for e in others if e.kind == f"cut_paste {max(validation.SIZES)}"]
    assert min(large) > 0.15
    # A detector draws its own with another seed.
    own = synthetic.draw(splits.Split(found.train, (), None), 1, 64, copies=1)
    kinds = [e.kind for e in defective]
    for example in own.seen.split.examples[:3]:
        twin = defective[kinds.index(example.kind)]
        assert (twin.mask != example.mask).any()


def test_one_image_cannot_be_split(rng):
    with pytest.raises(ConfigError, match="category nut has 1 training image"):
        validation.of_category(category_of(rng, 1), 0.5, seed=0)


def test_large_spoilt_images_are_kept_small(rng, monkeypatch):
    monkeypatch.setattr(synthetic, "MOST_PIXELS", 150 * 170)
    (found,) = validation.of_all([category_of(rng, 3, (300, 340, 3))], candidates(), 0.5, 0)
    assert {e.image.shape[:2] for e in found.test if e.label} == {(150, 170)}
    assert {e.mask.shape for e in found.test if e.label} == {(150, 170)}
    assert {e.image.shape[:2] for e in (*found.train, *found.test) if not e.label} == {(300, 340)}


def test_spoilt_images_are_no_smaller_than_a_stream_sees_them(rng, monkeypatch):
    monkeypatch.setattr(synthetic, "MOST_PIXELS", 70 * 80)
    category = category_of(rng, 2, (300, 340, 3))
    for layers, shape in (("block4@2", (150, 170)), ("block4@1|block2@4+block4@1", (300, 340))):
        points = candidates(f"layers={layers}")
        (found,) = validation.of_all([category], points, 0.5, 0)
        assert {e.image.shape[:2] for e in found.test if e.label} == {shape}


@pytest.mark.parametrize("fields", [{"geometry": "tile"}, {"eval_size": "native"}])
def test_spoilt_images_keep_the_size_that_a_candidate_looks_at(rng, monkeypatch, fields):
    monkeypatch.setattr(synthetic, "MOST_PIXELS", 150 * 170)
    points = candidates() + candidates(**fields)
    (found,) = validation.of_all([category_of(rng, 2, (300, 340, 3))], points, 0.5, 0)
    assert {e.image.shape[:2] for e in found.test} == {(300, 340)}


def test_of_images_that_differ_spoilt_ones_keep_their_size(rng, monkeypatch, tmp_path):
    """They may be looked at through tiles; so may those of which one cannot be read."""
    monkeypatch.setattr(synthetic, "MOST_PIXELS", 70 * 80)
    points = candidates("layers=block4@1")
    alike = category_of(rng, 4, (300, 340, 3))
    wide = category_of(rng, 4, (300, 600, 3))
    for photographs, shapes in (
        (alike, {(150, 170)}),
        (alike._replace(train=alike.train[:2] + wide.train[2:]), {(300, 340), (300, 600)}),
    ):
        (found,) = validation.of_all([photographs], points, 0.5, 0)
        assert {e.image.shape[:2] for e in found.test if e.label} <= shapes
    (tmp_path / "bad.png").write_bytes(b"not an image")
    bad = alike.train[0]._replace(image=tmp_path / "bad.png")
    monkeypatch.setattr(validation, "of_category", lambda *args, **bound: bound["most_pixels"])
    assert validation.of_all([alike], points, 0.5, 0) == [70 * 80]
    of_bad = alike._replace(train=(bad, *alike.train))
    assert validation.of_all([of_bad], points, 0.5, 0) == [None]
