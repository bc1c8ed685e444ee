"""One category from images to record: fit, score, measure, draw."""

import itertools
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import detectors, loading, pixels, processes, progress, stages
from experiments.config import Config
from experiments.figures import Panel
from experiments.gallery import Gallery
from sgfr_jax.datasets import DatasetError, Example, images
from sgfr_jax.metrics import Metrics


class Output(NamedTuple):
    """What a run writes beside its numbers."""

    workdir: Path
    num_figures: int  # of the most and of the least certain images, per kind
    save_maps: bool
    # Takes the fitted detector and the scores `[B]` of the test images, to make a model of them.
    keep: Callable[[detectors.Fitted, np.ndarray], None] | None = None
    bar: Callable = progress.bar  # what shows the progress of scoring


class Scored(NamedTuple):
    """What one solver found in the test images."""

    scores: np.ndarray  # [B] float32
    metrics: Metrics
    score_seconds: float
    metrics_seconds: float


def run(
    category: loading.Checked,
    detector: detectors.Detector,
    config: Config,
    output: Output,
) -> dict[str, Any]:
    """Fits on the training images, scores the test images, writes figures and maps.

    Args:
      category: its images.
      detector: of the configuration.
      config: of the run.
      output: what to write.

    Returns:
      `results`, `baselines`, `images` and `notes` of the category's `Record`.

    Raises:
      DatasetError: if features are not finite.
    """
    return start(category, detector, config, output)()


def start(
    category: loading.Checked,
    detector: detectors.Detector,
    config: Config,
    output: Output,
) -> Callable[[], dict[str, Any]]:
    """As `run`, up to the scores; what it returns computes the metrics, which needs no device."""
    num_train, test = len(category.train.examples), category.test.examples
    fitted = detector.fit(category)
    exact = pixels.keep_all(len(test), config.image_size, len(detector.scorers), config.counting)
    measure = _score(category, detector, fitted, config, output, exact)

    def results(found: Scored) -> dict[str, Any]:
        return found.metrics._asdict() | {
            "num_train": num_train,
            "num_test": len(test),
            "num_atoms": fitted.num_atoms,
            "seconds": {
                "embed_train": fitted.seconds.embed,
                "sample": fitted.seconds.sample,
                "calibrate": fitted.seconds.calibrate,
                "score_test": found.score_seconds,
                "metrics": found.metrics_seconds,
            },
        }

    def finish() -> dict[str, Any]:
        own, *others = measure()
        if output.keep is not None:
            output.keep(fitted, own.scores)
        baselines = dict(zip(config.baselines, others, strict=True))
        return {
            "results": results(own),
            "baselines": {name: results(found) for name, found in baselines.items()},
            "images": [
                {"file": example.name, "label": example.label, "kind": example.kind}
                | {"score": float(own.scores[i])}
                | {f"score_{name}": float(found.scores[i]) for name, found in baselines.items()}
                for i, example in enumerate(test)
            ],
            "notes": [*category.notes, *fitted.notes, *_notes(test, exact, config)],
        }

    return finish


def _score(
    category: loading.Checked,
    detector: detectors.Detector,
    fitted: detectors.Fitted,
    config: Config,
    output: Output,
    exact: bool,
) -> Callable[[], list[Scored]]:
    """Scores the test images with every solver, embedding them once; returns what measures.

    Images, maps and embeddings are let go as soon as they have been counted, drawn or written. A
    solver's seconds are those of the embedding, which it would need anyway, and its own.
    """
    test, scorers = category.test, detector.scorers
    num_known = sum(_mask_is_known(example) for example in test.examples)
    counts = [pixels.PixelScores(num_known, config.image_size, exact=exact) for _ in scorers]
    scores = [np.empty(len(test.examples), np.float32) for _ in scorers]
    seconds, metrics_seconds = [0.0] * len(scorers), [0.0] * len(scorers)
    gallery = Gallery(output.num_figures)
    maps_directory = output.workdir / "maps" / category.name
    figures_directory = output.workdir / "figures" / category.name
    if processes.first():
        for directory in (maps_directory, figures_directory):  # of an earlier run
            shutil.rmtree(directory, ignore_errors=True)
    # Each process scores its own images and then knows those of all; where there is one, its own
    # are all.
    own = loading.subset(test, processes.deal(len(test.examples), detector.batch_size))
    batches = iter(detector.batches(own) if own.examples else ())
    readable, mine, done = loading.iterate(own, config), iter(own.examples), 0
    nothing = tuple(np.empty((0, *shape), np.float32) for shape in ((config.image_size,) * 2, ()))
    with output.bar(f"{category.name}: scoring", len(test.examples), "images") as report:
        began = time.perf_counter()
        while done < len(test.examples):
            batch, here = next(batches, None), []
            if batch is not None:  # the last round may be without this process
                pad = partial(stages.pad, size=detector.batch_size)
                patches = detector.put(jax.tree.map(pad, batch))
                here = list(itertools.islice(mine, len(jax.tree.leaves(batch)[0])))
            shared = time.perf_counter() - began
            loaded = [next(readable) for _ in here]
            began = time.perf_counter()
            masks = [image.mask for image in loaded if image.mask is not None]
            if config.native:
                known = zip(here, loaded, strict=True)
                masks = _native_masks([e for e, image in known if image.mask is not None])
            loaded, masks = processes.joined(loaded), processes.joined(masks)
            known = [j for j, image in enumerate(loaded) if image.mask is not None]
            num = len(loaded)
            reading = time.perf_counter() - began
            for i, (solver, scorer) in enumerate(scorers.items()):
                began = time.perf_counter()
                found = nothing
                if here:
                    found = jax.device_get(scorer(fitted.states[solver], patches))
                    _check_finite(found[1][: len(here)], here)
                maps, image_scores = (processes.concatenated(x[: len(here)]) for x in found)
                scores[i][done : done + num] = image_scores
                seconds[i] += shared + time.perf_counter() - began

                began = time.perf_counter()
                if known:
                    counts[i].add(maps[known], masks)
                metrics_seconds[i] += reading + time.perf_counter() - began
                if i == 0:
                    for j, (image, found) in enumerate(zip(loaded, maps, strict=True), done):
                        _show(gallery, test.examples[j], image, found, scores[0][j])
                        if output.save_maps and processes.first():
                            _save_map(maps_directory, test.examples[j], found)
            done += num
            report(num)
            began = time.perf_counter()
        next(batches, None)  # the end, at which embeddings that have gone by are kept

    if processes.first():
        gallery.save(figures_directory)
    labels = np.array([example.label for example in test.examples], bool)

    def measure(i: int) -> Scored:
        began = time.perf_counter()
        measured = counts[i].measure(scores[i], labels)
        spent = metrics_seconds[i] + time.perf_counter() - began
        return Scored(scores[i], measured, seconds[i], spent)

    def measure_all() -> list[Scored]:
        # Sorting lets go of Python's lock.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(measure, range(len(scorers))))

    return measure_all


def _check_finite(scores: np.ndarray, examples: Sequence[Example]) -> None:
    if not np.isfinite(scores).all():
        name = examples[int(np.argmin(np.isfinite(scores)))].name
        raise DatasetError(
            f"{name}: its score is not finite: too many atoms for the penalty; raise --ridge or"
            " lower --num_neighbors"
        )


def _mask_is_known(example: Example) -> bool:
    """Nominal images have nothing to mask."""
    return example.mask is not None or not example.label


def _native_masks(examples: Sequence[Example]) -> list[np.ndarray]:
    """The masks of images at their own sizes; a nominal image's is all False."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [native.mask for native in pool.map(images.read_native, examples)]


def _show(gallery: Gallery, example: Example, image, found: np.ndarray, score: float) -> None:
    title = f"{example.name}   {example.kind}   score {score:.4f}"
    panel = Panel(title, image.image, image.mask, found)
    gallery.add(example.kind, example.label, float(score), panel)


def _save_map(directory: Path, example: Example, found: np.ndarray) -> None:
    # Appended, as `a.png` and `a.jpg` are two images.
    path = directory / f"{example.name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, found)


def _notes(test: Sequence[Example], exact: bool, config: Config) -> list[str]:
    """Why some metrics are null, or rest on fewer images, or are not exact."""
    defective = [example for example in test if example.label]
    unmasked = sum(example.mask is None for example in defective)
    notes = []
    if not test:
        notes.append("no test images: the bank was fitted, and there was nothing to score")
    elif not defective:
        notes.append("no defective test images: metrics are undefined")
    elif len(defective) == len(test):
        notes.append("no nominal test images: image metrics are undefined")
    if defective and unmasked == len(defective):
        notes.append("no masks: pixel metrics are undefined")
    elif unmasked:
        notes.append(
            f"{unmasked} of {len(defective)} defective images have no mask:"
            " pixel metrics leave them out"
        )
    if not exact and defective and unmasked < len(defective):
        size = " at the images' own sizes" if config.native else ""
        notes.append(
            f"pixel metrics{size} are streamed: scores counted in 2^20 bins (--metrics=streaming)"
        )
    return notes
