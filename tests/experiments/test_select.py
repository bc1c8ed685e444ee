import json

import numpy as np
import pytest

from experiments import config, run, select, synthetic
from experiments.choices import ConfigError
from sgfr_jax.datasets import Category, Example, defects, synthesis
from tests.experiments.conftest import SMALL


def category_of(rng, num):
    train = tuple(
        Example(f"{i}", rng.integers(0, 255, (80, 80, 3)).astype(np.uint8), 0, "good", None)
        for i in range(num)
    )
    return Category("nut", train, ())


def test_every_point_of_a_grid_once():
    points = select.parse_grid("layers=fast|block2+block4; num_neighbors=5|8", config.Config())
    assert [title for title, _ in points] == [
        "layers=fast num_neighbors=5",
        "layers=fast num_neighbors=8",
        "layers=block2+block4 num_neighbors=5",
        "layers=block2+block4 num_neighbors=8",
    ]
    assert points[3][1].layers == ("block2", "block4") and points[3][1].num_neighbors == 8
    assert [title for title, _ in select.parse_grid("", config.Config())] == ["default"]


@pytest.mark.parametrize(
    "grid,message",
    [
        ("layers", "'layers' must be flag=value"),
        ("layer=fast", "--candidates: unknown flag 'layer'. Did you mean 'layers'"),
        ("solver=afine_ridge", "--solver: unknown solver"),
        ("num_neighbors=0", "--num_neighbors=0"),
        ("shots=1|2", "--candidates: all candidates have the same images .* give --shots"),
        ("categories=a|b", "give --category on the command line"),
        ("baselines=nearest", "give --baseline on the command line"),
    ],
)
def test_mistakes_in_a_grid_are_named(grid, message):
    with pytest.raises(ConfigError, match=message):
        select.parse_grid(grid, config.Config())


def test_validation_images_are_never_fitted_on(rng):
    category = category_of(rng, 10)
    found = select.validation(category, 0.3, seed=1)
    nominal = [e for e in found.test if not e.label]
    defective = [e for e in found.test if e.label]
    assert len(found.train) == 7 and len(nominal) == 3
    held_out = {e.name for e in nominal}
    assert not held_out & {e.name for e in found.train}
    assert all(e.name.split(" on ")[1] in held_out for e in defective)
    kinds = {e.kind.split()[0] for e in defective}
    assert kinds == {*synthesis.KINDS, *defects.DEFECTS}
    # A detector draws its own with another seed.
    from experiments import loading

    own = synthetic.draw(loading.Split(found.train, (), None), 1, 64, copies=1)
    kinds = [e.kind for e in defective]
    for example in own.seen.split.examples[:3]:
        twin = defective[kinds.index(example.kind)]
        assert (twin.mask != example.mask).any()


def test_one_image_cannot_be_split(rng):
    with pytest.raises(ConfigError, match="category nut has 1 training image"):
        select.validation(category_of(rng, 1), 0.5, seed=0)


def test_the_better_candidate_wins_and_the_test_set_is_not_read(folder, tmp_path, monkeypatch):
    for path in (folder / "test").rglob("*.png"):
        path.write_bytes(b"not an image")
    base = config.resolve(SMALL.__class__(**{**vars(SMALL), "data_dir": str(folder)}))
    points = [("blind", base), ("seeing", base), ("again", base)]
    held_out = [select.validation(c, 0.3, 0) for c in run.load_data(base)]
    worth = iter([0.2, 0.9, 0.9])
    evaluate = select.evaluate

    def judged(settings, categories, resources):
        found = evaluate(settings, categories, resources)
        assert all(0 <= v <= 1 for m in found.values() for v in m.values())
        value = next(worth)
        return {name: dict.fromkeys(metrics, value) for name, metrics in found.items()}

    monkeypatch.setattr(select, "evaluate", judged)
    winner, rows = select.select(points, held_out, run.Resources(tmp_path))
    assert winner == 1
    assert [round(row["criterion"], 6) for row in rows] == [0.2, 0.9, 0.9]
    assert json.loads(json.dumps(rows)) == rows
    assert "seeing" in select.table(rows)


def test_metrics_that_are_undefined_do_not_count():
    found = {"a": {"pixel_ap": 0.5, "aupro": None}, "b": {"pixel_ap": 1.0, "aupro": None}}
    assert select.criterion(found) == 0.75
    assert select.criterion({"a": {"pixel_ap": None}}) == 0.0
