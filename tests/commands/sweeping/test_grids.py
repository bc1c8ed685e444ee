import pytest

from sgfr_jax.commands.flags import config
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.sweeping import grids


def points_of(monkeypatch, grid, base=None, given=()):
    monkeypatch.setitem(grids.GRIDS, "mine", grid)
    return grids.points("mine", base or config.Config.of(layers=("fast",)), given)


@pytest.mark.parametrize("name", grids.GRIDS)
def test_every_grid_can_be_run_and_repeats_nothing(name):
    points = grids.points(name, config.Config.of())
    assert len({point.config for point in points}) == len(points) > 4
    assert points[-1].title.startswith(f"grid {name}, point {len(points)} (")


def test_the_grid_of_24_points():
    settings = [point.config for point in grids.points("solver_by_bank", config.Config.of())]
    assert len(settings) == 24
    axes = [{c.get(axis) for c in settings} for axis in ("sampler", "bank_ratio", "solver")]
    assert [len(values) for values in axes] == [2, 3, 4]
    assert not settings[0].method.has_streams


def test_the_few_shots_of_the_issue():
    settings = [point.config for point in grids.points("few_shot", config.Config.of())]
    assert {c.data.shots for c in settings} == {1, 2, 4, 8, 16}


def test_points_have_the_command_line_s_flags_but_for_their_own(monkeypatch):
    def grid(add):
        add(solver="ridge", ridge=1)
        add(layers="block2,block4")

    base = config.Config.of(layers=("fast",), seed=7)
    first, second = points_of(monkeypatch, grid, base)
    assert first.config == config.resolve(base.replace(solver="ridge", ridge=1.0))
    assert isinstance(first.config.method.ridge, float)
    assert (
        second.config.method.layers == ("block2", "block4") and second.config.evaluation.seed == 7
    )


def test_tuples_of_penalties_are_points(monkeypatch):
    found = points_of(
        monkeypatch, lambda add: add(solver="elastic_net", l1=(0.1, 0.2), l2=(1e-3, 1e-2))
    )
    assert [(p.config.method.l1, p.config.method.l2) for p in found] == [
        (0.1, 1e-3), (0.1, 1e-2), (0.2, 1e-3), (0.2, 1e-2)
    ]  # fmt: skip
    assert found[1].title == "grid mine, point 2 (solver=elastic_net l1=0.1 l2=0.01)"


@pytest.mark.parametrize(
    "flags,words",
    [
        ({"sampled": "random"}, ["unknown flag 'sampled'", "Did you mean 'sampler'"]),
        ({"sampler": "rondom"}, ["--sampler", "Did you mean 'random'"]),
        ({"bank_ratio": 2.0}, ["--bank_ratio=2.0"]),
        ({"bank_ratio": (0.1, 0.2)}, ["--bank_ratio", "tuples are for ridge, l1, l2"]),
        ({"ridge": ()}, ["--ridge=()"]),
        ({"ridge": (1e-3, "x")}, ["--ridge=", "type"]),
        ({"seed": 1.5}, ["--seed=1.5", "type"]),
        ({"seed": True}, ["--seed=True", "type"]),
        ({"unit_norm": 1}, ["--unit_norm=1", "type"]),
        ({"layers": 3}, ["--layers=3", "type"]),
        ({"layers": "block99"}, ["--layers", "block99"]),
        ({"dataset": "mtd"}, ["--dataset", "whole sweep"]),
        ({"category": "a"}, ["--category", "whole sweep"]),
        ({"baseline": "nearest"}, ["--baseline", "whole sweep"]),
    ],
)
def test_mistakes_name_the_grid_and_the_point(monkeypatch, flags, words):
    def grid(add):
        add(seed=1)
        add(**flags)

    with pytest.raises(ConfigError) as caught:
        points_of(monkeypatch, grid)
    for word in ["grid mine, point 2", *words]:
        assert word in str(caught.value)


def test_a_flag_of_the_command_line_that_the_grid_sets(monkeypatch):
    with pytest.raises(ConfigError, match="--seed is set by grid mine, point 1"):
        points_of(monkeypatch, lambda add: add(seed=1), given={"seed"})


def test_an_unknown_grid():
    with pytest.raises(ConfigError, match=r"--grid: unknown grid 'sed'\. Did you mean 'seeds'"):
        grids.points("sed", config.Config.of())
