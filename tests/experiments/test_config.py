import dataclasses

import pytest

from experiments import config
from experiments.choices import ConfigError


def resolved(**fields):
    return config.resolve(config.Config(**fields))


def test_defaults_come_from_the_backbone():
    default = resolved()
    assert default.layers == ("block4", "block10", "block14")
    assert default.grid == 16
    resnet = resolved(backbone="wide_resnet50_2", image_size=224)
    assert resnet.layers == ("layer2", "layer3")
    assert resnet.grid == 28


def test_grid_is_rounded_up_like_the_feature_map():
    assert resolved(image_size=250).grid == 16


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
        ({"baselines": ("neerest",)}, "--baseline: unknown baseline 'neerest'"),
        ({"bank_ratio": 0.0}, "--bank_ratio=0.0 must be in"),
        ({"bank_ratio": 1.5}, "--bank_ratio=1.5 must be in"),
        ({"bank_ratio": float("nan")}, "--bank_ratio=nan must be in"),
        ({"bank_size": 0}, "--bank_size=0"),
        ({"num_neighbors": 0}, "--num_neighbors=0"),
        ({"ridge": 0.0}, "--ridge=0.0"),
        ({"sigma": -1.0}, "--sigma=-1.0"),
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
    settings = resolved(bank_size=513)
    config.check_sizes(settings, {"bolt": 3})
    with pytest.raises(ConfigError, match="--bank_size=513, but category bolt has 512 nominal"):
        config.check_sizes(settings, {"bolt": 2})


def test_more_neighbours_than_atoms():
    with pytest.raises(ConfigError, match=r"--num_neighbors=10.*a bank of 8 atoms"):
        config.check_sizes(resolved(), {"bolt": 3})
    config.check_sizes(resolved(solver="nearest"), {"bolt": 3})


def test_a_tiny_ratio_still_makes_one_atom():
    assert config.Config(bank_ratio=1e-6).num_atoms(100) == 1
    assert config.Config(bank_ratio=0.01).num_atoms(194816) == 1948


def test_digest_depends_on_every_field():
    base = config.Config()
    others = [
        dataclasses.replace(base, **{field.name: "other"}) for field in dataclasses.fields(base)
    ]
    digests = {c.digest(category="a") for c in (base, *others)} | {base.digest(category="b")}
    assert len(digests) == len(others) + 2
    assert base.digest(category="a") == config.Config().digest(category="a")
