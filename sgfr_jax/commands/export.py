r"""Writes a saved model as one file that runs without this package.

    python -m experiments.run --save_model
    python -m experiments.export --model=runs/demo/models/brick --output=brick.stablehlo
    python -m experiments.export --model=DIR --output=brick.onnx --format=onnx

StableHLO (`jax.export`) runs wherever JAX does, for CPU, CUDA and TPU at once, with jax, numpy and
flatbuffers installed; ONNX runs in ONNX Runtime (the converter is an extra, `[onnx]`). Weights and
fitted state are inside, and the batch may have any size. The file takes uint8 images resized to the
squares that the model looks at, with Pillow's bilinear filter, and gives `anomaly_map` and `score`.

OUTPUT.json says what goes in and comes out, the thresholds, and has the few lines of Python that
read, resize and score images with the file. Before anything is written, the file is run on some
photographs and compared with the model.
"""

import argparse
import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgfr_jax.backbones import hub
from sgfr_jax.commands.files import locking, records, written
from sgfr_jax.commands.flags import checking, launching, starting
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.host import environment, interruption, terminal
from sgfr_jax.detector.exporting import PLATFORMS

FORMATS = ("stablehlo", "onnx")
# Of `PLATFORMS`, those that StableHLO is lowered for unless told otherwise.
DEFAULT_PLATFORMS = ("cpu", "cuda", "tpu")
# How far a file may be from its model: a share of the largest value, or of 1 if that is less.
TOLERANCE = 1e-4
# Photographs in scikit-image's wheel, of 512 x 512 pixels.
_PHOTOGRAPHS = ("brick", "grass", "gravel")


def export(
    model_dir: Path,
    output: Path,
    *,
    form: str = "stablehlo",
    platforms: Sequence[str] = DEFAULT_PLATFORMS,
    weights: str | None = None,
    check: bool = True,
) -> dict[str, Any]:
    """Writes the predictor of a saved model, and a description beside it.

    Args:
      model_dir: what `--save_model` wrote.
      output: the file; one that was exported there before is replaced.
      form: one of `FORMATS`.
      platforms: of `PLATFORMS`, that StableHLO is lowered for.
      weights: where the backbone's weights lie now, if not where they were.
      check: whether to run the file and compare it with the model.

    Returns:
      The description.

    Raises:
      ConfigError: if the model cannot be exported so, or the file does not agree with it.
      SavingError, WeightsError: as of `saved.load`.
      OSError: if the file cannot be written.
    """
    description_path = output.with_name(f"{output.name}.json")
    for path in (output, description_path):
        _check_place(path)
        written.check_file(path, f"--output: {path}", lambda _: _is_exported(output))
    with locking.held(output, f"--output={output}"):
        return _export(model_dir, output, description_path, form, platforms, weights, check)


def _export(
    model_dir: Path,
    output: Path,
    description_path: Path,
    form: str,
    platforms: Sequence[str],
    weights: str | None,
    check: bool,
) -> dict[str, Any]:
    """As `export`, with the file's place held by this process alone."""
    # Imported late: `--help` and a mistyped flag need not wait for these.
    from sgfr_jax import saving
    from sgfr_jax.commands.files import artefacts
    from sgfr_jax.detector import exporting, saved, squares

    named = output.suffix.removeprefix(".")
    if named in FORMATS and named != form:
        raise ConfigError(
            f"--output={output} is named as {named}, and {form} would be written: add"
            f" --format={named}, or name another file"
        )
    language = artefacts.FORMATS[form]
    if check and form == "stablehlo":
        _check_runnable(platforms)
    if weights is not None and not hub.is_address(weights):
        weights = str(checking.path("weights", weights))
    detector = saved.load(model_dir, weights=weights)
    exporting.check(detector.method)
    language.check(detector.method)
    sizes, map_size = squares.sizes(detector), detector.method.image_size
    content = language.write(detector, platforms)
    agreement = _compare(detector, language.load(content), sizes) if check else None
    of_model = saving.describe(model_dir)
    description = {
        "file": output.name,
        "format": form,
        "platforms": list(platforms) if form == "stablehlo" else None,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "inputs": [
            {"name": name, "dtype": "uint8", "shape": ["b", size, size, 3]}
            for name, size in zip(artefacts.input_names(sizes), sizes, strict=True)
        ],
        "outputs": [
            {"name": "anomaly_map", "dtype": "float32", "shape": ["b", map_size, map_size]},
            {"name": "score", "dtype": "float32", "shape": ["b"]},
        ],
        "usage": artefacts.usage(form, output.name, sizes, detector.about.white).splitlines(),
        "white": detector.about.white,
        **{name: of_model[name] for name in ("category", "thresholds", "network", "record")},
        "agreement": agreement,
        "made_with": environment.describe(),
    }
    if output.exists():
        print(f"note: {output} is replaced", file=sys.stderr)
    records.write_bytes(output, content)
    records.write_json(description_path, description)
    return description


def _check_place(path: Path) -> None:
    """Raises ConfigError where no file can be written, which is worth knowing before long work."""
    if path.is_dir():
        raise ConfigError(f"--output={path} is a directory: name a file")
    directory = path.absolute().parent
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--output={path}: '{directory}' cannot be made ({error.strerror}): name another file"
        ) from error
    if not os.access(directory, os.W_OK):
        raise ConfigError(f"--output={path}: files cannot be written in {directory}")


def _is_exported(output: Path) -> bool:
    """Whether the description beside a file tells of it as it is; or of one that is gone."""
    try:
        description = json.loads(output.with_name(f"{output.name}.json").read_bytes())
        if description["file"] != output.name:
            return False
        content = output.read_bytes() if os.path.lexists(output) else None
        return content is None or hashlib.sha256(content).hexdigest() == description["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _check_runnable(platforms: Sequence[str]) -> None:
    """Raises ConfigError where this process could not run the file to compare it with the model."""
    from jax import export as jax_export

    here = jax_export.default_export_platform()
    if here not in platforms:
        raise ConfigError(
            f"--platforms={','.join(platforms)}: the file could not be compared with the model"
            f" here, which is {here}: add {here}, or --no_check"
        )


def _compare(detector: Any, predict: Callable, sizes: Sequence[int]) -> dict[str, Any]:
    """How far a file is from the model on photographs, in two batches of different size.

    Raises:
      ConfigError: if farther than rounding explains.
    """
    import skimage.data

    from sgfr_jax.datasets import images
    from sgfr_jax.detector import model, predicting
    from sgfr_jax.detector.services import Services

    photographs = [getattr(skimage.data, name)() for name in _PHOTOGRAPHS]
    stages = model.stages_of(detector, Services(batch_size=len(photographs)))
    expected = list(predicting.make_scorer(detector, stages)(photographs))
    maps, scores = [], []
    for some in (photographs[:2], photographs[2:]):
        found = predict(*(np.stack([images.read_image(x, size) for x in some]) for size in sizes))
        maps.extend(np.asarray(found["anomaly_map"]))
        scores.extend(np.asarray(found["score"]))
    agreement = {
        "photographs": len(photographs),
        "largest_value": max(float(np.abs(one.anomaly_map).max()) for one in expected),
        "map_difference": max(
            float(np.abs(one.anomaly_map - ours).max())
            for one, ours in zip(expected, maps, strict=True)
        ),
        "score_difference": max(
            abs(float(one.score) - float(ours)) for one, ours in zip(expected, scores, strict=True)
        ),
    }
    allowed = TOLERANCE * max(1, agreement["largest_value"])
    worst = max(agreement["map_difference"], agreement["score_difference"])
    if not worst <= allowed:  # NaN is not
        raise ConfigError(
            f"--model: the exported file is {worst:.2g} away from the model, {allowed:.2g} is"
            " allowed; nothing was written. --no_check writes it all the same"
        )
    return agreement


def main(argv: Sequence[str] | None = None) -> None:
    """Exports, and turns every foreseen mistake into one line and an exit status."""
    terminal.make_plain()
    parser = launching.Parser("experiments.export", __doc__)
    parser.add_argument("--model", required=True, help="the directory of a saved model")
    parser.add_argument("--output", required=True, help="the file to write")
    parser.add_argument("--format", default="stablehlo", help=f"{' or '.join(FORMATS)}")
    parser.add_argument("--platforms",
                        help=f"of {', '.join(PLATFORMS)}; by default"
                        f" {','.join(DEFAULT_PLATFORMS)}. ONNX has none")  # fmt: skip
    parser.add_argument("--weights", help="where the backbone's weights lie, if they were moved")
    parser.add_argument("--no_check", action="store_true",
                        help="do not compare the file with the model")  # fmt: skip
    options = parser.parse_args(argv)
    logging.getLogger("jax").setLevel(logging.WARNING)
    interruption.exit_at_once(lambda: None, "nothing was written")
    with starting.exit_on_mistakes(f"--output={options.output}"):
        checking.check_known("format", "format", options.format, FORMATS)
        description = export(
            checking.path("model", options.model), checking.path("output", options.output),
            form=options.format, platforms=_platforms(options), weights=options.weights,
            check=not options.no_check,
        )  # fmt: skip
    agreement, inputs = description["agreement"], description["inputs"]
    if agreement is not None:
        print(
            f"maps within {agreement['map_difference']:.2g} of the model's, scores within"
            f" {agreement['score_difference']:.2g}, on {agreement['photographs']} photographs"
            f" (largest value {agreement['largest_value']:.3g})"
        )
    print(
        f"Written to {options.output}: {description['bytes'] / 1e6:.1f} MB,"
        f" {' and '.join(one['name'] for one in inputs)} to anomaly_map and score;"
        f" {options.output}.json says how to use it"
    )


def _platforms(options: argparse.Namespace) -> tuple[str, ...]:
    if options.platforms is None:
        return DEFAULT_PLATFORMS
    if options.format == "onnx":
        raise ConfigError("--platforms is for --format=stablehlo: an ONNX file runs on any")
    platforms = tuple(options.platforms.split(","))
    for name in platforms:
        checking.check_known("platforms", "platform", name, PLATFORMS)
    if len(set(platforms)) < len(platforms):
        raise ConfigError(f"--platforms={options.platforms}: each named once")
    return platforms
