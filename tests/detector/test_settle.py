"""Errors speak of arguments; that commands speak of flags is in commands/flags/test_config."""

import dataclasses

import numpy as np
import pytest

from sgfr_jax.detector import network, settle
from sgfr_jax.detector.method import Method
from sgfr_jax.errors import ArgumentError
from tests.detector import pretended

LITE0 = network.describe("efficientnet_lite0")


def test_what_is_left_open_is_filled_in():
    found = settle.settle(Method(), LITE0)
    assert (found.sampler, found.image_size, found.grid) == ("k_center", 256, 0)
    assert (found.layers, found.geometry) == (("auto",), "auto")  # images decide
    fast = settle.settle(Method.fast(subspaces="pca"), LITE0)
    assert fast.layers == LITE0.default_levels and fast.geometry == "square"
    assert fast.sampler == "random"
    for settled in (fast, found):  # what is settled stays, as a detector is fitted anew
        assert settle.settle(settled, LITE0) == settled
    large = settle.settle(Method(), network.describe("dinov2_vits14"))
    assert large.image_size == 448
    assert settle.settle(Method(image_size=64), pretended.NETWORK).layers == ("auto",)
    one = settle.settle(Method.fast(image_size=40), pretended.NETWORK)
    assert one.layers == ("fine", "coarse") and one.grid == 5  # of the finer


@pytest.mark.parametrize(
    "fields,message",
    [
        ({"solver": "affine_rigde"}, r"^`solver`: unknown solver 'affine_rigde'.*affine_ridge"),
        ({"sampler": "k_centre"}, r"^`sampler`: .*k_center"),
        ({"subspaces": "none"}, "^`subspaces`: "),
        ({"search": "fast"}, "^`search`: "),
        ({"geometry": "round"}, "^`geometry`: "),
        ({"geometry": "tile+tile"}, r"^geometry=tile\+tile must be different ones"),
        ({"geometry": "crop+tile"}, r"^geometry=crop\+tile must be without crop"),
        ({"geometry": "auto+tile"}, r"^geometry=auto\+tile must be auto alone"),
        ({"image_size": 0}, "^image_size=0 must be a number of pixels"),
        ({"image_size": 12}, "^image_size=12 is smaller than the network's stride of 16"),
        ({"crop": 1.5}, r"^crop=1.5 must be in \(0, 1\]"),
        ({"tile": 3}, "^tile=3 must be a positive number"),
        ({"overlap": 0.9}, r"^overlap=0.9 must be in \[0, 0.5\]"),
        ({"halo": -1.0}, "^halo=-1.0 must be in"),
        ({"breadth": -1.0}, "^breadth=-1.0 must be between"),
        ({"image_prior": -1.0}, "^image_prior=-1.0 must be between"),
        ({"sigma": 1e-9}, "^sigma=1e-09 must be 0, or between 0.001 and image_size=64"),
        ({"bank_ratio": 2.0}, "^bank_ratio=2.0 must be in"),
        ({"bank_size": 0}, "^bank_size=0 must be a positive number of atoms"),
        ({"bank_size": 5, "bank_ratio": 0.1}, "^bank_size=5 must be left out with bank_ratio=0.1"),
        ({"num_neighbors": 0}, "^num_neighbors=0 must be at least 1"),
        ({"ridge": 0.0}, "^ridge=0.0 must be between 1e-12"),
        ({"sparsity": 0}, "^sparsity=0 must be at least 1"),
        ({"l1": 1.0}, "^l1=1.0 must be above 0 and below 1"),
        ({"l2": -1.0}, "^l2=-1.0 must be between"),
        ({"max_atoms": 0}, "^max_atoms=0 must be between"),
        ({"num_subspaces": 0}, "^num_subspaces=0 must be at least 1"),
        ({"subspace_rank": 0}, "^subspace_rank=0 must be at least 1"),
        ({"grid": -1}, "^grid=-1 must be between 1"),
        ({"grid": 65, "layers": ("fast",)}, "^grid=65 must be at most image_size=64"),
        ({"grid": 0, "layers": ("fast",)}, "^grid=0 must be between 1"),
        ({"subspaces": "pca"}, "^subspace_rank=8 must be below 5, the features of a patch"),
        ({"solver": "project"}, "^solver=project codes over learned subspaces.* add subspaces=pca"),
        ({"layers": ("auto", "fine")}, "^layers=auto,fine must be auto or fast alone"),
        ({"layers": ("fine", "fine")}, "^layers=fine,fine must be each named once"),
        ({"layers": ("fin",)}, "^`layers`: unknown level of network 'fin'.*fine"),
        ({"layers": ("fin@1",)}, "^`layers`: unknown level of network 'fin'"),
        ({"layers": ("fine@1", "coarse")}, "^layers=fine@1,coarse must be all LEVEL@SCALE"),
        ({"layers": ("fine@no",)}, "^layers=fine@no: LEVEL@SCALE takes a positive number"),
        ({"layers": ("fine@1000",)}, "^layers=fine@1000 must be of a smaller scale"),
        ({"layers": ("coarse@0.1",)}, "^layers=coarse@0.1 must be of a larger scale"),
        ({"layers": ("fine@1", "fine@1.01")}, "^layers=fine@1.01 is the same stream as fine@1 "),
    ],
)  # fmt: skip
def test_errors_name_the_argument(fields, message):
    method = Method(**{"image_size": 64} | fields)
    with pytest.raises(ArgumentError, match=message) as raised:
        settle.settle(method, pretended.NETWORK)
    assert "--" not in str(raised.value)


def test_errors_of_baselines_and_sizes():
    with pytest.raises(ArgumentError, match=r"^baseline=project codes over learned subspaces"):
        settle.settle(Method(image_size=64), pretended.NETWORK, ("project",))
    patches = dataclasses.replace(pretended.NETWORK, size_multiple=14)
    with pytest.raises(ArgumentError, match=r"^image_size=64: network takes .* 56 and 70"):
        settle.settle(Method(image_size=64), patches)


@pytest.mark.parametrize(
    "fields,num,message",
    [
        ({"layers": ("fast",), "bank_size": 300}, 4, "^bank_size=300, but category cap has 256"),
        ({"num_neighbors": 40}, 2, "^num_neighbors=40, but category cap has 32 nominal patches and"
         " so a bank of 32 atoms: lower `num_neighbors`, or raise `bank_ratio` or `bank_size`"),
        ({"subspaces": "k_subspaces", "subspace_rank": 4, "num_subspaces": 9}, 2,
         "^num_subspaces=9 times subspace_rank=4 is more than the bank's 32 atoms"),
        ({"subspaces": "pca", "subspace_rank": 3, "num_neighbors": 4}, 2,
         "^num_neighbors=4, .* 3 atoms of subspaces: lower `num_neighbors`, or raise subspace"),
    ],
)  # fmt: skip
def test_too_few_images_are_told_with_what_would_do(fields, num, message):
    method = pretended.settled(**fields)
    with pytest.raises(ArgumentError, match=message):
        settle.check_sizes(method, pretended.NETWORK, {"cap": num})
    settle.check_sizes(method, pretended.NETWORK, {})


def test_of_tiles_images_say_how_many_patches_there_are():
    method = pretended.settled(layers=("fast",), bank_size=300, geometry="tile")
    settle.check_sizes(method, pretended.NETWORK, {"cap": 1})
    with pytest.raises(ArgumentError, match="bank_size=300, but category cap has 64"):
        settle.check_patches(method, {"cap": 64})


def test_strides_and_grids_of_what_is_looked_at():
    method = pretended.settled()
    assert settle.largest_stride(method, pretended.NETWORK) == 16
    assert settle.coarsest_grid(method, pretended.NETWORK) == 4
    fine = pretended.settled(layers=("fine",))
    assert settle.largest_stride(fine, pretended.NETWORK) == 8


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"image_size": "64"}, "image_size='64' must be a whole number"),
        ({"image_size": 64.0}, r"image_size=64\.0 must be a whole number"),
        ({"bank_size": True}, "bank_size=True must be a whole number"),
        ({"ridge": "x"}, "ridge='x' must be a number"),
        ({"sigma": None}, "sigma=None must be a number"),
        ({"unit_norm": "no"}, "unit_norm='no' must be True or False"),
        ({"geometry": None}, "geometry=None must be a text"),
        ({"layers": ()}, "layers=.* must be names of levels"),
        ({"layers": (1,)}, "layers=.* must be names of levels"),
    ],
)
def test_fields_of_another_type_are_named(fields, what):
    with pytest.raises(ArgumentError, match=what):
        settle.with_types(Method(**fields))


def test_numbers_of_numpy_and_lists_will_do():
    found = settle.with_types(
        Method(image_size=np.int64(64), sigma=np.float32(2), unit_norm=np.bool_(False),
               layers=["fast"])
    )  # fmt: skip
    assert found == Method(image_size=64, sigma=2.0, unit_norm=False, layers="fast")
    assert hash(found) and type(found.image_size) is int
