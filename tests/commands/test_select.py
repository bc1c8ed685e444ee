import itertools
import json

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from sgfr_jax import metrics
from sgfr_jax.commands import select
from sgfr_jax.commands.files import inputs
from sgfr_jax.commands.flags import config
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.host import environment
from sgfr_jax.commands.host.machine import Resources
from sgfr_jax.commands.pages import category
from sgfr_jax.commands.sweeping import validation
from sgfr_jax.detector import synthetic
from tests.detector import pretended
from tests.small import SMALL, write_folder


@pytest.fixture(scope="module", autouse=True)
def few_defects():
    """Of one size: each has to be drawn, and scored."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "SIZES", (0.2,))
        patch.setattr(synthetic, "SIZES", (0.2,))
        yield


def test_every_point_of_a_grid_once():
    points = select.parse_grid("layers=fast|block2+block4; num_neighbors=5|8", config.Config())
    assert [title for title, _ in points] == [
        "layers=fast num_neighbors=5",
        "layers=fast num_neighbors=8",
        "layers=block2+block4 num_neighbors=5",
        "layers=block2+block4 num_neighbors=8",
    ]
    assert points[3][1].method.layers == ("block2", "block4")
    assert points[3][1].method.num_neighbors == 8
    assert [title for title, _ in select.parse_grid("", config.Config())] == ["default"]
    points = select.parse_grid("unit_norm=false|true;halo=0|0.5", config.Config())
    values = [settings.method for _, settings in points]
    assert [(of.unit_norm, of.halo) for of in values] == [
        (False, 0.0), (False, 0.5), (True, 0.0), (True, 0.5)
    ]  # fmt: skip
    assert all(type(of.halo) is float for of in values)
    # Of one bank `auto` means squares.
    looks = select.parse_grid("layers=auto|fast;geometry=auto|square", config.Config())
    assert [(of.method.layers[0], of.method.geometry) for _, of in looks] == [
        ("auto", "auto"), ("auto", "square"), ("block4", "square")
    ]  # fmt: skip
    plans = select.parse_grid("layers=auto|block4@1.5+block10@1", config.Config())
    assert [point.method.layers for _, point in plans] == [("auto",), ("block10@1", "block4@1.5")]


@pytest.mark.parametrize(
    "grid,message",
    [
        ("layers", "'layers' must be flag=value"),
        ("layer=fast", "--candidates: unknown flag 'layer'. Did you mean 'layers'"),
        ("solver=afine_ridge", "--solver: unknown solver"),
        ("num_neighbors=0", "--num_neighbors=0"),
        ("num_neighbors=5.5", "--candidates: num_neighbors=5.5 must be of type int"),
        ("halo=0.1|much", "--candidates: halo=much must be of type float"),
        ("unit_norm=maybe", "--candidates: unit_norm=maybe must be true or false"),
        ("halo=0.1;halo=0.2", "--candidates: name halo once"),
        ("halo=0.2|0.20", "--candidates: halo=0.20 is named twice"),
        ("shots=1|2", "--candidates: all candidates have the same images .* give --shots"),
        ("categories=a|b", "give --category on the command line"),
        ("baselines=nearest", "give --baseline on the command line"),
    ],
)
def test_mistakes_in_a_grid_are_named(grid, message):
    with pytest.raises(ConfigError, match=message):
        select.parse_grid(grid, config.Config())


def select_from(points, workdir, *, share=0.3, repeats=1, **resources):
    categories = inputs.load_data(points[0][1])
    resources = Resources(workdir, **resources)
    return select.select(points, categories, resources, share=share, repeats=repeats)


def test_the_better_candidate_wins_and_the_test_set_is_not_read(folder, tmp_path, monkeypatch):
    for path in folder.glob("*/test/**/*.png"):
        path.write_bytes(b"not an image")
    pretended.stand_in(monkeypatch)
    base = config.resolve(SMALL.replace(data_dir=str(folder), layers=("fine", "coarse")))
    points = [("blind", base), ("seeing", base), ("again", base)]
    worth = iter([0.2, 0.9, 0.9])
    evaluate = select.evaluate

    def judged(settings, categories, resources):
        found = evaluate(settings, categories, resources)
        assert all(0 <= v <= 1 for m in found.values() for v in m.values())
        value = next(worth)
        return {name: dict.fromkeys(metrics, value) for name, metrics in found.items()}

    monkeypatch.setattr(select, "evaluate", judged)
    winner, rows = select_from(points, tmp_path)
    assert winner == 1
    assert [round(row["criterion"], 6) for row in rows] == [0.2, 0.9, 0.9]
    assert json.loads(json.dumps(rows)) == rows
    assert "seeing" in select.table(rows) and "±" not in select.table(rows)


def test_repeats_split_and_draw_anew_and_chance_decides_nothing(folder, tmp_path, monkeypatch):
    base = config.resolve(SMALL.replace(data_dir=str(folder), categories=("cap",), seed=7))
    points = [("first", base), ("second", base.replace(solver="nearest"))]
    posed, worth = [], {"affine_ridge": iter([0.5, 0.7, 0.6]), "nearest": iter([0.8, 0.5, 0.65])}

    def judged(settings, categories, resources):
        posed.append((settings.evaluation.seed, tuple(e.name for e in categories[0].test)))
        return {"cap": dict.fromkeys(select.CRITERION, next(worth[settings.method.solver]))}

    monkeypatch.setattr(select, "evaluate", judged)
    winner, rows = select_from(points, tmp_path, repeats=3)
    seeds, tests = zip(*posed, strict=True)
    assert seeds == (7, 7, 8, 8, 9, 9)
    assert tests[0] == tests[1] and len(set(tests)) == 3
    # The second is 0.05 ahead, by 0.3, -0.2 and 0.05: within one standard error, 0.144.
    assert winner == 0
    np.testing.assert_allclose([row["behind"] for row in rows], [0.05, 0], atol=1e-9)
    np.testing.assert_allclose(rows[0]["standard_error"], 0.25 / np.sqrt(3))
    assert rows[1]["categories"]["cap"]["aupro"] == pytest.approx(0.65)
    assert [of["cap"]["aupro"] for of in rows[1]["repeats"]] == [0.8, 0.5, 0.65]
    assert "5.00 ± 14.43" in select.table(rows)


class TestGoingOn:
    """What was found before an interruption is not found anew."""

    @pytest.fixture
    def points(self, folder):
        base = config.resolve(SMALL.replace(data_dir=str(folder), categories=("cap",)))
        return [("first", base), ("second", base.replace(solver="nearest"))]

    @pytest.fixture
    def done(self, monkeypatch):
        """Which points of which repeats have been evaluated, as often as they were."""
        done, value = [], itertools.count()

        def judged(settings, categories, resources):
            done.append(resources.workdir.name)
            if len(done) == 4:
                raise KeyboardInterrupt
            return {"cap": dict.fromkeys(select.CRITERION, 0.1 * next(value))}

        monkeypatch.setattr(select, "evaluate", judged)
        return done

    @pytest.fixture
    def interrupted(self, points, done, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            select_from(points, tmp_path, repeats=2)
        assert done == ["0-0", "1-0", "0-1", "1-1"]
        done.append("interrupted")
        return tmp_path

    def test_of_what_is_missing(self, points, done, interrupted):
        (interrupted / "validation" / "1-0" / "validated.json").write_text("{}")
        _, rows = select_from(points, interrupted, repeats=2)
        assert done[5:] == ["1-0", "1-1"]
        np.testing.assert_allclose([row["criterion"] for row in rows], [0.1, 0.35])

    def test_with_more_repeats(self, points, done, interrupted):
        select_from(points, interrupted, repeats=3)
        assert done[5:] == ["1-1", "0-2", "1-2"]

    def test_nothing_is_drawn_in_vain(self, points, done, interrupted, monkeypatch):
        select_from(points, interrupted, repeats=2)
        monkeypatch.setattr(validation, "of_category", None)
        select_from(points, interrupted, repeats=2)
        monkeypatch.undo()
        assert done[5:] == ["1-1"]

    def test_never_of_another_code_or_another_share(self, points, done, interrupted, monkeypatch):
        select_from(points, interrupted, repeats=1, share=0.5)
        assert done[5:] == ["0-0", "1-0"]
        monkeypatch.setattr(environment, "source", lambda: "edited")
        select_from(points, interrupted, repeats=1, share=0.5)
        assert done[7:] == ["0-0", "1-0"]


def test_seeds_that_repeats_would_leave_are_refused(folder, tmp_path):
    base = config.resolve(SMALL.replace(data_dir=str(folder), seed=2**32 - 2))
    with pytest.raises(ConfigError, match="--seed: the last repeat has the seed 4294967296"):
        select_from([("one", base)], tmp_path, repeats=3)


@pytest.mark.parametrize(
    "criteria,winner",
    [
        ([[0.5], [0.5], [0.6], [0.6]], 2),  # of one repeat the highest, the first of equals
        ([[0.5, 0.7], [0.6, 0.6], [0.61, 0.61]], 0),  # 0.01 behind, within 0.1
        ([[0.5, 0.5], [0.61, 0.61], [0.62, 0.62]], 2),  # always behind by as much
        ([[0.3, 0.9, 0.6]], 0),
    ],
)
def test_the_first_within_one_standard_error_of_the_best_wins(criteria, winner):
    found = select.compare(np.array(criteria))
    assert found.winner == winner
    best = int(np.argmax(found.mean))
    assert found.behind[best] == 0 == found.error[best]


@pytest.mark.parametrize(
    "criteria,least_gain,winner",
    [
        ([[0.5, 0.5], [0.504, 0.504]], 0.005, 0),  # always behind, but by less
        ([[0.5, 0.5], [0.504, 0.504]], 0.003, 1),
        ([[0.5], [0.504]], 0.005, 0),
        ([[0.5, 0.5], [0.508, 0.508], [0.512, 0.512]], 0.005, 1),  # against the best
        ([[0.5, 0.52], [0.515, 0.515]], 0.001, 0),  # within one standard error
    ],
)
def test_what_is_ahead_by_less_than_the_least_gain_does_not_win(criteria, least_gain, winner):
    assert select.compare(np.array(criteria), least_gain).winner == winner


@pytest.mark.slow
def test_plans_of_streams_are_compared(folder, tmp_path):
    base = config.Config.of(
        dataset="folder", data_dir=str(folder), categories=("cap",), image_size=64, bank_size=20,
        solver="nearest",
    )  # fmt: skip
    points = select.parse_grid("layers=block14@1|block4@1+block2@1", base)
    winner, rows = select_from(points, tmp_path, share=0.4, batch_size=4)
    assert [row["point"] for row in rows] == ["layers=block14@1", "layers=block4@1+block2@1"]
    # Of 2 x 2 patches nothing can be localized.
    assert winner == 1 and rows[1]["criterion"] > rows[0]["criterion"] + 0.05


def test_metrics_that_are_undefined_do_not_count():
    found = {"a": {"pixel_ap": 0.5, "aupro": None}, "b": {"pixel_ap": 1.0, "aupro": None}}
    assert select.criterion_of(found) == 0.75
    assert select.criterion_of({"a": {"pixel_ap": None}}) == 0.0


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """The flags of a command that has chosen and scored, and its work directory.

    Through a network that is none, as all that goes on with it.
    """
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["select"])
    directory = tmp_path_factory.mktemp("scored")
    given = {
        "dataset": "folder", "data_dir": str(write_folder(directory)), "category": "cap",
        "layers": ["fine", "coarse"], "image_size": 64, "bank_size": 20, "num_neighbors": 5,
        "candidates": "solver=nearest|affine_ridge", "score_test": True,
        "cache_dir": "", "num_figures": 0, "workdir": str(directory / "out"),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        pretended.stand_in(patch)
        with flagsaver.flagsaver(**given):
            select.main(["select"])
        yield given, directory / "out"


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
            {"repeats": 2},
            {"least_gain": 0.5},
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

    def test_images_where_results_go_are_refused(self, scored, no_work):
        """The images of `test` beside the run on the test set."""
        given, workdir = scored
        images = workdir.parent / "photographs" / "cap"
        before = sorted(images.rglob("*.*"))
        message = self.fails(given, workdir=str(images))
        assert "where results go: name another --workdir" in message
        assert sorted(images.rglob("*.*")) == before

    def test_what_is_in_the_way_is_not_overwritten(self, scored, no_work, tmp_path):
        given, _ = scored
        (tmp_path / "chosen.json").write_text("mine")
        assert "'chosen.json' is in the way" in self.fails(given, workdir=str(tmp_path))
        assert (tmp_path / "chosen.json").read_text() == "mine"

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

    @pytest.mark.parametrize("least_gain,point", [(0.0, "affine_ridge"), (0.5, "nearest")])
    def test_the_first_stays_for_less_than_the_least_gain(
        self, scored, tmp_path, monkeypatch, least_gain, point
    ):
        given, _ = scored
        worth = iter([0.6, 0.604])
        monkeypatch.setattr(
            select, "evaluate", lambda *of: {"cap": dict.fromkeys(select.CRITERION, next(worth))}
        )
        self.again(given, workdir=str(tmp_path), least_gain=least_gain, score_test=False)
        chosen = json.loads((tmp_path / "chosen.json").read_text())
        assert chosen["point"] == f"solver={point}"

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
