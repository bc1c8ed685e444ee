import dataclasses

import jax
import numpy as np
import pytest
from sgfr_jax.detector.choices import ConfigError

from sgfr_jax.commands.flags import config, usage
from sgfr_jax.commands.host import devices
from sgfr_jax.datasets import images as reading
from sgfr_jax.detector import models, predictor
from tests.detector import made_models
from tests.small import SMALL


@pytest.fixture(scope="module")
def photographs():
    rng = np.random.default_rng(1)
    sizes = ((70, 90, 3), (64, 64), (130, 101, 3))
    return [rng.integers(0, 256, size).astype(np.uint8) for size in sizes]


def squares(photographs, model):
    """The photographs at every size that the model looks at."""
    sizes = predictor.sizes(model.config)
    return [np.stack([reading.read_image(x, size) for x in photographs]) for size in sizes]


def made(**fields):
    return made_models.make(config.resolve(usage.cleared(dataclasses.replace(SMALL, **fields))))


@pytest.mark.parametrize(
    ("fields", "plain"),
    [
        ({}, False),
        ({"solver": "ridge", "ridge": 0.1, "search": "reduced", "unit_norm": False}, True),
        ({"solver": "nearest", "layers": ("block2@1", "block4@1.5")}, True),
        pytest.param({"layers": ("auto",), "sigma": 0.0}, False, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_it_gives_what_the_model_gives(fields, plain, photographs):
    model = made(**fields)
    predict = jax.jit(predictor.make(model, plain=plain).predict)
    found = predict(*squares(photographs, model))
    expected = list(models.make_scorer(model, batch_size=3)(photographs))
    assert found.anomaly_map.shape == (3, 64, 64) and found.score.shape == (3,)
    for i, one in enumerate(expected):
        assert found.score[i] == pytest.approx(one.score, rel=1e-5)
        np.testing.assert_allclose(found.anomaly_map[i], one.anomaly_map, rtol=1e-5, atol=1e-5)


def test_an_image_does_not_depend_on_its_batch(photographs):
    model = made()
    predict = jax.jit(predictor.make(model).predict)
    (whole,) = squares(photographs, model)
    np.testing.assert_allclose(
        predict(whole).anomaly_map[1:2], predict(whole[1:2]).anomaly_map, rtol=1e-6
    )


def test_the_gradient_with_respect_to_an_image(photographs):
    """Against differences, along the gradient itself."""
    model = made()
    whole = predictor.make(model)
    image = np.float32(squares(photographs, model)[0][:1])

    @jax.jit
    def score(image):
        return whole.predict(image).score[0]

    gradient = jax.grad(score)(image)
    step = 0.5 * gradient / np.linalg.norm(gradient)
    change = float(score(image + step) - score(image - step)) / 2
    assert float(np.vdot(gradient, step)) == pytest.approx(change, rel=0.05)


def test_sizes_are_those_of_the_streams():
    assert predictor.sizes(made().config) == (64,)
    assert predictor.sizes(made(layers=("auto",)).config) == (64, 96)
    assert predictor.sizes(made(layers=("block4@2", "block2@1", "block2@2")).config) == (64, 128)


def test_what_has_no_predictor():
    with pytest.raises(ConfigError, match="--solver=omp cannot be exported; affine_ridge, ridge"):
        predictor.make(made(solver="omp"))


def test_another_geometry_is_refused():
    with pytest.raises(ConfigError, match="--geometry=tile cannot be exported"):
        predictor.check(made(geometry="tile").config)


def test_it_is_of_one_device_whatever_there_is(monkeypatch):
    asked, lay_out = [], devices.lay_out
    monkeypatch.setattr(devices, "lay_out", lambda *args: asked.append(args[0]) or lay_out(*args))
    predictor.make(made())
    assert asked == [devices.ONE]


def products(jaxpr):
    """All products of floating numbers in a program, and in those it calls."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr"),
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from products(inner)


@pytest.mark.parametrize("layers", [("block2", "block4"), ("auto",)])
def test_no_product_is_left_to_the_precision_of_a_device(layers):
    """By default a TPU rounds factors to bfloat16, and a GPU to TF32."""
    model = made(layers=layers)
    images = [np.zeros((1, size, size, 3), np.uint8) for size in predictor.sizes(model.config)]
    found = list(products(jax.make_jaxpr(predictor.make(model).predict)(*images).jaxpr))
    assert len(found) > 30
    for equation in found:
        assert equation.params["precision"] == (jax.lax.Precision.HIGHEST,) * 2, equation
