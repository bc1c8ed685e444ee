import itertools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import scipy.special
from jax import export

from sgfr_jax import backbones
from sgfr_jax.backbones import ARCHITECTURES, WeightsError, vision_transformer
from tests.backbones import made_weights, pth_writer

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "tokens.npz")
TINY = {registers: made_weights.tiny_transformer(registers) for registers in (0, 4)}
CASES = [(registers, i) for registers, a in TINY.items() for i in range(len(a.layouts))]


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    for architecture in TINY.values():
        monkeypatch.setitem(ARCHITECTURES, architecture.name, architecture)


def made_file(architecture, layout, folder):
    path = folder / "weights"
    shapes = made_weights.transformer_shapes(architecture, layout)
    safetensors.numpy.save_file(made_weights.make(shapes), path)
    return path


@pytest.fixture(scope="module", params=TINY)
def either(request, tmp_path_factory):
    """The path of a small network's file, with Meta's names, and its architecture."""
    architecture = TINY[request.param]
    folder = tmp_path_factory.mktemp(architecture.name)
    return made_file(architecture, architecture.layouts[0], folder), architecture


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The same of the one with registers."""
    folder = tmp_path_factory.mktemp("tiny")
    return made_file(TINY[4], TINY[4].layouts[0], folder), TINY[4]


@pytest.mark.parametrize(("registers", "index"), CASES)
def test_maps_and_logits_are_those_of_torch(registers, index, tmp_path):
    architecture = TINY[registers]
    layout = architecture.layouts[index]
    path, images = made_file(architecture, layout, tmp_path), made_weights.patch_batch()
    backbone = backbones.load(architecture.name, path, ("block1", "norm2"))
    maps = jax.jit(backbone.embed)(backbone.state, images)
    for level in backbone.levels:
        key = f"{architecture.name}/{layout.name}/{level}"
        assert maps[level].dtype == jnp.float32
        np.testing.assert_array_equal(maps[level].shape, GOLDEN[f"{key}/shape"])
        values, largest, norm = made_weights.summary(maps[level])
        golden_largest, golden_norm = GOLDEN[f"{key}/scale"]
        assert np.abs(values - GOLDEN[f"{key}/values"]).max() < 1e-5 * golden_largest, level
        np.testing.assert_allclose((largest, norm), (golden_largest, golden_norm), rtol=1e-5)
    if layout.name != "transformers_headed":
        with pytest.raises(WeightsError, match="has no classifier"):
            backbones.load_classifier(architecture.name, path)
        return
    classifier = backbones.load_classifier(architecture.name, path)
    logits = jax.jit(classifier.logits)(classifier.state, images)
    golden = GOLDEN[f"{architecture.name}/{layout.name}/logits"]
    assert np.abs(logits - golden).max() < 1e-5 * np.abs(golden).max()


@pytest.mark.parametrize("write", [pth_writer.legacy_file, pth_writer.zip_file])
def test_a_file_of_torch_with_metas_names_is_the_same_network(either, write, tmp_path):
    path, architecture = either
    torchs = tmp_path / "dinov2.pth"
    torchs.write_bytes(write(*pth_writer.state_dict(safetensors.numpy.load_file(path))))
    expected, found = (backbones.load(architecture.name, p, ("norm2",)) for p in (path, torchs))
    jax.tree.map(np.testing.assert_array_equal, found.state, expected.state)


def cubic(x, a):
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def resized_axis(values, new, antialias):
    """Along the first axis, one output at a time."""
    old, out = len(values), []
    for i in range(new):
        total, weight = 0.0, 0.0
        if antialias:
            scale = old / new
            centre, wide = scale * (i + 0.5), max(scale, 1)
            for j in range(old):
                tap = cubic((j + 0.5 - centre) / wide, -0.5)
                total, weight = total + tap * values[j], weight + tap
            out.append(total / weight)
            continue
        centre = (i + 0.5) * old / (new + 0.1) - 0.5
        for j in range(math.floor(centre) - 1, math.floor(centre) + 3):
            total = total + cubic(centre - j, -0.75) * values[min(max(j, 0), old - 1)]
        out.append(total)
    return np.stack(out)


def resized(positions, size, antialias):
    rows = resized_axis(positions.astype(np.float64), size[0], antialias)
    return np.swapaxes(resized_axis(np.swapaxes(rows, 0, 1), size[1], antialias), 0, 1)


@pytest.mark.parametrize(
    ("size", "antialias"), list(itertools.product(made_weights.POSITION_SIZES, (False, True)))
)
def test_positions_are_those_of_torch(size, antialias):
    golden = GOLDEN[f"positions/{size[0]}x{size[1]}/{antialias}"]
    positions = made_weights.positions()
    found = vision_transformer.interpolate(jnp.asarray(positions), size, antialias=antialias)
    np.testing.assert_allclose(found, golden, atol=5e-6)
    np.testing.assert_allclose(resized(positions, size, antialias), golden, atol=5e-6)


@pytest.mark.parametrize("antialias", [False, True])
def test_positions_of_their_own_size_stay_as_they_are(antialias):
    positions = jnp.asarray(made_weights.positions())
    assert vision_transformer.interpolate(positions, (7, 7), antialias=antialias) is positions
    # The offset moves the rows too, as soon as the columns are others.
    wider = vision_transformer.interpolate(positions, (7, 8), antialias=antialias)
    expected = resized(made_weights.positions(), (7, 8), antialias)
    np.testing.assert_allclose(wider, expected, atol=5e-6)


def layer_norm(x, scale, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * scale + bias


def forward(arrays, architecture, images):
    """`{level: map}` by the definition, in float64, from a file with Meta's names."""
    arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
    width, heads = architecture.blocks[0].width, architecture.blocks[0].heads
    batch, height, breadth = len(images), images.shape[1] // 14, images.shape[2] // 14

    def linear(name, x):
        return x @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"]

    def norm(name, x):
        return layer_norm(x, arrays[f"{name}.weight"], arrays[f"{name}.bias"])

    x = (images - np.array(architecture.mean)) / np.array(architecture.std)
    kernel, patches = arrays["patch_embed.proj.weight"], np.empty((batch, height, breadth, width))
    for i, j in itertools.product(range(height), range(breadth)):
        patch = x[:, 14 * i : 14 * i + 14, 14 * j : 14 * j + 14]
        patches[:, i, j] = np.einsum("bhwc,ochw->bo", patch, kernel)
    places = arrays["pos_embed"][0, 1:].reshape(37, 37, width)
    if (height, breadth) != (37, 37):
        places = resized(places, (height, breadth), architecture.tokens.antialias)
    patches = patches + arrays["patch_embed.proj.bias"] + places

    first = arrays["cls_token"] + arrays["pos_embed"][:, :1]
    if "register_tokens" in arrays:
        first = np.concatenate([first, arrays["register_tokens"]], axis=1)
    first = np.repeat(first, batch, axis=0)
    tokens = np.concatenate([first, patches.reshape(batch, -1, width)], axis=1)

    maps, size = {}, width // heads
    for i in range(len(architecture.blocks)):
        name = f"blocks.{i}"
        query, key, value = np.split(
            linear(f"{name}.attn.qkv", norm(f"{name}.norm1", tokens)), 3, axis=-1
        )
        attended = np.empty_like(query)
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            products = query[..., part] @ np.swapaxes(key[..., part], 1, 2) / np.sqrt(size)
            attended[..., part] = scipy.special.softmax(products, axis=-1) @ value[..., part]
        merged = linear(f"{name}.attn.proj", attended)
        tokens = tokens + arrays[f"{name}.ls1.gamma"] * merged
        inner = linear(f"{name}.mlp.fc1", norm(f"{name}.norm2", tokens))
        inner = inner * scipy.special.ndtr(inner)
        tokens = tokens + arrays[f"{name}.ls2.gamma"] * linear(f"{name}.mlp.fc2", inner)
        maps[f"block{i}"], maps[f"norm{i}"] = tokens, norm("norm", tokens)
    skipped = first.shape[1]
    return {
        level: x[:, skipped:].reshape(batch, height, breadth, width) for level, x in maps.items()
    }


@pytest.mark.parametrize("size", [(28, 70), (112, 84)])
def test_maps_are_the_definition(size, either):
    path, architecture = either
    images = made_weights.patch_batch(*size)
    expected = forward(safetensors.numpy.load_file(path), architecture, images)
    backbone = backbones.load(architecture.name, path, architecture.levels)
    maps = jax.jit(backbone.embed)(backbone.state, images)
    assert set(maps) == set(expected)
    for level, values in expected.items():
        assert np.abs(maps[level] - values).max() < 5e-6 * np.abs(values).max(), level


@pytest.mark.slow
def test_maps_of_the_native_size_are_the_definition(either):
    path, architecture = either
    images = made_weights.patch_batch(518, 518)[:1]
    expected = forward(safetensors.numpy.load_file(path), architecture, images)["norm2"]
    backbone = backbones.load(architecture.name, path)
    maps = jax.jit(backbone.embed)(backbone.state, images)
    assert np.abs(maps["norm2"] - expected).max() < 5e-6 * np.abs(expected).max()


def test_the_form_for_accelerators_gives_the_same_maps(tiny):
    path, architecture = tiny
    backbone, images = backbones.load(architecture.name, path), made_weights.patch_batch()
    whole = jax.jit(backbone.embed)(backbone.state, images)["norm2"]

    def default(*operands, cpu, default):
        return default(*operands)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.lax, "platform_dependent", default)
        batched = jax.jit(lambda state, x: backbone.embed(state, x))(backbone.state, images)
    np.testing.assert_allclose(batched["norm2"], whole, atol=1e-5)
    exported = export.export(jax.jit(backbone.embed), platforms=("cpu", "cuda", "tpu"))(
        backbone.state, images
    )
    again = jax.jit(exported.call)(backbone.state, images)
    np.testing.assert_allclose(again["norm2"], whole, atol=1e-5)


def test_one_image_does_not_touch_another(tiny):
    path, architecture = tiny
    backbone, images = backbones.load(architecture.name, path), made_weights.patch_batch(28, 42)
    embed = jax.jit(backbone.embed)
    whole = embed(backbone.state, images.astype(np.float32))["norm2"]
    damaged = images.astype(np.float32)
    damaged[1, 0, 0] = np.nan
    found = embed(backbone.state, damaged)["norm2"]
    np.testing.assert_array_equal(found[0], whole[0])
    assert np.isnan(found[1]).all()  # every token attends to every other


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((84, 256), "sides that 14 divides, not 256: the nearest are 252 and 266"),
        ((85, 84), "not 85: the nearest are 84 and 98"),
        ((13, 84), "not 13: the nearest are 14 and 28"),
        ((0, 84), "not 0: the nearest are 14 and 28"),
    ],
)
def test_images_that_patches_do_not_fill(size, message, tiny):
    path, architecture = tiny
    backbone = backbones.load(architecture.name, path)
    with pytest.raises(ValueError, match=f"{architecture.name} takes images with .*{message}"):
        jax.eval_shape(backbone.embed, backbone.state, np.zeros((1, *size, 3), np.uint8))


def test_only_what_the_levels_need_is_kept(tiny):
    path, architecture = tiny
    backbone = backbones.load(architecture.name, path, ("block1", "block0"))
    assert set(backbone.state) == {"stem", "tokens", "blocks"}
    assert set(backbone.state["blocks"]) == {0, 1}
    assert "norm" in backbones.load(architecture.name, path, ("norm0",)).state
    shapes = jax.eval_shape(backbone.embed, backbone.state, made_weights.patch_batch())
    assert {level: x.shape for level, x in shapes.items()} == {
        "block0": (2, 6, 9, 32),
        "block1": (2, 6, 9, 32),
    }


def test_everything_that_misfits_is_reported_at_once(tiny, tmp_path):
    path, architecture = tiny
    arrays = safetensors.numpy.load_file(path)
    del arrays["blocks.1.ls2.gamma"], arrays["blocks.0.attn.qkv.bias"]
    arrays["pos_embed"] = np.zeros((1, 257, 32), np.float32)
    arrays["blocks.3.norm1.weight"] = np.zeros(32, np.float32)
    safetensors.numpy.save_file(arrays, tmp_path / "damaged")
    with pytest.raises(WeightsError, match="2 missing, 1 unexpected, 1 of another shape") as error:
        backbones.load(architecture.name, tmp_path / "damaged")
    for part in ("1.ls2.gamma", "0.attn.qkv.bias", "blocks.3.norm1.weight", "(1, 257, 32)"):
        assert part in str(error.value)


def test_registers_tell_the_files_apart(either):
    path, architecture = either
    other = TINY[4 - architecture.tokens.registers]
    with pytest.raises(WeightsError, match=f"this file fits {architecture.name}: backbone="):
        backbones.load(other.name, path)
