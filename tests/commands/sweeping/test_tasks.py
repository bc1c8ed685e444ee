import shutil

import pytest

from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.sweeping import grids, tasks
from sgfr_jax.datasets import DatasetError
from tests.commands.sweeping.small_sweep import points, two_samplers


def test_a_task_for_every_point_and_category_those_of_one_bank_together(folder):
    planned = tasks.plan(points(folder))
    assert len(planned) == 8 == len({task.name for task in planned})
    groups = tasks.groups(planned)
    assert [len(group) for group in groups] == [2, 2, 2, 2]
    assert [(g[0].category, g[0].config.method.sampler) for g in groups] == [
        ("cap", "k_center"), ("cap", "random"), ("nut", "k_center"), ("nut", "random")
    ]  # fmt: skip
    assert groups[3][1].title.endswith("solver=nearest), category nut")
    assert groups[3][1].config.data.categories == ("nut",)


def test_names_follow_from_the_configuration_and_the_data_alone(folder, tmp_path):
    names = [task.name for task in tasks.plan(points(folder))]
    assert [task.name for task in tasks.plan(points(folder))] == names
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert [task.name for task in tasks.plan(points(tmp_path / "elsewhere"))] == names
    mask = folder / "nut" / "ground_truth" / "dent" / "0_mask.png"
    shutil.copy(folder / "nut" / "ground_truth" / "dent" / "1_mask.png", mask)
    changed = [task.name for task in tasks.plan(points(folder))]
    assert changed[:4] == names[:4] and not set(changed[4:]) & set(names)


def test_a_point_named_twice_is_one_task(folder):
    twice = [*points(folder), *points(folder)]
    assert tasks.plan(twice) == tasks.plan(points(folder))


def test_other_seeds_and_shots_are_other_tasks(folder):
    def grid(add):
        for seed in (0, 1):
            add(shots=2, seed=seed)
        add()

    planned = tasks.plan(points(folder, grid))
    assert len({task.name for task in planned}) == 6
    assert len(tasks.groups(planned)) == 6


@pytest.mark.parametrize(
    "flags,together",
    [
        ({"solver": "nearest"}, True),
        ({"num_neighbors": 3, "sigma": 2.0}, True),
        ({"ridge": 0.1, "search": "reduced"}, True),
        ({"seed": 1}, False),
        ({"bank_ratio": 0.1}, False),
        ({"subspaces": "pca"}, False),
        ({"metrics": "streaming"}, False),
    ],
)
def test_what_shares_a_bank(small, flags, together):
    other = small.replace(**flags)
    assert (tasks.bank_of(small) == tasks.bank_of(other)) == together


@pytest.mark.parametrize("makes", [{"sampler": "support_frequency"}, {"subspaces": "dictionary"}])
def test_a_solver_that_makes_the_bank_shares_none(small, makes):
    one = small.replace(**makes)
    assert tasks.bank_of(one) != tasks.bank_of(one.replace(num_neighbors=3))


@pytest.mark.parametrize("layers", [("auto",), ("block4@1",)])
def test_several_streams_share_between_solvers_of_the_same_penalties(small, layers):
    one = small.replace(layers=layers)
    assert tasks.bank_of(one) == tasks.bank_of(one.replace(solver="nearest"))
    assert tasks.bank_of(one) != tasks.bank_of(one.replace(ridge=0.1))


def test_a_plan_in_another_order_is_the_same_task(folder):
    def grid(add):
        for layers in ("block4@1,block2@1.5", "block2@1.5,block4@1", "block4@1", "auto"):
            add(layers=layers, grid=None)

    planned = tasks.plan(points(folder, grid))
    assert len(planned) == 3 * 2 and len(tasks.groups(planned)) == 3 * 2
    assert planned[0].config.method.layers == ("block4@1", "block2@1.5")


def test_a_point_that_does_not_fit_the_data_is_named(folder):
    def grid(add):
        add()
        add(shots=6)

    with pytest.raises(ConfigError, match=r"grid test, point 2 \(shots=6\): --shots=6, but .*cap"):
        tasks.plan(points(folder, grid))
    with pytest.raises(ConfigError, match=r"point 1 \(num_neighbors=21\): --num_neighbors=21"):
        tasks.plan(points(folder, lambda add: add(num_neighbors=21)))


def test_data_that_is_not_there(tmp_path):
    with pytest.raises(DatasetError):
        tasks.plan(points(tmp_path / "nowhere"))


def test_slices_are_all_groups_once(folder):
    groups = tasks.groups(tasks.plan(points(folder, two_samplers)))
    for count in (1, 2, 3, 4, 7):
        sliced = [tasks.slice_of(groups, index, count) for index in range(count)]
        assert [group for one in sliced for group in one] == groups


@pytest.mark.parametrize("text", ["", "3", "16/16", "-1/2", "1/0", "a/b", "1.5/2", "0/1/2"])
def test_slices_that_are_none(text):
    with pytest.raises(ConfigError, match=f"--slice={text} must be"):
        tasks.parse_slice(text)
    assert tasks.parse_slice("3/16") == (3, 16)


def test_every_grid_has_sharing_groups():
    # The grid of 24 points has 6 banks.
    from sgfr_jax.commands.flags import config

    found = grids.points("solver_by_bank", config.Config.of())
    assert len({tasks.bank_of(point.config) for point in found}) == 6
