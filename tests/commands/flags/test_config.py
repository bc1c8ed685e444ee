import pytest

from sgfr_jax.commands.flags import config
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.detector.method import Method

FAST = ("fast",)


def resolved(**fields):
    return config.resolve(config.Config.of(**fields))


def method(**fields):
    return resolved(**fields).method


def test_defaults_come_from_the_backbone():
    assert method().has_streams and method().image_size == 256
    assert method().layers == ("auto",)
    fast = method(layers=FAST)
    assert fast.layers == ("block4", "block10", "block14")
    assert fast.grid == 16
    resnet = method(backbone="wide_resnet50_2", image_size=224, layers=FAST)
    assert resnet.layers == ("layer2", "layer3")
    assert resnet.grid == 28


def test_grid_is_rounded_up_like_the_feature_map():
    assert method(image_size=250, layers=FAST).grid == 16


@pytest.mark.parametrize(
    "fields,message",
    [
        ({"dataset": "mvtek"}, "--dataset: unknown data set 'mvtek'. Did you mean 'mvtec'"),
        ({"backbone": "resnet81"}, "Did you mean 'resnet18'"),
        (
            {"layers": ("block4", "blok10")},
            "--layers: unknown level of efficientnet_lite0 'blok10'",
        ),
        ({"layers": ("block4", "block4")}, "--layers=block4,block4 must be each named once"),
        ({"sampler": "kcenter"}, "Did you mean 'k_center'"),
        ({"solver": "afine_ridge"}, "Did you mean 'affine_ridge'"),
        ({"solver": "zzz"}, "Known: affine_ridge, ridge, nearest"),
        ({"layers": ("auto", "block4")}, "--layers=auto,block4 must be auto or fast alone"),
        ({"grid": 8}, "--grid=8 must be left out"),
        ({"layers": ("fast", "block4@1")}, "--layers=fast,block4@1 must be auto or fast alone"),
        (
            {"layers": ("block4", "block10@1")},
            "--layers=block4,block10@1 must be all LEVEL@SCALE, each with a bank of its own, or",
        ),
        ({"layers": ("blok10@1",)}, "--layers: unknown level of efficientnet_lite0 'blok10'"),
        ({"layers": ("@1",)}, "--layers: unknown level of efficientnet_lite0 ''"),
        *(
            (
                {"layers": ("block2@1", f"block4@{scale}")},
                f"--layers=block4@{scale}: LEVEL@SCALE takes a positive number as its scale, not"
                f" '{scale}'",
            )
            for scale in ("", "0", "-1", "inf", "nan", "big", "1@2")
        ),
        (
            {"layers": ("block2@0.1", "block14@0.1")},
            "--layers=block14@0.1 must be of a larger scale: at 25.6 pixels a side images are"
            " smaller than the level's stride of 32",
        ),
        (
            {"layers": ("block4@1", "block2@1", "block4@1.05")},
            "--layers=block4@1.05 is the same stream as block4@1 (both are 256 pixels a side); name"
            " one of them",
        ),
        ({"layers": ("block4@1", "block4@1")}, "--layers=block4@1 is the same stream as block4@1"),
        (
            {"layers": ("block4@1",), "grid": 8},
            "--grid=8 must be left out with --layers=block4@1: it is for --layers=names of levels",
        ),
        (
            {"layers": ("block2@1", "block10@1"), "subspaces": "pca", "subspace_rank": 24},
            "--subspace_rank=24 must be below 24",
        ),
        ({"solver": "lass"}, "Did you mean 'lasso'"),
        ({"baselines": ("neerest",)}, "--baseline: unknown baseline 'neerest'"),
        (
            {"baselines": ("affine_ridge",)},
            "--baseline=affine_ridge must be another than --solver=affine_ridge",
        ),
        ({"subspaces": "kmeans"}, "--subspaces: unknown basis learner 'kmeans'"),
        ({"split": "tiles"}, "--split: unknown split 'tiles'"),
        ({"bank_ratio": 0.0}, "--bank_ratio=0.0 must be in"),
        ({"bank_ratio": 1.5}, "--bank_ratio=1.5 must be in"),
        ({"bank_ratio": float("nan")}, "--bank_ratio=nan must be in"),
        ({"bank_size": 0}, "--bank_size=0"),
        (
            {"bank_size": 9, "bank_ratio": 0.1},
            "--bank_size=9 must be left out with --bank_ratio=0.1",
        ),
        ({"num_neighbors": 0}, "--num_neighbors=0"),
        ({"ridge": 0.0}, "--ridge=0.0"),
        ({"sparsity": 0}, "--sparsity=0"),
        ({"l1": 0.0}, "--l1=0.0"),
        ({"l1": 1.0}, "--l1=1.0 must be above 0 and below 1"),
        ({"l2": -1.0}, "--l2=-1.0"),
        ({"max_atoms": 0}, "--max_atoms=0"),
        ({"num_subspaces": 0}, "--num_subspaces=0"),
        ({"subspace_rank": 0}, "--subspace_rank=0"),
        (
            {"solver": "project"},
            "--solver=project codes over learned subspaces, and --subspaces=implicit has none: add"
            " --subspaces=pca",
        ),
        ({"baselines": ("project",), "subspaces": "dictionary"}, "--baseline=project codes over"),
        (
            {"affine_subspaces": True},
            "--affine_subspaces=True must be left out with --subspaces=implicit: it is for"
            " --subspaces=pca",
        ),
        (
            {"subspaces": "dictionary", "sampler": "random"},
            "--sampler=random must be left out with --subspaces=dictionary",
        ),
        (
            {"subspaces": "pca", "subspace_rank": 40, "layers": ("block4",)},
            "--subspace_rank=40 must be below 40, the features of a patch",
        ),
        ({"subspaces": "pca", "subspace_rank": 400}, "--subspace_rank=400 must be below"),
        ({"sigma": -1.0}, "--sigma=-1.0"),
        ({"eval_size": "natve"}, "Did you mean 'native'"),
        ({"eval_size": "native", "metrics": "exact"}, "--metrics=exact must be auto or streaming"),
        ({"seed": -1}, "--seed=-1"),
        ({"split_seed": 2**32}, "--split_seed=4294967296"),
        ({"grid": 0}, "--grid=0"),
        ({"image_size": 0}, "--image_size=0"),
        ({"image_size": 31}, "--image_size=31 is smaller than the network's stride of 32"),
        ({"weights": "/no/such.pth"}, "--weights=/no/such.pth is not a file"),
    ],
)
def test_mistakes_name_the_flag(fields, message):
    with pytest.raises(ConfigError) as raised:
        resolved(**fields)
    assert message in str(raised.value)


def test_bank_larger_than_the_patches():
    settings = resolved(bank_size=513, layers=FAST)
    config.check_sizes(settings, {"bolt": 3})
    with pytest.raises(ConfigError, match="--bank_size=513, but category bolt has 512 nominal"):
        config.check_sizes(settings, {"bolt": 2})


def test_more_neighbours_than_atoms():
    one_percent = {"layers": FAST, "bank_ratio": 0.01}
    with pytest.raises(ConfigError, match=r"--num_neighbors=10.*a bank of 8 atoms"):
        config.check_sizes(resolved(**one_percent), {"bolt": 3})
    config.check_sizes(resolved(**one_percent, solver="nearest"), {"bolt": 3})
    config.check_sizes(resolved(layers=FAST), {"bolt": 1})


def test_every_solver_needs_atoms_enough():
    few, omp = {"bolt": 3}, {"layers": FAST, "bank_ratio": 0.01, "solver": "omp"}  # a bank of 8
    with pytest.raises(ConfigError, match=r"--sparsity=9.*a bank of 8 atoms: lower --sparsity"):
        config.check_sizes(resolved(**omp, sparsity=9), few)
    with pytest.raises(ConfigError, match="--num_neighbors=10"):
        config.check_sizes(resolved(**omp, baselines=("lasso",)), few)
    config.check_sizes(resolved(**omp, baselines=("nearest",)), few)
    config.check_sizes(resolved(**omp | {"solver": "elastic_net_bank"}), few)


def test_subspaces_need_atoms_enough_and_solvers_subspaces_enough():
    def check(**fields):
        config.check_sizes(resolved(layers=FAST, bank_size=40, **fields), {"bolt": 3})

    several = {"subspaces": "k_subspaces", "num_subspaces": 10, "subspace_rank": 4}
    check(**several, solver="project")
    check(**several, solver="affine_ridge", num_neighbors=40)
    with pytest.raises(ConfigError, match=r"--num_neighbors=41.*40 atoms of subspaces"):
        check(**several, num_neighbors=41)
    check(**several, affine_subspaces=True, num_neighbors=41)
    with pytest.raises(ConfigError, match="--num_subspaces=11 times --subspace_rank=4 is more"):
        check(**several | {"num_subspaces": 11}, solver="project")
    check(subspaces="pca", subspace_rank=40, solver="project")
    with pytest.raises(ConfigError, match=r"^--subspace_rank=41 is more than the bank's 40 atoms"):
        check(subspaces="pca", subspace_rank=41, solver="project")
    check(subspaces="dictionary", num_neighbors=40)


def test_bases_are_learned_from_patches_at_random_unless_a_sampler_is_named():
    for name, num in (("pca", 16_384), ("k_subspaces", 16_384), ("sparse_clustering", 1_000)):
        settings = resolved(layers=FAST, subspaces=name)
        made = settings.method
        assert (made.sampler, made.num_atoms(100_000)) == ("random", num)
        assert settings == config.resolve(settings)
        assert made.num_atoms(500) == min(num, 500, 100 if num == 1_000 else 500)
        assert method(layers=FAST, subspaces=name, bank_size=70).num_atoms(100_000) == 70
        old = method(layers=FAST, subspaces=name, sampler="k_center")
        assert (old.sampler, old.num_atoms(100_000)) == ("k_center", 1_000)
    assert method().sampler == method(subspaces="dictionary").sampler == "k_center"


def test_a_tiny_ratio_still_makes_one_atom():
    assert Method(bank_ratio=1e-6).num_atoms(100) == 1
    assert Method(bank_ratio=0.01).num_atoms(194816) == 1948


def test_the_default_bank_of_one_image_is_large_enough_to_code_over():
    fast = Method.fast()
    assert fast.num_atoms(194816) == 1948
    assert [fast.num_atoms(n) for n in (4, 256, 10_000, 12_800)] == [4, 100, 100, 128]
    assert Method.fast(bank_ratio=0.01).num_atoms(256) == 3
    assert Method.fast(bank_size=20).num_atoms(256) == 20


def test_digest_depends_on_every_field_but_where_records_lie():
    base = config.Config()
    assert base.replace(prepared_dir="other").digest() == base.digest()
    others = [base.replace(**{name: "other"}) for name in config.FIELDS if name != "prepared_dir"]
    digests = {c.digest(category="a") for c in (base, *others)} | {base.digest(category="b")}
    assert len(digests) == len(others) + 2
    assert base.digest(category="a") == config.Config().digest(category="a")


def test_fields_of_all_parts_are_named_as_flags_are():
    settings = config.Config.of(shots=3, sigma=2.0, seed=7)
    assert (settings.data.shots, settings.method.sigma, settings.evaluation.seed) == (3, 2.0, 7)
    assert settings.flat() == config.DEFAULTS | {"shots": 3, "sigma": 2.0, "seed": 7}
    assert settings.replace(shots=None, sigma=4.0, seed=0) == config.Config()
    assert settings.get("sigma") == 2.0
    with pytest.raises(KeyError, match="sigmas"):
        settings.replace(sigmas=2.0)
