import dataclasses

import pytest

from sgfr_jax.datasets.geometry import Geometry
from sgfr_jax.detector.method import LEARNED_PATCHES, STREAM_ATOMS, Method, Stage


def test_a_method_is_a_value_with_two_ways_to_begin():
    assert Method() == Method() and hash(Method()) == hash(Method())
    assert Method().has_streams and not Method().one_bank
    fast = Method.fast(sampler="random")
    assert fast == Method(layers=("fast",), sampler="random")
    assert not fast.has_streams and dataclasses.replace(fast, geometry="square").one_bank


@pytest.mark.parametrize(
    "layers,geometry,has_streams,one_bank",
    [
        (("auto",), "square", True, False),
        (("a@1", "b@2"), "tile", True, False),
        (("a", "b"), "square", False, True),
        (("a", "b"), "square+tile", False, False),
    ],
)
def test_how_many_banks_there_are(layers, geometry, has_streams, one_bank):
    method = Method(layers=layers, geometry=geometry)
    assert (method.has_streams, method.one_bank) == (has_streams, one_bank)


def test_the_ways_in_which_images_are_looked_at():
    method = Method(geometry="pad+tile", tile=40, overlap=0.1)
    assert method.geometries == (
        Geometry("pad", tile=40, overlap=0.1), Geometry("tile", tile=40, overlap=0.1)
    )  # fmt: skip
    assert method.tiled and not Method(geometry="pad").tiled


@pytest.mark.parametrize(
    "fields,num_patches,num_atoms",
    [
        ({}, 10**6, STREAM_ATOMS),
        ({}, 12, 12),  # coarse levels have few
        ({"bank_size": 30}, 12, 12),
        ({"bank_ratio": 0.1}, 5000, 500),
        ({"layers": ("fast",)}, 10**6, 10**4),  # a percent
        ({"layers": ("fast",)}, 5000, 100),  # but a hundred at least
        ({"layers": ("fast",)}, 64, 64),
        ({"layers": ("fast",), "bank_size": 30}, 12, 30),  # refused by `settle.check_patches`
        ({"subspaces": "pca", "sampler": "random"}, 10**6, LEARNED_PATCHES),
        ({"subspaces": "pca", "sampler": "random"}, 99, 99),
        ({"subspaces": "pca", "sampler": "random", "bank_size": 30}, 99, 30),
        ({"subspaces": "pca", "sampler": "k_center"}, 10**6, STREAM_ATOMS),
    ],
)
def test_the_atoms_of_a_bank(fields, num_patches, num_atoms):
    assert Method(**fields).num_atoms(num_patches) == num_atoms


OTHERS = Method(
    backbone="other", weights="w", layers=("a@1",), image_size=64, large_image_size=96,
    geometry="tile", crop=0.5, tile=40, overlap=0.1, grid=3, unit_norm=False, sampler="random",
    bank_ratio=0.5, bank_size=30,
    subspaces="pca", num_subspaces=3, subspace_rank=2, affine_subspaces=True, solver="lasso",
    num_neighbors=4, ridge=0.1, sparsity=3, l1=0.1, l2=0.2, max_atoms=5, search="reduced",
    sigma=1.0, halo=0.1, breadth=0.1, image_prior=0.1,
)  # fmt: skip


def test_every_field_takes_part_in_one_stage_and_only_keeps_it():
    defaults, seen = Method(), set()
    for stage in Stage:
        kept = OTHERS.only(stage)
        changed = {
            field.name
            for field in dataclasses.fields(Method)
            if getattr(kept, field.name) != getattr(defaults, field.name)
        }
        assert changed and not changed & seen
        assert all(getattr(kept, name) == getattr(OTHERS, name) for name in changed)
        seen |= changed
    assert seen == {field.name for field in dataclasses.fields(Method)}
    assert OTHERS.only(*Stage) == OTHERS and OTHERS.only() == defaults


def test_what_comes_later_leaves_what_came_before():
    """Methods that differ in a stage alone are equal in the others, and share what is compiled."""
    other = dataclasses.replace(OTHERS, bank_size=31)
    assert other.only(Stage.CODE, Stage.MAP) == OTHERS.only(Stage.CODE, Stage.MAP)
    assert other.only(Stage.BANK) != OTHERS.only(Stage.BANK)
