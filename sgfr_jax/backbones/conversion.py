"""A layer's parameters from what a weight file holds, by the kind of its names (see `naming`)."""

from collections.abc import Mapping

import numpy as np

from sgfr_jax.backbones.naming import Biased, Folded, Names, Normalised, Tokenised

NORM = ("weight", "bias", "running_mean", "running_var")  # of a batch norm

Arrays = Mapping[str, np.ndarray]
Shape = tuple[int, ...]


def file_shapes(names: Names, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Returns the shapes of what a file holds for a layer.

    Args:
      names: of the layer.
      shapes: of our parameters, by name.
    """
    match names:
        case Folded(weight, norm):
            *size, inputs, outputs = shapes["kernel"]
            return {f"{weight}.weight": (outputs, inputs, *size)} | {
                f"{norm}.{part}": (outputs,) for part in NORM
            }
        case Biased(weights, factor):
            *size, inputs, outputs = shapes["kernel"]
            each, found = outputs // len(weights), {}
            for weight in weights:
                found |= {f"{weight}.weight": (each, inputs, *size), f"{weight}.bias": (each,)}
            return found | ({factor: (outputs,)} if factor else {})
        case Normalised(weight):
            return {f"{weight}.weight": shapes["scale"], f"{weight}.bias": shapes["bias"]}
        case Tokenised(first, registers, positions, position_first):
            height, grid_width, width = shapes["positions"]
            count = height * grid_width + position_first
            found = {first: (1, 1, width), positions: (1, count, width)}
            extra = shapes["first"][0] - 1
            return found | ({registers: (1, extra, width)} if registers else {})


def parameters(names: Names, arrays: Arrays, epsilon: float) -> dict[str, np.ndarray]:
    """Returns a layer's parameters, float64: kernels in HWIO or IO order, factors folded in.

    A batch norm `y = gamma (w * x - mean) / sqrt(var + eps) + beta` makes of a convolution the
    kernel `gamma w / sqrt(var + eps)` with the bias `beta - gamma mean / sqrt(var + eps)`; a
    factor multiplies kernel and bias of the outputs; the class token gets its position added.

    Args:
      names: of the layer.
      arrays: the file's weights by name, of the shapes of `file_shapes`.
      epsilon: of the batch norms.
    """

    def read(key):
        return arrays[key].astype(np.float64)

    match names:
        case Folded(weight, norm):
            gamma, beta, mean, var = (read(f"{norm}.{part}") for part in NORM)
            scale = gamma / np.sqrt(var + epsilon)
            kernel = _inputs_first(read(f"{weight}.weight")) * scale
            return {"kernel": kernel, "bias": beta - mean * scale}
        case Biased(weights, factor):
            kernel = _inputs_first(np.concatenate([read(f"{weight}.weight") for weight in weights]))
            bias = np.concatenate([read(f"{weight}.bias") for weight in weights])
            scale = read(factor) if factor else 1.0
            return {"kernel": kernel * scale, "bias": bias * scale}
        case Normalised(weight):
            return {"scale": read(f"{weight}.weight"), "bias": read(f"{weight}.bias")}
        case Tokenised(first, registers, positions, position_first):
            tokens, places = read(first)[0], read(positions)[0]
            if position_first:
                tokens, places = tokens + places[:1], places[1:]
            if registers:
                tokens = np.concatenate([tokens, read(registers)[0]])
            side = round(len(places) ** 0.5)
            return {"first": tokens, "positions": places.reshape(side, side, -1)}


def _inputs_first(kernel):
    """From `[outputs, inputs, ...]` to `[..., inputs, outputs]`."""
    return np.moveaxis(kernel, (1, 0), (-2, -1))
