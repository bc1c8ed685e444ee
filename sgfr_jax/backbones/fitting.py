"""Does a file's weights fit a network, and the network's parameters from them if they do."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from sgfr_jax.backbones import naming
from sgfr_jax.backbones.architectures import ARCHITECTURES, Architecture, Layout
from sgfr_jax.backbones.checkpoints import WeightsError

_LISTED = 10  # of each kind of misfit; a file of another network misfits in hundreds of places
_NORM = ("weight", "bias", "running_mean", "running_var")
_IGNORED = ".num_batches_tracked"  # a counter that only training reads

Arrays = Mapping[str, np.ndarray]


class Fitted(NamedTuple):
    """A file matched with a network."""

    layout: Layout
    names: dict[str, naming.Names]  # by layer
    num_classes: int  # 0: the file has no classifier


def fit(arrays: Arrays, architecture: Architecture, source: str) -> Fitted:
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
    names = naming.LAYOUTS[layout.name](architecture)
    head = arrays.get(f"{names[naming.CLASSIFIER].weight}.weight")
    damaged = _impossible_values(arrays)
    if damaged:
        raise WeightsError(f"{source} holds values that no network has:{_listing(damaged)}")
    return Fitted(layout, names, 0 if head is None else head.shape[0])


def parameters(
    arrays: Arrays, architecture: Architecture, fitted: Fitted, layer: str
) -> dict[str, np.ndarray]:
    """Returns a layer's `kernel` (HWIO) and `bias`, float32, its batch norm folded in.

    Folding is done in float64: `y = gamma (w * x - mean) / sqrt(var + eps) + beta` is the
    convolution with `gamma w / sqrt(var + eps)` and the bias `beta - gamma mean / sqrt(var + eps)`.

    Args:
      arrays: the file's weights by name.
      architecture: the network.
      fitted: what `fit` returned for the two.
      layer: the layer's dotted path in our modules.
    """
    names = fitted.names[layer]
    kernel = arrays[f"{names.weight}.weight"].astype(np.float64)
    if names.norm is None:
        kernel, bias = kernel.T, arrays[f"{names.weight}.bias"].astype(np.float64)
    else:
        gamma, beta, mean, var = (
            arrays[f"{names.norm}.{part}"].astype(np.float64) for part in _NORM
        )
        scale = gamma / np.sqrt(var + architecture.norm_epsilon)
        kernel = np.transpose(kernel * scale[:, None, None, None], (2, 3, 1, 0))
        bias = beta - mean * scale
    if not max(np.abs(kernel).max(), np.abs(bias).max()) <= np.finfo(np.float32).max:
        raise WeightsError(f"{names.weight} and {names.norm} do not fit float32 when folded")
    return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}


@functools.cache
def expected_shapes(architecture: Architecture, layout: Layout) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every weight in a file of the whole network, its classifier apart."""
    from sgfr_jax.backbones import networks

    names, shapes = naming.LAYOUTS[layout.name](architecture), {}
    _, tree = networks.abstract(architecture, architecture.levels)
    for layer, (height, width, inputs, outputs) in _layer_kernels(tree).items():
        shapes[f"{names[layer].weight}.weight"] = (outputs, inputs, height, width)
        shapes |= {f"{names[layer].norm}.{part}": (outputs,) for part in _NORM}
    return shapes


def _layer_kernels(tree, path=""):
    """The kernel shape of every layer in a tree of (abstract) parameters, by path."""
    if "kernel" in tree:
        return {path: tree["kernel"].shape}
    layers = {}
    for name, branch in tree.items():
        layers |= _layer_kernels(branch, f"{path}.{name}" if path else str(name))
    return layers


def _expected_with_classifier(arrays, architecture, layout):
    """As above, with a classifier of as many classes as the file has, if it has one."""
    shapes = dict(expected_shapes(architecture, layout))
    head = naming.LAYOUTS[layout.name](architecture)[naming.CLASSIFIER].weight
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
        report += f"\nthis file fits {' or '.join(others)}: --backbone={others[0]}"
    return report


def _listing(lines):
    listing = "".join(f"\n    {line}" for line in lines[:_LISTED])
    rest = len(lines) - _LISTED
    return f"{listing}\n    and {rest} more" if rest > 0 else listing
