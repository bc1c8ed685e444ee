import re

import numpy as np
import pytest

from sgfr_jax.backbones import ARCHITECTURES, WeightsError, fitting
from tests.backbones import made_weights

RESNET18, LITE0 = ARCHITECTURES["resnet18"], ARCHITECTURES["efficientnet_lite0"]


def zeros(architecture, layout=0):
    """A file that fits, at no cost: one zero in all places."""
    shapes = fitting.expected_shapes(architecture, architecture.layouts[layout])
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_every_layout_is_recognised(architecture):
    for i, layout in enumerate(architecture.layouts):
        fitted = fitting.fit(zeros(architecture, i), architecture, "file")
        assert fitted.layout == layout and fitted.num_classes == 0


@pytest.mark.parametrize("num_classes", [1, 10, 1000])
def test_any_number_of_classes(num_classes):
    arrays = zeros(RESNET18)
    arrays["fc.weight"], arrays["fc.bias"] = np.zeros((num_classes, 512)), np.zeros(num_classes)
    arrays["bn1.num_batches_tracked"] = np.array(3)
    assert fitting.fit(arrays, RESNET18, "file").num_classes == num_classes
    arrays["fc.bias"] = np.zeros(num_classes + 1)
    with pytest.raises(WeightsError, match=r"fc\.weight: "):
        fitting.fit(arrays, RESNET18, "file")
    del arrays["fc.bias"]
    with pytest.raises(WeightsError, match=r"1 missing\n.*\n +fc\.bias"):
        fitting.fit(arrays, RESNET18, "file")


def test_everything_that_misfits_is_reported_at_once():
    arrays = zeros(RESNET18)
    del arrays["bn1.weight"], arrays["layer3.0.conv1.weight"]
    arrays["extra"] = np.zeros(3)
    arrays["conv1.weight"] = np.zeros((64, 1, 7, 7))
    arrays["bn1.bias"] = np.zeros(64, np.int8)
    with pytest.raises(WeightsError) as error:
        fitting.fit(arrays, RESNET18, "file")
    message = str(error.value)
    assert message.startswith("file does not fit resnet18 (torchvision names): 2 missing, 1 unex")
    for part in (
        "bn1.weight",
        "layer3.0.conv1.weight",
        "extra",
        "conv1.weight: (64, 1, 7, 7) in the file, (64, 3, 7, 7) in resnet18",
        "bn1.bias: int8",
    ):
        assert f"    {part}" in message
    assert "`backbone`" not in message


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_the_network_that_a_file_fits_is_named(architecture):
    other = LITE0 if architecture.family == "resnet" else RESNET18
    with pytest.raises(WeightsError) as error:
        fitting.fit(zeros(architecture), other, "file")
    message = str(error.value)
    assert architecture.name in message.split("this file fits ")[1]
    assert re.search(r"and \d+ more", message) and len(message.splitlines()) < 45
    # The two that share names and shapes are both offered.
    assert (" or " in message) == (architecture.name == "efficientnet_lite0.ra_in1k")


def test_impossible_values_are_named():
    arrays = zeros(RESNET18)
    arrays["bn1.weight"] = np.full(64, np.nan)
    arrays["bn1.running_var"] = np.full(64, -1.0)
    with pytest.raises(WeightsError, match=r"bn1\.weight: NaN(.|\n)*bn1\.running_var: a negative"):
        fitting.fit(arrays, RESNET18, "file")


def test_batch_norm_is_folded(rng):
    shapes = fitting.expected_shapes(RESNET18, RESNET18.layouts[0])
    arrays = made_weights.make(
        {k: v for k, v in shapes.items() if k in ("conv1.weight",) or "bn1." in k}
    )
    fitted = fitting.fit(zeros(RESNET18), RESNET18, "file")
    layer = fitting.parameters(arrays, RESNET18, fitted, "stem")
    patch = rng.normal(size=(7, 7, 3))
    plain = np.einsum("oikl,kli->o", arrays["conv1.weight"], patch)
    normalised = (plain - arrays["bn1.running_mean"]) / np.sqrt(arrays["bn1.running_var"] + 1e-5)
    expected = normalised * arrays["bn1.weight"] + arrays["bn1.bias"]
    folded = np.einsum("klio,kli->o", layer["kernel"], patch) + layer["bias"]
    np.testing.assert_allclose(folded, expected, atol=1e-5)


def test_weights_that_overflow_when_folded():
    arrays = {**zeros(RESNET18), "bn1.weight": np.full(64, 1e38), "bn1.bias": np.zeros(64)}
    arrays["bn1.running_mean"] = np.ones(64)
    fitted = fitting.fit(arrays, RESNET18, "file")
    with pytest.raises(WeightsError, match="float32 when folded"):
        fitting.parameters(arrays, RESNET18, fitted, "stem")
