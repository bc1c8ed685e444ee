"""Nine small configurations that between them reach every stage, and the numbers they come to.

`golden.json` beside this file keeps the numbers, and `test_golden.py` compares. Where a change is
meant to change them,

    python -m tests.commands.golden

from the checkout says which numbers have moved and by how much, and writes the file anew. It is run
by hand only; no test does.

Images are crops of photographs in scikit-image's wheel, and the network is EfficientNet-Lite0 with
its ImageNet weights, so nothing is downloaded, and every machine begins with the same pixels.

A network rounds differently on every kind of CPU, and the method makes discrete choices: which
patches become atoms, which atoms are nearest, how pixels of synthetic defects rank. The seeds of
the images are such that no choice is near a tie. Atoms are kept by their indices, which tells a
choice that has changed from a number that has.
"""

import contextlib
import functools
import json
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import skimage.data
from PIL import Image

from sgfr_jax.commands import export, run
from sgfr_jax.commands.files import artefacts, prediction, records
from sgfr_jax.commands.flags import config, usage
from sgfr_jax.commands.host import environment
from sgfr_jax.commands.host.machine import Resources
from sgfr_jax.datasets import Example, synthesis
from sgfr_jax.datasets import images as images_of
from sgfr_jax.datasets.geometry import to_size
from sgfr_jax.detector import (
    assembly,
    fitting,
    growing,
    model,
    predicting,
    programs,
    saved,
    scoring,
    splits,
    synthetic,
    weighing,
)
from sgfr_jax.detector.services import Services
from sgfr_jax.detector.stages import Stages

FILE = Path(__file__).with_suffix(".json")
# How far a number may lie from the kept one, relative to the largest magnitude of its stage (the
# method's own scores and their null, say, or the maps of all test images): values of a map near
# zero, and scores that are differences from a nominal mean, are no more certain than the terms of
# the differences.
TOLERANCE = 1e-5
# Of every map each so manieth row and column is kept, beside the map's mean and maximum.
_STEP = 13
_BATCH = 4
_KINDS = {"edge_break", "noise_mask", "spot"}

# Levels of two depths, and a bank so small that not every patch of a test image has a near twin.
PLAIN = {"layers": ("block4", "block10"), "image_size": 64, "bank_size": 24, "num_neighbors": 5}
STREAMS = PLAIN | {"layers": ("block4@1", "block10@1")}
RATIO = {"bank_size": None, "bank_ratio": 0.08}  # leaves a model room to grow
LEARNED = {"sampler": "random", "bank_size": 48, "subspaces": "k_subspaces", "num_subspaces": 3}
SHAPES = ((64, 96), (96, 64), (72, 72), (64, 64), (64, 80), (80, 72))
# What is run on photographs of one size, or of several where there are tiles.
FITTED = {
    "one_bank": PLAIN | {"baselines": ("nearest", "nonnegative")},
    "streams": PLAIN | {"layers": ("auto",), "image_size": 96},
    "tiles": PLAIN | {"geometry": "tile", "tile": 64},
    "both_looks": STREAMS | RATIO | {"geometry": "square+tile", "tile": 64},
    "basis": PLAIN | LEARNED | {"subspace_rank": 4, "solver": "project"},
    "one_shot": STREAMS | {"shots": 1},
}

# By stage, in the order in which a configuration goes through them.
Numbers = dict[str, list[int] | list[float]]


class Run(NamedTuple):
    """A configuration after its run."""

    record: records.Record
    model: Path
    maps: list[np.ndarray]  # [S, S] of each test image


class Bench:
    """Makes photographs, runs and models in one directory, each once."""

    def __init__(self, directory: Path):
        """Of a directory that is empty; embeddings of one configuration serve the others."""
        self.directory = directory
        self.run = functools.cache(self.run_anew)
        self.stages = functools.cache(self._stages)
        self.numbers = functools.cache(lambda name: CONFIGURATIONS[name](self))

    @functools.cached_property
    def squares(self) -> Path:
        """Photographs of one size."""
        return _write(self.directory / "squares", [(96, 96)] * len(SHAPES), seed=30)

    @functools.cached_property
    def shapes(self) -> Path:
        """Photographs of several."""
        return _write(self.directory / "shapes", SHAPES, seed=21)

    @functools.cached_property
    def gravel(self) -> Path:
        """Photographs of something else."""
        rng, directory = np.random.default_rng(2), self.directory / "gravel"
        for i, shape in enumerate(SHAPES[:2]):
            _save(directory / f"{i}.png", _crop(rng, skimage.data.gravel(), shape))
        return directory

    def photographs(self, name: str) -> Path:
        """Those of a configuration of `FITTED`."""
        return self.shapes if "tile" in FITTED[name] else self.squares

    def run_anew(self, name: str, *, batch_size: int = _BATCH, cached: bool = True) -> Run:
        """A configuration of `FITTED`, fitted, scored and saved; `run` does it once."""
        data_dir = str(self.photographs(name))
        settings = config.Config.of(dataset="folder", data_dir=data_dir, **FITTED[name])
        workdir = Path(tempfile.mkdtemp(dir=self.directory))
        resources = Resources(
            workdir, batch_size=batch_size, num_figures=0, num_review=0, save_maps=True,
            save_model=True, cache_dir=self.directory / "cache" if cached else None,
            cache_bytes=10**9,
        )  # fmt: skip
        with _small():
            (record,) = run.run(config.resolve(usage.cleared(settings)), resources)
        maps = workdir / "maps" / "part"
        found = [np.load(maps / f"{image['file']}.npy") for image in record.images]
        return Run(record, workdir / "models" / "part", found)

    def detector(self, name: str) -> model.Detector:
        """That a run has saved."""
        return saved.load(self.run(name).model)

    def _stages(self, name: str) -> Stages:
        """Of the same."""
        return model.stages_of(self.detector(name), Services(batch_size=_BATCH))


@contextlib.contextmanager
def _small() -> Iterator[None]:
    """Few synthetic defects, and maps of fewer pixels that weigh the streams.

    The defects are those that stand out most: the highest place of an image with a faint one is
    elsewhere, the same as in the nominal image that it was drawn on, so that rounding decides which
    of the two scores higher.
    """
    with pytest.MonkeyPatch.context() as patch:
        for kind in synthesis.KINDS.keys() - _KINDS:
            patch.delitem(synthesis.KINDS, kind)
        patch.setattr(synthetic, "SIZES", (0.5,))
        patch.setitem(synthetic.draw.__kwdefaults__, "copies", 1)
        for module in (scoring, weighing):
            patch.setattr(module, "COARSE", 8)
        # Others compile as many pixels as there usually are, for what may be the same method.
        patch.setattr(programs, "_cached", functools.cache(programs._cached.__wrapped__))
        patch.setattr(fitting, "CALIBRATION_IMAGES", 4)
        yield


def _write(root: Path, shapes: Sequence[tuple[int, int]], seed: int) -> Path:
    """Crops of bricks as `--dataset=folder` reads them; defects are crops of grass."""
    bricks, grass = skimage.data.brick(), skimage.data.grass()
    rng = np.random.default_rng(seed)
    kinds = {"train/good": len(shapes), "test/good": 2, "test/grass": 2}
    for kind, num in kinds.items():
        for i, shape in enumerate(shapes[:num]):
            image, mask = _crop(rng, bricks, shape), np.zeros(shape, np.uint8)
            if kind == "test/grass":
                top, left = (int(rng.integers(8, side - 32)) for side in shape)
                mask[top : top + 20, left : left + 16 + 6 * i] = 255
                image = np.where(mask > 0, _crop(rng, grass, shape), image)
                _save(root / "part" / "ground_truth" / "grass" / f"{i}_mask.png", mask)
            _save(root / "part" / kind / f"{i}.png", image)
    return root


def _crop(rng: np.random.Generator, photograph: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    top, left = (int(rng.integers(n - m)) for n, m in zip(photograph.shape, shape, strict=True))
    return photograph[top : top + shape[0], left : left + shape[1]]


def _save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def _fitted(name: str, bench: Bench) -> Numbers:
    found = bench.run(name)
    images = found.record.images
    scores = {key: [image[key] for image in images] for key in images[0] if "score" in key}
    return _state(bench.detector(name)) | scores | _maps(found.maps)


def _state(detector: model.Detector) -> Numbers:
    """What has been chosen, weighed and held out."""
    every_look, found = detector.state.looks, {}
    banks = [
        (bank, origin)
        for of in every_look
        for bank, origin in zip(of.banks, of.origins, strict=True)
    ]
    for i, (bank, origin) in enumerate(banks):
        found[f"atoms of bank {i}"] = np.stack(origin)[:, bank.weights > 0]
    if detector.method.has_streams:
        found["weights of streams"] = [[of.map_weights, of.image_weights] for of in every_look]
    null = detector.nulls.images
    return _flat(found | {"null": np.repeat(null.scores, null.counts)})


def _wholes(found: Sequence[Any]) -> Numbers:
    """Of what has a score and an anomaly map."""
    return _flat({"score": [one.score for one in found]}) | _maps([x.anomaly_map for x in found])


def _maps(maps: Sequence[np.ndarray]) -> Numbers:
    part = slice(_STEP // 2, None, _STEP)
    kept = [[*found[part, part].ravel(), found.mean(), found.max()] for found in maps]
    return _flat({f"map of image {i}": values for i, values in enumerate(kept)})


def _flat(found: Mapping[str, Any]) -> Numbers:
    """By stage, numbers as JSON takes them: nine digits are a float32."""
    return {
        stage: [x if isinstance(x, int) else float(f"{x:.9g}") for x in np.ravel(values).tolist()]
        for stage, values in found.items()
    }


def tested(root: Path) -> list[np.ndarray]:
    """The test photographs, in the order of a run's."""
    return [np.asarray(Image.open(s.path)) for s in prediction.find(str(root / "part" / "test"))]


def predicted(bench: Bench, name: str, root: Path) -> list[prediction.Predicted]:
    """What `predict` makes of test photographs with the saved model of a run."""
    scorer = predicting.make_scorer(bench.detector(name), bench.stages(name))
    sources = prediction.find(str(root / "part" / "test"))
    return list(prediction.predict(scorer, sources, batch_size=_BATCH, min_side=1))


def grown(bench: Bench, name: str, images: Path) -> tuple[model.Detector, growing.Seen]:
    """The saved model of a run after it has learned from nominal photographs in a directory."""
    detector, stages = bench.detector(name), bench.stages(name)
    found = prediction.find(str(images))
    examples = tuple(Example(source.name, source.path, 0, "good", None) for source in found)
    split = splits.Split(examples, splits.hash_images(examples), None)
    key = jax.random.key(detector.about.seed)
    return growing.grow(detector, stages, growing.unseen(detector, split), key)


def exported(bench: Bench, name: str) -> list[assembly.Whole]:
    """What the exported model of a run makes of the test photographs of one size."""
    output = bench.directory / f"{name}.stablehlo"
    export.export(bench.run(name).model, output, platforms=("cpu",), check=False)
    side = PLAIN["image_size"]
    images = np.stack([images_of.read_image(image, side) for image in tested(bench.squares)])
    found = artefacts.FORMATS["stablehlo"].load(output.read_bytes())(images)
    maps, scores = np.asarray(found["anomaly_map"]), np.asarray(found["score"])
    return [assembly.Whole(*of) for of in zip(maps, scores, strict=True)]


def _loaded(bench: Bench) -> Numbers:
    """A saved model, on photographs of other sizes, with maps of their sizes."""
    found = predicted(bench, "one_bank", bench.shapes)
    maps = [to_size(one.anomaly_map, one.image.shape[:2]) for one in found]
    return _wholes([o._replace(anomaly_map=m) for o, m in zip(found, maps, strict=True)])


def _grown(bench: Bench) -> Numbers:
    """A model of both looks that has learned from photographs of another texture."""
    detector, seen = grown(bench, "both_looks", bench.gravel)
    scorer = predicting.make_scorer(detector, bench.stages("both_looks"))
    before = _flat({"score before": seen.scores, "share known before": seen.known})
    return before | _state(detector) | _wholes(list(scorer(tested(bench.shapes))))


def _exported(bench: Bench) -> Numbers:
    return _wholes(exported(bench, "one_bank"))


CONFIGURATIONS: dict[str, Callable[[Bench], Numbers]] = {
    **{name: functools.partial(_fitted, name) for name in FITTED},
    "loaded": _loaded,
    "grown": _grown,
    "exported": _exported,
}


def differences(kept: Numbers, found: Numbers) -> list[str]:
    """A line for each stage whose numbers are not the kept ones, the earliest stage first."""
    lines = []
    for stage in {**kept, **found}:
        old, new = kept.get(stage, []), found.get(stage, [])
        if len(old) != len(new):
            lines.append(f"{stage}: {len(old)} numbers are kept, {len(new)} were found")
            continue
        allowed = 0 if isinstance(old[0], int) else TOLERANCE
        off = np.abs(np.subtract(new, old)) / _magnitude(kept, stage)
        if not off.max() <= allowed:  # NaN is not
            worst = int(off.argmax())
            lines.append(
                f"{stage}: off by {off.max():.2g} of the largest magnitude, {allowed:g} is allowed"
                f" (number {worst} of {len(old)}: {old[worst]!r} is kept, {new[worst]!r} was found)"
            )
    return lines


def _magnitude(numbers: Numbers, stage: str) -> float:
    """The largest of a stage, or of all stages of its kind; 1 if that is 0."""
    alike = [of for name, of in numbers.items() if _kind(name) == _kind(stage)]
    return max(abs(number) for of in alike for number in of) or 1


def _kind(stage: str) -> str:
    """Maps of all images are alike, and so are scores, of which the null consists."""
    name = stage.partition(" of ")[0]
    return "score" if name == "null" else name


def kept() -> dict[str, Any]:
    """What the file holds: `numbers` of each configuration, and what they were `made_with`."""
    return json.loads(FILE.read_text())


def write(numbers: Mapping[str, Numbers]) -> None:
    """Writes the file, a line for each stage, so that a diff shows which have moved."""
    made_with = environment.describe() | {"cpu": _cpu()}
    of_each = [
        f"    {json.dumps(name)}: {{\n"
        + ",\n".join(f"      {json.dumps(stage)}: {json.dumps(x)}" for stage, x in of.items())
        + "\n    }"
        for name, of in numbers.items()
    ]
    text = ",\n".join(of_each)
    FILE.write_text(
        f'{{\n  "made_with": {json.dumps(made_with)},\n  "numbers": {{\n{text}\n  }}\n}}\n'
    )


def _cpu() -> str:
    """The processor's name, and whether it has AVX-512; XLA makes other programs where it has."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    fields = dict(line.partition(":")[::2] for line in lines)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    name = fields.get("model name", platform.processor() or platform.machine())
    return name + (", AVX-512" if "avx512f" in fields.get("flags", "").split() else "")


def main() -> None:
    """Says what has changed, and writes the file."""
    before = kept()["numbers"] if FILE.exists() else {}
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory))
        found = {name: bench.numbers(name) for name in CONFIGURATIONS}
    for name, numbers in found.items():
        for line in differences(before.get(name, {}), numbers):
            print(f"{name}: {line}")
    write(found)
    print(f"written to {FILE}")


if __name__ == "__main__":
    main()
