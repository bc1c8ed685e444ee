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

from experiments import models, predictor
from experiments.choices import ConfigError
from experiments.config import Config

Run = Callable[..., Mapping[str, Any]]  # of the images at every size, to the results by name


class Format(NamedTuple):
    """A language that predictors are written in."""

    # Raises ConfigError where it cannot be written, before anything long.
    check: Callable[[Config], None]
    write: Callable[[models.Model, Sequence[str]], bytes]  # for these platforms
    load: Callable[[bytes], Run]
    usage: str  # Python that runs it; `file`, `arguments` and `named` are filled in


def input_names(sizes: Sequence[int]) -> list[str]:
    """The names of a predictor's arguments, such as `images_256`."""
    return [f"images_{size}" for size in sizes]


def _check_stablehlo(config: Config) -> None:
    del config
    _require("flatbuffers", "stablehlo", "pip install flatbuffers")


def _write_stablehlo(model: models.Model, platforms: Sequence[str]) -> bytes:
    from jax import export

    whole, sizes = predictor.make(model), predictor.sizes(model.config)

    @jax.jit
    def predict(*images):
        return whole.predict(*images)._asdict()  # a type that every process knows

    (batch,) = export.symbolic_shape("b")
    like = [jax.ShapeDtypeStruct((batch, size, size, 3), np.uint8) for size in sizes]
    return bytes(export.export(predict, platforms=tuple(platforms))(*like).serialize())


def _load_stablehlo(written: bytes) -> Run:
    from jax import export

    return jax.jit(export.deserialize(bytearray(written)).call)


def _check_onnx(config: Config) -> None:
    if config.search != "exact":
        raise ConfigError(
            f"--format=onnx: the model's --search={config.search} multiplies in bfloat16, which"
            " ONNX Runtime does not on a CPU; fit it with --search=exact, or export stablehlo"
        )
    _require("jax2onnx", "onnx", "pip install 'sgfr_jax[onnx]'")


def _write_onnx(model: models.Model, platforms: Sequence[str]) -> bytes:
    """The graph of one image, which an ONNX `Scan` maps over the batch.

    The converter is given fixed shapes only: of an axis of unknown length it mistakes some for
    others (jax2onnx 0.17.1 expands a constant over the batch to the length of the next axis).
    """
    del platforms  # ONNX knows none
    import jax2onnx
    import onnx
    from jax.extend import core

    whole = predictor.make(model, plain=True)
    sizes, map_size = predictor.sizes(model.config), model.config.image_size

    def predict_one(*images):
        patches = whole.embed(*(image[None] for image in images))
        return tuple(whole.score(jax.tree.map(lambda x: x[0], patches)))

    like = [jax.ShapeDtypeStruct((size, size, 3), np.uint8) for size in sizes]
    names, found = input_names(sizes), predictor.Prediction._fields
    # Traced here, so that what the converter patches in JAX while it traces touches nothing.
    traced = core.jaxpr_as_fun(jax.make_jaxpr(predict_one)(*like))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of types that JAX narrows anyway
        logging.getLogger("onnx_ir").setLevel(logging.ERROR)
        one = jax2onnx.to_onnx(
            lambda *images: tuple(traced(*images)), like, model_name="one_image",
            input_names=[f"one_of_{name}" for name in names],
            output_names=[f"one_of_{name}" for name in found],
        )  # fmt: skip
    helper, (kind, image_kind) = onnx.helper, (onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8)
    scan = helper.make_node("Scan", names, found, body=one.graph, num_scan_inputs=len(names))
    inputs = [
        helper.make_tensor_value_info(name, image_kind, ["b", size, size, 3])
        for name, size in zip(names, sizes, strict=True)
    ]
    shapes = (["b", map_size, map_size], ["b"])
    outputs = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, shape in zip(found, shapes, strict=True)
    ]
    graph = helper.make_graph([scan], "predictor", inputs, outputs)
    batched = helper.make_model(
        graph, opset_imports=one.opset_import, functions=one.functions, ir_version=one.ir_version
    )
    onnx.checker.check_model(batched)
    return batched.SerializeToString()


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
        """from jax import export

with open({file!r}, "rb") as file:
    predict = export.deserialize(bytearray(file.read())).call
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

_READING = """import numpy as np
from PIL import Image, ImageOps


def squares(paths, size):
    \"""uint8 [B, size, size, 3] of images with 8 bits per channel.\"""
    images = (ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in paths)
    return np.stack([image.resize((size, size), Image.Resampling.BILINEAR) for image in images])


"""


def usage(name: str, file: str, sizes: Sequence[int]) -> str:
    """Python that scores the images `paths` with a file, without this package.

    Args:
      name: of the format.
      file: where the file lies.
      sizes: of the predictor.
    """
    arguments = [f"squares(paths, {size})" for size in sizes]
    named = zip(map(json.dumps, input_names(sizes)), arguments, strict=True)
    filled = FORMATS[name].usage.format(
        file=file, arguments=", ".join(arguments), named=", ".join(map(": ".join, named))
    )
    head, _, rest = filled.partition("\n")  # imports stand together
    return f"{head}\n{_READING}{rest.lstrip()}"
