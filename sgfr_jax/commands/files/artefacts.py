"""A predictor as one file that other programs run: StableHLO by `jax.export`, or ONNX.

Both take uint8 `[B, size, size, 3]`, the images at every size that the model looks at, and give
`anomaly_map` float32 `[B, S, S]` and `score` float32 `[B]`, for any `B`.
"""

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.datasets import formats
from sgfr_jax.datasets.types import FULL_RANGE
from sgfr_jax.detector import exporting, squares
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.model import Detector

Run = Callable[..., Mapping[str, Any]]  # of the images at every size, to the results by name


class Format(NamedTuple):
    """A language that predictors are written in."""

    # Raises ConfigError where it cannot be written, before anything long.
    check: Callable[[Method], None]
    write: Callable[[Detector, Sequence[str]], bytes]  # for these platforms
    load: Callable[[bytes], Run]
    usage: str  # Python that runs it; `file`, `arguments` and `named` are filled in


def input_names(sizes: Sequence[int]) -> list[str]:
    """The names of a predictor's arguments, such as `images_256`."""
    return [f"images_{size}" for size in sizes]


def _check_stablehlo(method: Method) -> None:
    del method
    _require("flatbuffers", "stablehlo", "pip install flatbuffers")


def _write_stablehlo(detector: Detector, platforms: Sequence[str]) -> bytes:
    return exporting.to_stablehlo(detector, platforms)


def _load_stablehlo(written: bytes) -> Run:
    from jax import export

    return jax.jit(export.deserialize(bytearray(written)).call)


def _check_onnx(method: Method) -> None:
    if method.search != "exact":
        raise ConfigError(
            f"--format=onnx: the model's --search={method.search} multiplies in bfloat16, which"
            " ONNX Runtime does not on a CPU; fit it with --search=exact, or export stablehlo"
        )
    _require("jax2onnx", "onnx", "pip install 'sgfr_jax[onnx]'")


def _write_onnx(detector: Detector, platforms: Sequence[str]) -> bytes:
    del platforms  # ONNX knows none
    whole, sizes = exporting.make(detector, plain=True), squares.sizes(detector)

    def predict_one(*images):
        patches = whole.embed(*(image[None] for image in images))
        return tuple(whole.score(jax.tree.map(lambda x: x[0], patches)))

    like = [jax.ShapeDtypeStruct((size, size, 3), np.uint8) for size in sizes]
    names, found = input_names(sizes), exporting.Exported._fields
    one = _convert(
        predict_one, like, [f"one_of_{n}" for n in names], [f"one_of_{n}" for n in found]
    )
    return _over_a_batch(one, names, found).SerializeToString()


def _convert(function: Callable, like: Sequence[Any], names: list[str], found: list[str]) -> Any:
    """The ONNX model of a function of arrays of these shapes."""
    import jax2onnx
    import onnx_ir
    from jax.extend import core
    from onnx_ir.passes import common

    # Traced here, so that what the converter patches in JAX while it traces touches nothing.
    traced = core.jaxpr_as_fun(jax.make_jaxpr(function)(*like))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of types that JAX narrows anyway
        logging.getLogger("onnx_ir").setLevel(logging.ERROR)
        converted = jax2onnx.to_onnx(
            lambda *arrays: tuple(traced(*arrays)), like, input_names=names, output_names=found
        )
    # Each use of the weights has brought its own copy.
    simplified = onnx_ir.from_proto(converted)
    for simplify in (common.DeduplicateHashedInitializersPass(), common.RemoveUnusedNodesPass()):
        simplified = simplify(simplified).model
    return onnx_ir.to_proto(simplified)


def _over_a_batch(one: Any, names: Sequence[str], found: Sequence[str]) -> Any:
    """The ONNX model that maps the model of one image over any number of images.

    The converter knows fixed shapes only: of an axis of unknown length it mistakes some for others
    (jax2onnx 0.17.1 expands a constant over the batch to the length of the next axis).

    Args:
      one: whose arguments and results have an axis less.
      names: of the arguments.
      found: of the results.
    """
    import onnx
    from onnx import helper

    def batched(values, new_names):
        kinds = [value.type.tensor_type for value in values]
        shapes = [["b", *(axis.dim_value for axis in kind.shape.dim)] for kind in kinds]
        return [
            helper.make_tensor_value_info(name, kind.elem_type, shape)
            for name, kind, shape in zip(new_names, kinds, shapes, strict=True)
        ]

    scan = helper.make_node("Scan", names, found, body=one.graph, num_scan_inputs=len(names))
    graph = helper.make_graph(
        [scan], "predictor", batched(one.graph.input, names), batched(one.graph.output, found)
    )
    model = helper.make_model(
        graph, opset_imports=one.opset_import, functions=one.functions, ir_version=one.ir_version
    )
    onnx.checker.check_model(model)
    return model


def _load_onnx(written: bytes) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(*images: np.ndarray) -> Mapping[str, Any]:
        found = session.run(None, dict(zip(names, images, strict=True)))
        return dict(zip((one.name for one in session.get_outputs()), found, strict=True))

    return run


def _require(package: str, name: str, remedy: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"--format={name} needs the package {package}: {remedy}")


FORMATS = {
    "stablehlo": Format(
        _check_stablehlo,
        _write_stablehlo,
        _load_stablehlo,
        """import jax
from jax import export

with open({file!r}, "rb") as file:
    predict = jax.jit(export.deserialize(bytearray(file.read())).call)
found = predict({arguments})
anomaly_maps, scores = found["anomaly_map"], found["score"]
""",
    ),
    "onnx": Format(
        _check_onnx,
        _write_onnx,
        _load_onnx,
        """import onnxruntime

session = onnxruntime.InferenceSession({file!r})
anomaly_maps, scores = session.run(["anomaly_map", "score"], {{{named}}})
""",
    ),
}

_READING = f"""import numpy as np
from PIL import Image, ImageOps

FORMATS = {tuple(name for name in formats.FORMATS if name != "HEIF")}


def squares(paths, size):
    \"""uint8 [B, size, size, 3] of images {{of}}.\"""
    return np.stack([square(Image.open(path, formats=FORMATS), size) for path in paths])


def square(image, size):
    \"""Side after side: given both, versions of Pillow round in different order.\"""
{{upright}}
    tall = image.height - size > max(0, 2 * (image.width - size))
    for shape in ((image.width, size) if tall else (size, image.height), (size, size)):
        image = image.resize(shape, Image.Resampling.BILINEAR)
    return image


"""


# How an image is turned upright and to 8 bits: usually, and where some of 16 bits are used.
_UPRIGHT = """    image = ImageOps.exif_transpose(image).convert("RGB")"""
_DEEP = """    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # of 16 bits, of which {white} is white
        values = np.minimum(np.asarray(image), {white}).astype(np.uint32)
        image = Image.fromarray(((values * 255 + {half}) // {white}).astype(np.uint8))
    image = image.convert("RGB")"""


def usage(name: str, file: str, sizes: Sequence[int], white: int = FULL_RANGE) -> str:
    """Python that scores the images `paths` with a file, without this package.

    Args:
      name: of the format.
      file: where the file lies.
      sizes: of the predictor.
      white: the value of 16-bit images that the model reads as white.
    """
    reading = _READING.format(of="with 8 bits per channel", upright=_UPRIGHT)
    if white != FULL_RANGE:
        deep = _DEEP.format(white=white, half=white // 2)
        reading = _READING.format(of="with 8 bits per channel, or grey with 16", upright=deep)
    arguments = [f"squares(paths, {size})" for size in sizes]
    named = zip(map(json.dumps, input_names(sizes)), arguments, strict=True)
    filled = FORMATS[name].usage.format(
        file=file, arguments=", ".join(arguments), named=", ".join(map(": ".join, named))
    )
    imports, _, rest = filled.partition("\n\n")
    return f"{imports}\n{reading}{rest}"
