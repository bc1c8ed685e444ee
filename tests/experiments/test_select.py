import json

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import category, config, run, select, synthetic
from experiments.choices import ConfigError
from sgfr_jax import metrics
from sgfr_jax.datasets import Category, Example, defects, synthesis
from tests.experiments.conftest import SMALL, write_folder


def category_of(rng, num, shape=(80, 80, 3)):
    train = tuple(
        Example(f"{i}", rng.integers(0, 255, shape).astype(np.uint8), 0, "good", None)
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
    plans = select.parse_grid("layers=auto|block4@1.5+block10@1", config.Config())
    assert [point.layers for _, point in plans] == [("auto",), ("block10@1", "block4@1.5")]


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
    assert all(e.mask.any() for e in defective)
    assert len(found.train) == 7 and len(nominal) == 3
    held_out = {e.name for e in nominal}
    assert not held_out & {e.name for e in found.train}
    assert all(e.name.split(" on ")[1] in held_out for e in defective)
    of_demo = [e for e in defective if e.name.startswith("demo/")]
    assert {e.kind for e in of_demo} == set(defects.DEFECTS)
    assert {e.kind.split()[0] for e in defective if e not in of_demo} == set(synthesis.KINDS)
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


def points_of(**fields):
    return select.parse_grid("", config.Config(layers=("block2",), image_size=64, **fields))


def test_large_spoilt_images_are_kept_small(rng, monkeypatch):
    monkeypatch.setattr(synthetic, "MOST_PIXELS", 150 * 170)
    (found,) = select.held_out([category_of(rng, 3, (300, 340, 3))], points_of(), 0.5)
    assert {e.image.shape[:2] for e in found.test if e.label} == {(150, 170)}
    assert {e.mask.shape for e in found.test if e.label} == {(150, 170)}
    assert {e.image.shape[:2] for e in (*found.train, *found.test) if not e.label} == {(300, 340)}


def test_spoilt_images_are_no_smaller_than_a_stream_sees_them(rng, monkeypatch):
    monkeypatch.setattr(synthetic, "MOST_PIXELS", 70 * 80)
    category = category_of(rng, 2, (300, 340, 3))
    for layers, shape in (("block4@2", (150, 170)), ("block4@1|block2@4+block4@1", (300, 340))):
        points = select.parse_grid(f"layers={layers}", config.Config(image_size=64))
        (found,) = select.held_out([category], points, 0.5)
        assert {e.image.shape[:2] for e in found.test if e.label} == {shape}


@pytest.mark.parametrize("fields", [{"geometry": "tile"}, {"eval_size": "native"}])
def test_spoilt_images_keep_the_size_that_a_candidate_looks_at(rng, monkeypatch, fields):
    monkeypatch.setattr(synthetic, "MOST_PIXELS", 150 * 170)
    points = points_of() + points_of(**fields)
    (found,) = select.held_out([category_of(rng, 2, (300, 340, 3))], points, 0.5)
    assert {e.image.shape[:2] for e in found.test} == {(300, 340)}


def test_of_images_that_differ_spoilt_ones_keep_their_size(rng, monkeypatch, tmp_path):
    """They may be looked at through tiles; so may those of which one cannot be read."""
    monkeypatch.setattr(synthetic, "MOST_PIXELS", 70 * 80)
    points = select.parse_grid("layers=block4@1", config.Config(image_size=64))
    alike = category_of(rng, 4, (300, 340, 3))
    wide = category_of(rng, 4, (300, 600, 3))
    for photographs, shapes in (
        (alike, {(150, 170)}),
        (alike._replace(train=alike.train[:2] + wide.train[2:]), {(300, 340), (300, 600)}),
    ):
        (found,) = select.held_out([photographs], points, 0.5)
        assert {e.image.shape[:2] for e in found.test if e.label} <= shapes
    (tmp_path / "bad.png").write_bytes(b"not an image")
    bad = alike.train[0]._replace(image=tmp_path / "bad.png")
    monkeypatch.setattr(select, "validation", lambda *args, **bound: bound["most_pixels"])
    assert select.held_out([alike], points, 0.5) == [70 * 80]
    assert select.held_out([alike._replace(train=(bad, *alike.train))], points, 0.5) == [None]


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


def test_plans_of_streams_are_compared(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "SIZES", (0.2,))
    base = config.Config(
        dataset="folder", data_dir=str(folder), categories=("cap",), image_size=64, bank_size=20,
        solver="nearest",
    )  # fmt: skip
    points = select.parse_grid("layers=block14@1|block4@1+block2@1", base)
    held_out = select.held_out(run.load_data(base), points, 0.4)
    winner, rows = select.select(points, held_out, run.Resources(tmp_path, batch_size=4))
    assert [row["point"] for row in rows] == ["layers=block14@1", "layers=block4@1+block2@1"]
    # Of 2 x 2 patches nothing can be localized.
    assert winner == 1 and rows[1]["criterion"] > rows[0]["criterion"] + 0.05


def test_metrics_that_are_undefined_do_not_count():
    found = {"a": {"pixel_ap": 0.5, "aupro": None}, "b": {"pixel_ap": 1.0, "aupro": None}}
    assert select.criterion(found) == 0.75
    assert select.criterion({"a": {"pixel_ap": None}}) == 0.0


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """The flags of a command that has chosen and scored, and its work directory."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["select"])
    directory = tmp_path_factory.mktemp("scored")
    given = {
        "dataset": "folder", "data_dir": str(write_folder(directory)), "category": "cap",
        "layers": ["block2"], "image_size": 64, "bank_size": 20, "num_neighbors": 5,
        "candidates": "solver=nearest|affine_ridge", "score_test": True,
        "cache_dir": "", "num_figures": 0, "workdir": str(directory / "out"),
    }  # fmt: skip
    with flagsaver.flagsaver(**given):
        select.main(["select"])
    return given, directory / "out"


class TestScoringOnce:
    """The command: its choice is frozen, and the test set is scored once."""

    @pytest.fixture
    def no_work(self, monkeypatch):
        """Fitting or scoring anything is an error from here on."""

        def never(*arguments):
            raise AssertionError("fitted again")

        monkeypatch.setattr(category, "start", never)

    @staticmethod
    def again(given, **changed):
        with flagsaver.flagsaver(**given | changed):
            select.main(["select"])

    @staticmethod
    def fails(given, **changed):
        with flagsaver.flagsaver(**given | changed), pytest.raises(SystemExit) as stopped:
            select.main(["select"])
        message = str(stopped.value.code)
        assert message.startswith("error: ") and "\n" not in message
        return message

    @staticmethod
    def written(workdir):
        files = ("chosen.json", "test/results.json", "test/scores.csv")
        return {name: (workdir / name).read_bytes() for name in files}

    def test_the_winner_alone_is_scored(self, scored):
        _, workdir = scored
        chosen = json.loads((workdir / "chosen.json").read_text())
        best = max(chosen["rows"], key=lambda row: row["criterion"])
        assert chosen["point"] == best["point"] and len(chosen["rows"]) == 2
        results = json.loads((workdir / "test" / "results.json").read_text())
        assert results["config"] == chosen["config"] and not results["baselines"]
        assert results["categories"]["cap"]["num_train"] == 5

    def test_the_same_question_is_answered_by_what_is_there(self, scored, no_work, capsys):
        given, workdir = scored
        before = self.written(workdir)
        self.again(given)
        shown = capsys.readouterr()
        assert "chosen before" in shown.err and "scored before" in shown.err
        value = json.loads(before["test/results.json"])["categories"]["cap"]["pixel_ap"]
        assert f"{100 * value:.1f}" in shown.out.split("chosen without labels")[1]
        self.again(given, score_test=False)
        assert "chosen before" in capsys.readouterr().err
        assert self.written(workdir) == before

    @pytest.mark.parametrize(
        "changed",
        [
            {"candidates": "solver=nearest|ridge"},
            {"seed": 1},
            {"validation_share": 0.5},
            {"image_size": 96},
            {"category": "nut"},
            {"shots": 4},
            {"score_test": False, "seed": 1},
        ],
    )
    def test_another_question_is_refused_before_any_work(self, scored, no_work, changed):
        given, workdir = scored
        before = self.written(workdir)
        message = self.fails(given, **changed)
        assert str(workdir / "chosen.json") in message and "give another --workdir" in message
        assert self.written(workdir) == before

    def test_a_score_without_its_choice_is_not_overwritten(self, scored, no_work):
        given, workdir = scored
        path = workdir / "chosen.json"
        kept = path.read_bytes()
        try:
            path.unlink()
            assert "give another --workdir" in self.fails(given)
        finally:
            path.write_bytes(kept)

    def test_other_test_images_are_not_scored_beside_the_first(self, scored, no_work):
        given, workdir = scored
        path = next((workdir.parent / "photographs" / "cap" / "test" / "good").iterdir())
        kept = path.read_bytes()
        try:
            path.write_bytes(kept + b"0")
            message = self.fails(given)
            assert "other test images" in message and "give another --workdir" in message
            self.again(given, score_test=False)  # the choice does not depend on them
        finally:
            path.write_bytes(kept)

    def test_data_that_has_moved_is_the_same(self, scored, no_work):
        given, workdir = scored
        moved = workdir.parent / "moved"
        moved.symlink_to(given["data_dir"], target_is_directory=True)
        before = self.written(workdir)
        self.again(given, data_dir=str(moved))
        assert self.written(workdir) == before

    def test_a_choice_that_was_not_scored_may_be_made_anew(self, scored, tmp_path, monkeypatch):
        given, _ = scored
        worth = iter([0.2, 0.9, 0.9, 0.2])
        monkeypatch.setattr(
            select, "evaluate", lambda *of: {"cap": dict.fromkeys(select.CRITERION, next(worth))}
        )
        for seed, point in ((0, "solver=affine_ridge"), (1, "solver=nearest")):
            self.again(given, workdir=str(tmp_path), seed=seed, score_test=False)
            chosen = json.loads((tmp_path / "chosen.json").read_text())
            assert chosen["point"] == point and chosen["test_set"] is None

    def test_an_interrupted_score_is_of_the_same_choice(self, scored, tmp_path, monkeypatch):
        given, _ = scored
        given = given | {"workdir": str(tmp_path), "category": "all", "num_review": 0}
        monkeypatch.setattr(
            select, "evaluate", lambda *of: {"cap": dict.fromkeys(select.CRITERION, 0.5)}
        )
        fitted = []

        def stops_at_nut(found, *others):
            fitted.append(found.name)
            if fitted == ["cap", "nut"]:
                raise KeyboardInterrupt
            results = dict.fromkeys(metrics.Metrics._fields, 0.5) | {"seconds": {}}
            return {"results": results, "baselines": {}, "images": [], "notes": []}

        monkeypatch.setattr(category, "run", stops_at_nut)
        with pytest.raises(KeyboardInterrupt):
            self.again(given)
        assert not (tmp_path / "test" / "results.json").exists()
        assert "give another --workdir" in self.fails(given, seed=1)
        self.again(given)
        assert fitted == ["cap", "nut", "nut"]
        results = json.loads((tmp_path / "test" / "results.json").read_text())
        assert set(results["categories"]) == {"cap", "nut"}
