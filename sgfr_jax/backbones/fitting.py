"""Does a file's weights fit a network, and the network's parameters from them if they do."""

import functools
from typing import NamedTuple

import numpy as np

from sgfr_jax.backbones import conversion, naming
from sgfr_jax.backbones.architectures import ARCHITECTURES, Architecture, Layout
from sgfr_jax.backbones.checkpoints import WeightsError

_LISTED = 10  # of each kind of misfit; a file of another network misfits in hundreds of places
# A counter and a token that only training reads.
_IGNORED = (".num_batches_tracked", "mask_token")


class Fitted(NamedTuple):
    """A file matched with a network."""

    layout: Layout
    names: dict[str, naming.Names]  # by layer
    num_classes: int  # 0: the file has no classifier


def fit(arrays: conversion.Arrays, architecture: Architecture, source: str) -> Fitted:
    """Checks a file against the whole network.

    Args:
      arrays: the file's weights by name.
      architecture: the network.
      source: what to call the file in messages.

    Returns:
      What `parameters` needs to know.

    Raises:
      WeightsError: something is missing, unexpected, of another shape or type, or not finite;
        the message has all of it, and the network that the file fits if there is one.
    """
    layout = _likeliest_layout(arrays, architecture)
    misfits = _misfits(arrays, architecture, layout)
    if misfits:
        others = [other.name for other in ARCHITECTURES.values() if _fits(arrays, other)]
        raise WeightsError(_report(misfits, architecture, layout, source, others))
    damaged = _impossible_values(arrays)
    if damaged:
        raise WeightsError(f"{source} holds values that no network has:{_listing(damaged)}")
    head = naming.classifier(architecture, layout)
    weight = arrays.get(f"{head}.weight") if head else None
    num_classes = 0 if weight is None else len(weight)
    return Fitted(layout, naming.LAYOUTS[layout.name](architecture), num_classes)


def parameters(
    arrays: conversion.Arrays, architecture: Architecture, fitted: Fitted, layer: str
) -> dict[str, np.ndarray]:
    """Returns a layer's parameters, float32, for the network that `networks.abstract` describes.

    Args:
      arrays: the file's weights by name.
      architecture: the network.
      fitted: what `fit` returned for the two.
      layer: the layer's dotted path in our modules.

    Raises:
      WeightsError: the conversion, which is done in float64, leaves the range of float32.
    """
    names = fitted.names[layer]
    found = conversion.parameters(names, arrays, architecture.norm_epsilon)
    if not all(np.abs(x).max() <= np.finfo(np.float32).max for x in found.values()):
        keys = ", ".join(conversion.file_shapes(names, {k: x.shape for k, x in found.items()}))
        raise WeightsError(f"{keys} do not fit float32 when folded")
    return {name: array.astype(np.float32) for name, array in found.items()}


@functools.cache
def expected_shapes(architecture: Architecture, layout: Layout) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every weight in a file of the whole network, its classifier apart."""
    names, expected = naming.LAYOUTS[layout.name](architecture), {}
    for layer, shapes in _layer_shapes(architecture).items():
        expected |= conversion.file_shapes(names[layer], shapes)
    return expected


@functools.cache
def _layer_shapes(architecture):
    """The shapes of all parameters, by layer and name."""
    from sgfr_jax.backbones import networks

    _, tree = networks.abstract(architecture, architecture.levels)
    return {
        path: {name: leaf.shape for name, leaf in layer.items()}
        for path, layer in networks.layers(tree).items()
    }


def _expected_with_classifier(arrays, architecture, layout):
    """As above, with a classifier of as many classes as the file has, if it has one."""
    shapes = dict(expected_shapes(architecture, layout))
    head = naming.classifier(architecture, layout)
    if head is None:
        return shapes
    found = [arrays[name].shape for name in (f"{head}.weight", f"{head}.bias") if name in arrays]
    if found:
        classes = max(1, *(shape[0] if shape else 1 for shape in found))
        shapes[f"{head}.weight"] = (classes, architecture.features)
        shapes[f"{head}.bias"] = (classes,)
    return shapes


def _likeliest_layout(arrays, architecture):
    def known(layout):
        return len(arrays.keys() & expected_shapes(architecture, layout).keys())

    return max(architecture.layouts, key=known)  # the first of equals


def _fits(arrays, architecture):
    return not _misfits(arrays, architecture, _likeliest_layout(arrays, architecture))


def _misfits(arrays, architecture, layout):
    """What does not fit, as `{kind: lines}`; empty if all does."""
    expected = _expected_with_classifier(arrays, architecture, layout)
    present = {name for name in arrays if not name.endswith(_IGNORED)}
    found = {
        "missing": [name for name in expected if name not in present],
        "unexpected": [name for name in arrays if name in present and name not in expected],
        "of another shape": [
            f"{name}: {arrays[name].shape} in the file, {shape} in {architecture.name}"
            for name, shape in expected.items()
            if name in present and arrays[name].shape != shape
        ],
        "not of floating point": [
            f"{name}: {arrays[name].dtype}"
            for name in expected
            if name in present and not _is_floating(arrays[name])
        ],
    }
    return {kind: lines for kind, lines in found.items() if lines}


def _is_floating(array):
    # ml_dtypes' types are none of NumPy's kinds, but they convert to float64 without loss.
    return np.can_cast(array.dtype, np.float64) and array.dtype.kind not in "biu"


def _impossible_values(arrays):
    lines = []
    for name, array in arrays.items():
        if name.endswith(_IGNORED):
            continue
        if not np.isfinite(array).all():
            lines.append(f"{name}: NaN or infinite")
        elif name.endswith(".running_var") and (array < 0).any():
            lines.append(f"{name}: a negative variance")
    return lines


def _report(misfits, architecture, layout, source, others):
    counts = ", ".join(f"{len(lines)} {kind}" for kind, lines in misfits.items())
    report = f"{source} does not fit {architecture.name} ({layout.name} names): {counts}"
    for kind, lines in misfits.items():
        report += f"\n  {kind}:{_listing(lines)}"
    if others:
        report += f"\nthis file fits {' or '.join(others)}: backbone={others[0]}"
    return report


def _listing(lines):
    listing = "".join(f"\n    {line}" for line in lines[:_LISTED])
    rest = len(lines) - _LISTED
    return f"{listing}\n    and {rest} more" if rest > 0 else listing
