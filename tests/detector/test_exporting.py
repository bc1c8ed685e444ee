import jax
import numpy as np
import pytest
from jax import export

from sgfr_jax.commands.flags import config, usage
from sgfr_jax.datasets import images as reading
from sgfr_jax.detector import exporting, model, predicting
from sgfr_jax.detector import squares as of_squares
from sgfr_jax.errors import ArgumentError
from tests.detector import made_models, pretended
from tests.small import SMALL


@pytest.fixture(scope="module")
def photographs():
    rng = np.random.default_rng(1)
    sizes = ((70, 90, 3), (64, 64), (130, 101, 3))
    return [rng.integers(0, 256, size).astype(np.uint8) for size in sizes]


def squares(photographs, detector):
    """The photographs at every size that the detector looks at."""
    sizes = of_squares.sizes(detector)
    return [np.stack([reading.read_image(x, size) for x in photographs]) for size in sizes]


def made(**fields):
    """Through one of our networks."""
    return made_models.make(config.resolve(usage.cleared(SMALL.replace(**fields))))


def tiny(**fields):
    fields = {"layers": ("fast",), "geometry": "square"} | fields
    return made_models.of(pretended.settled(**fields), pretended.NETWORK)


@pytest.mark.parametrize(
    ("make", "fields", "plain"),
    [
        (tiny, {}, False),
        (made, {"solver": "ridge", "ridge": 0.1, "search": "reduced", "unit_norm": False}, True),
        (made, {"solver": "nearest", "layers": ("block2@1", "block4@1.5")}, True),
        (tiny, {"layers": ("auto",), "sigma": 0.0}, False),
    ],
    ids=["tiny", "ridge", "nearest", "streams"],
)
def test_it_gives_what_the_detector_gives(make, fields, plain, photographs):
    detector = make(**fields)
    predict = jax.jit(exporting.make(detector, plain=plain).predict)
    found = predict(*squares(photographs, detector))
    expected = list(predicting.make_scorer(detector, model.stages_of(detector))(photographs))
    assert found.anomaly_map.shape == (3, 64, 64) and found.score.shape == (3,)
    for i, one in enumerate(expected):
        assert found.score[i] == pytest.approx(one.score, rel=1e-5)
        np.testing.assert_allclose(found.anomaly_map[i], one.anomaly_map, rtol=1e-5, atol=1e-5)


def test_an_image_does_not_depend_on_its_batch(photographs):
    detector = tiny()
    predict = jax.jit(exporting.make(detector).predict)
    (whole,) = squares(photographs, detector)
    np.testing.assert_allclose(
        predict(whole).anomaly_map[1:2], predict(whole[1:2]).anomaly_map, rtol=1e-6
    )


def test_the_gradient_with_respect_to_an_image(photographs):
    """Against differences, along the gradient itself."""
    detector = tiny()
    whole = exporting.make(detector)
    image = np.float32(squares(photographs, detector)[0][:1])

    @jax.jit
    def score(image):
        return whole.predict(image).score[0]

    gradient = jax.grad(score)(image)
    step = 0.5 * gradient / np.linalg.norm(gradient)
    change = float(score(image + step) - score(image - step)) / 2
    assert float(np.vdot(gradient, step)) == pytest.approx(change, rel=0.05)


def test_a_file_for_any_batch_says_the_same(photographs):
    detector = tiny()
    (whole,) = squares(photographs, detector)
    read = export.deserialize(bytearray(exporting.to_stablehlo(detector, ["cpu", "cuda"])))
    assert read.platforms == ("cpu", "cuda")
    expected = jax.jit(exporting.make(detector).predict)(whole)
    for num in (3, 1):
        found = read.call(whole[:num])
        assert set(found) == {"anomaly_map", "score"}
        for name, values in found.items():
            wanted = getattr(expected, name)[:num]
            np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-6)


def test_what_has_no_predictor():
    with pytest.raises(ArgumentError, match="solver=omp cannot be exported; affine_ridge, ridge"):
        exporting.make(tiny(solver="omp"))
    with pytest.raises(ArgumentError, match="geometry=tile cannot be exported"):
        exporting.check(tiny(geometry="tile", tile=40).method)


def test_platforms_are_known_before_the_work():
    detector = tiny()
    read = export.deserialize(bytearray(exporting.to_stablehlo(detector, "cpu")))
    assert read.platforms == ("cpu",)
    with pytest.raises(ArgumentError, match=r"^`platforms`: unknown platform 'gpu'.*cuda, rocm"):
        exporting.to_stablehlo(detector, ("cpu", "gpu"))
    with pytest.raises(ArgumentError, match=r"^platforms=\(\) must be one of"):
        exporting.to_stablehlo(detector, ())


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
    detector = made(layers=layers)
    images = [np.zeros((1, size, size, 3), np.uint8) for size in of_squares.sizes(detector)]
    found = list(products(jax.make_jaxpr(exporting.make(detector).predict)(*images).jaxpr))
    assert len(found) > 30
    for equation in found:
        assert equation.params["precision"] == (jax.lax.Precision.HIGHEST,) * 2, equation
