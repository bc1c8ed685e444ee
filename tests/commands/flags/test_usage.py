"""Every flag is used or refused: all pairs of a flag and of what decides whether it is used."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

from sgfr_jax import datasets, samplers, subspaces, types
from sgfr_jax.commands import select
from sgfr_jax.commands.flags import config, options, starting, usage
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.datasets.geometry import windows
from sgfr_jax.detector import alternatives
from sgfr_jax.detector.method import Method
from tests.datasets import trees

# Another value of every flag of a configuration, within its range.
OTHER = {
    "sampler": "random", "num_subspaces": 5, "subspace_rank": 3, "affine_subspaces": True,
    "num_neighbors": 3, "ridge": 0.2, "sparsity": 2, "l1": 0.3, "l2": 0.2, "max_atoms": 7,
    "search": "reduced", "split": "grouped", "split_seed": 3, "crop": 0.5, "tile": 30,
    "overlap": 0.5, "grid": 5, "halo": 0.4, "breadth": 0.5, "image_prior": 0.1,
    "large_image_size": 512,
}  # fmt: skip
# What there is a use for with whatever else is chosen, and what `datasets.load` refuses.
ALWAYS = {
    "dataset", "data_dir", "prepared_dir", "train_glob", "test_glob", "mask_glob", "manifest",
    "categories", "shots", "backbone", "weights", "layers", "image_size", "geometry", "unit_norm",
    "bank_ratio", "bank_size", "subspaces", "solver", "sigma", "metrics", "eval_size", "seed",
    "baselines", "skip_bad_images",
}  # fmt: skip
BANK = types.Bank(jnp.zeros((4, 2)), jnp.ones(4), jnp.arange(4))
OF_CODES = ("num_neighbors", "ridge", "sparsity", "l1", "l2", "max_atoms", "search")


def is_refused(flag, **fields):
    """Whether a flag is, be it given with its default, and by one line that names it."""
    base = config.Config.of(**{"layers": ("fast",)} | fields)
    config.resolve(base)  # without the flag all is well
    refusals = []
    for asked, given in (
        (base.replace(**{flag: OTHER[flag]}), ()),
        (base, {flag}),
    ):
        try:
            config.resolve(asked, given)
        except ConfigError as error:
            assert str(error).startswith(f"--{flag}=") and "must be left out with" in str(error)
            assert "\n" not in str(error)
            refusals.append(error)
    assert len(refusals) in (0, 2)
    return bool(refusals)


def test_the_table_has_every_flag_that_may_be_without_use():
    assert {use.flag for use in usage.TABLE} == set(OTHER)
    assert config.FIELDS.keys() == set(OTHER) | ALWAYS
    for flag, value in OTHER.items():
        assert value != config.DEFAULTS[flag]


def bound(code):
    """All that is bound to a coder."""
    found = dict(code.keywords)
    solve = found.pop("solve", None)
    return found | getattr(solve, "keywords", {})


@pytest.mark.parametrize("flag", OF_CODES)
@pytest.mark.parametrize("solver", alternatives.SOLVERS)
def test_flags_and_solvers(solver, flag):
    learner = {"subspaces": "pca"} if solver == "project" else {}
    changed, usual = Method(**{flag: OTHER[flag]}), Method()
    differs = bound(alternatives.make_coder(solver, changed)) != bound(
        alternatives.make_coder(solver, usual)
    )
    assert is_refused(flag, solver=solver, **learner) == (not differs)
    if solver != "affine_ridge":  # as a baseline it uses what it uses
        both = differs or flag in alternatives.SOLVERS["affine_ridge"].uses
        assert is_refused(flag, baselines=(solver,), **learner) == (not both)


@pytest.mark.parametrize("flag", OF_CODES)
@pytest.mark.parametrize("solver", ["nearest", "omp", "lasso", "whole_bank_ridge"])
@pytest.mark.parametrize("sampler", alternatives.SAMPLERS)
def test_flags_and_samplers(sampler, solver, flag, monkeypatch):
    """Samplers that code patches use what their coder does."""
    codes = []

    def take(key, points, weights, num, *, code, **more):
        codes.append(bound(code))

    monkeypatch.setattr(samplers, "support_frequency", take)
    for method in (
        Method(solver=solver, sampler=sampler),
        Method(solver=solver, sampler=sampler, **{flag: OTHER[flag]}),
    ):
        if sampler == "support_frequency":
            alternatives.make_sampler(method).start(None, jnp.zeros((90, 4)), jnp.ones(90), 4)
        codes.append(bound(alternatives.make_coder(solver, method)))
    half = len(codes) // 2
    differs = codes[:half] != codes[half:]
    assert is_refused(flag, solver=solver, sampler=sampler) == (not differs)


@pytest.mark.parametrize("flag", ["num_subspaces", "subspace_rank", "affine_subspaces", "sampler"])
@pytest.mark.parametrize("learner", alternatives.LEARNERS)
def test_flags_and_basis_learners(learner, flag, monkeypatch):
    calls = []
    for name in alternatives.SUBSPACE_LEARNERS:

        def take(*args, **given):
            calls.append({key: value for key, value in given.items() if key != "code"})
            raise StopIteration

        monkeypatch.setattr(subspaces, name, take)
    if learner in alternatives.SUBSPACE_LEARNERS:
        for fields in ({}, {flag: OTHER[flag]}):
            method = Method(subspaces=learner, **fields)
            with pytest.raises(StopIteration):
                alternatives.make_learner(method)(None, BANK)
        differs = calls[0] != calls[1] or flag == "sampler"
    else:  # only one of them samples a bank
        differs = flag == "sampler" and learner == "implicit"
    assert is_refused(flag, subspaces=learner) == (not differs)


@pytest.mark.parametrize("flag", ["split", "split_seed"])
@pytest.mark.parametrize("name", datasets.DATASETS)
def test_flags_and_data_sets(name, flag, tmp_path):
    if name in trees.TREES:
        trees.TREES[name](tmp_path)
    elif name == "folder":
        trees.mvtec(tmp_path)
    directory = None if name == "demo" else tmp_path
    used = "split" in inspect.signature(datasets.DATASETS[name]).parameters
    if flag == "split_seed":
        first, other = (
            datasets.load(name, directory, **fields) for fields in ({}, {flag: OTHER[flag]})
        )
        used = [contents(c) for c in first] != [contents(c) for c in other]
    assert is_refused(flag, dataset=name) == (not used)


def contents(category):
    return [
        (e.name, e.label, e.image.tobytes() if isinstance(e.image, np.ndarray) else "")
        for e in (*category.train[:3], *category.test[:3])
    ]


@pytest.mark.parametrize("flag", ["crop", "tile", "overlap"])
@pytest.mark.parametrize("kinds", ["square", "pad", "crop", "tile", "square+pad", "pad+tile"])
def test_flags_and_geometries(kinds, flag):
    def seen(**fields):
        found = Method(geometry=kinds, **{"tile": 40} | fields).geometries
        return [windows((90, 200), of) for of in found]

    differs = seen() != seen(**{flag: OTHER[flag]})
    assert is_refused(flag, geometry=kinds) == (not differs)


@pytest.mark.parametrize(
    "fields, used",
    [
        ({"layers": ("fast",)}, {"grid"}),
        ({"layers": ("block4",)}, {"grid"}),
        ({"layers": ("fast",), "geometry": "square+pad"}, {"grid", "breadth", "image_prior"}),
        ({"layers": ("auto",)}, {"large_image_size", "halo", "breadth", "image_prior"}),
        ({"layers": ("block4@1",)}, {"halo", "breadth", "image_prior"}),
    ],
)
def test_flags_and_layers(fields, used):
    flags_of_banks = ("large_image_size", "grid", "halo", "breadth", "image_prior")
    assert {flag for flag in flags_of_banks if not is_refused(flag, **fields)} == used


def test_large_squares_are_of_squares_alone():
    for geometry, used in (
        ("square", True),
        ("auto", True),
        ("pad", False),
        ("square+tile", False),
    ):
        assert is_refused("large_image_size", layers=("auto",), geometry=geometry) == (not used)
    with pytest.raises(ConfigError, match="--large_image_size=256 must be above --image_size=256"):
        config.resolve(config.Config.of(large_image_size=256))


def test_what_is_cleared_is_as_if_it_had_not_been_given():
    asked = config.Config.of(solver="nearest", ridge=0.1, num_neighbors=3, seed=5, split_seed=2)
    assert usage.cleared(asked) == config.Config.of(solver="nearest", seed=5, split_seed=2)
    assert usage.cleared(asked, ["ridge"]).method.ridge == 0.1
    folder = asked.replace(dataset="folder")
    assert usage.cleared(folder, ["split_seed"]).data.split_seed == 0  # no grid can know the data


def test_of_several_points_one_has_to_use_a_flag():
    points = [config.Config.of(solver=name) for name in ("nearest", "omp")]
    usage.refuse_unused(points, {"sparsity", "search", "seed"})
    with pytest.raises(ConfigError, match=r"--max_atoms must be left out: no point uses it"):
        usage.refuse_unused(points, {"max_atoms"})


def test_candidates_differ_in_what_they_use():
    points = select.parse_grid("solver=affine_ridge|nearest;num_neighbors=5|8", config.Config())
    assert len(points) == 3 and points[2][1].method.num_neighbors == Method().num_neighbors
    with pytest.raises(ConfigError, match="--l1 must be left out: no point uses it; it is for"):
        select.parse_grid("l1=0.1|0.01", config.Config())
    with pytest.raises(ConfigError, match=r"--sparsity must be left out: .* --solver=omp"):
        select.parse_grid("layers=auto|fast", config.Config(), given={"sparsity"})
    with pytest.raises(ConfigError, match="--solver is set by --candidates"):
        select.parse_grid("solver=nearest|omp", config.Config(), given={"solver"})


@pytest.fixture
def named():
    """Names flags on the command line, for as long as a test lasts."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["run"])
    before = {}

    def name(**values):
        for flag, value in values.items():
            before.setdefault(flag, (flags.FLAGS[flag].value, flags.FLAGS[flag].present))
            flags.FLAGS[flag].value, flags.FLAGS[flag].present = value, 1

    yield name
    for flag, (value, present) in before.items():
        flags.FLAGS[flag].value, flags.FLAGS[flag].present = value, present


def test_the_command_line_is_told_of_a_default_without_use(named):
    named(sparsity=5)
    with pytest.raises(ConfigError, match="--sparsity=5 must be left out with --solver="):
        options.config_from_flags()
    named(solver="omp")
    assert options.config_from_flags().method.sparsity == 5


def test_a_cache_of_some_size_needs_a_place(named, tmp_path):
    named(cache_dir="", cache_gb=3.0)
    with pytest.raises(ConfigError, match="--cache_gb=3 must be left out with --cache_dir="):
        starting.resources_from_flags(tmp_path)


def test_a_selection_refuses_what_only_a_run_writes(named):
    named(save_maps=True)
    with pytest.raises(ConfigError, match="--save_maps is of the test score: add --score_test"):
        select._given()
    named(score_test=True)
    assert {"save_maps", "score_test"} <= select._given()
    named(check_data=True)
    with pytest.raises(ConfigError, match="--check_data is for"):
        select._given()
