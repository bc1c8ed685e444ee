"""One category from images to record: fit, score, measure, draw."""

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sgfr_jax import curves, metrics
from sgfr_jax.commands.files import filenames, reading, written
from sgfr_jax.commands.flags.config import Config
from sgfr_jax.commands.host import processes, progress
from sgfr_jax.commands.pages import pixels, review
from sgfr_jax.commands.pages.figures import Panel
from sgfr_jax.commands.pages.gallery import Gallery
from sgfr_jax.datasets import Example, images, masks
from sgfr_jax.datasets.geometry import to_size
from sgfr_jax.detector import assembly, diagnosis, fitting, looks, settle, splits
from sgfr_jax.detector import stages as machinery
from sgfr_jax.detector.stages import Stages


class Output(NamedTuple):
    """What a run writes beside its numbers."""

    workdir: Path
    num_figures: int  # of the most and of the least certain images, per kind
    save_maps: bool
    num_review: int = 0  # pictures for the page of a report, of the worst images; 0: no review
    keep: Callable[["Kept"], None] | None = None  # takes what a model can be made of
    diagnose: bool = False  # whether `diagnosis.diagnose` has its say
    bar: Callable = progress.bar  # what shows the progress of scoring
    files: written.Output | None = None  # takes figures and maps; None: there are none


class Kept(NamedTuple):
    """What was fitted, and what the method's own solver makes of the test images."""

    fitted: fitting.Fitted
    scores: np.ndarray  # [B] float32


class Scored(NamedTuple):
    """What one solver found in the test images."""

    scores: np.ndarray  # [B] float32
    metrics: metrics.Metrics
    points: curves.Points | None  # of the pixels' curves; None where they are undefined
    score_seconds: float
    metrics_seconds: float


def run(
    category: reading.Checked,
    stages: Stages,
    config: Config,
    output: Output,
) -> dict[str, Any]:
    """Fits on the training images, scores the test images, writes figures and maps.

    Args:
      category: its images.
      stages: of the configuration.
      config: of the run.
      output: what to write.

    Returns:
      `results`, `baselines`, `images` and `notes` of the category's `Record`.

    Raises:
      DatasetError: if features are not finite.
    """
    return start(category, stages, config, output)()


def start(
    category: reading.Checked,
    stages: Stages,
    config: Config,
    output: Output,
    fit_look: fitting.FitLook | None = None,
) -> Callable[[], dict[str, Any]]:
    """As `run`, up to the scores; what it returns computes the metrics, which needs no device.

    `fit_look` is as of `fitting.fit`.
    """
    num_train, test = len(category.train.examples), category.test.examples
    config = category.settings(config)
    stages = machinery.of_method(stages, config.method)
    key = jax.random.key(config.evaluation.seed)
    fitted = fitting.fit(stages, key, category.train, category.name, fit_look)
    more, noted = {}, []
    if output.diagnose and processes.first():
        found, noted = _diagnose(category, stages, fitted, config, output)
        more = {"diagnostics": found}
    exact = pixels.keep_all(
        len(test), config.method.image_size, len(stages.programs), config.evaluation.counting
    )
    shown = review.Selection(output.num_review if processes.first() else 0)
    marked = Counter()
    measure = _score(category, stages, fitted, config, output, exact, shown, marked)

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
            output.keep(Kept(fitted, own.scores))
        baselines = dict(zip(config.evaluation.baselines, others, strict=True))
        own_results = results(own) | more
        if output.num_review and processes.first():
            points = {name: found.points for name, found in baselines.items()}
            points = {config.method.solver: own.points} | points
            review.save(output.workdir, category.name, own_results, shown, points)
        return {
            "results": own_results,
            "baselines": {name: results(found) for name, found in baselines.items()},
            "images": [
                {"file": example.name, "label": example.label, "kind": example.kind}
                | {"score": float(own.scores[i])}
                | {f"score_{name}": float(found.scores[i]) for name, found in baselines.items()}
                for i, example in enumerate(test)
            ],
            "notes": [
                *category.notes,
                *fitted.notes,
                *noted,
                *_notes(test, exact, config),
                *masks.notes(**marked),
            ],
        }

    return finish


def _diagnose(
    category: reading.Checked,
    stages: Stages,
    fitted: fitting.Fitted,
    config: Config,
    output: Output,
) -> tuple[dict[str, Any], list[str]]:
    """The diagnostics of every bank and the notes on them, look by look."""
    several, found, notes = len(category.geometries) > 1, {}, []
    state, seed = fitted.states[config.method.solver], config.evaluation.seed
    for look, fitted_look in zip(category.looks(), state.looks, strict=True):
        banks, note = diagnosis.diagnose(
            stages, fitted_look, look.train, seed, look.name, output.bar
        )
        kind = f"{look.geometries[0].kind}: " if several else ""
        found |= {f"{kind}{name}": values for name, values in banks.items()}
        notes.append(f"{kind}{note}")
    return found, notes


def _score(
    category: reading.Checked,
    stages: Stages,
    fitted: fitting.Fitted,
    config: Config,
    output: Output,
    exact: bool,
    shown: review.Selection,
    marked: Counter,
) -> Callable[[], list[Scored]]:
    """Scores the test images with every solver, embedding them once; returns what measures.

    Adds what the masks look like to `marked`, as `masks.notes` takes it. Images, maps and
    embeddings are let go as soon as they have been counted, drawn or written. A solver's seconds
    are those of the embedding, which it would need anyway, and its own.
    """
    test, solvers = category.test, tuple(stages.programs)
    image_size, native = config.method.image_size, config.evaluation.native
    num_known = sum(_mask_is_known(example) for example in test.examples)
    counts = [pixels.PixelScores(num_known, image_size, exact=exact) for _ in solvers]
    scores = [np.empty(len(test.examples), np.float32) for _ in solvers]
    seconds, metrics_seconds = dict.fromkeys(solvers, 0.0), [0.0] * len(solvers)
    gallery = Gallery(output.num_figures)
    if output.files is not None:  # of an earlier run
        of_category = filenames.shortened(category.name)
        earlier = output.files.earlier(f"maps/{of_category}", f"figures/{of_category}")
        output.files.remove(earlier)
    size, done = (image_size, image_size), 0
    with output.bar(f"{category.name}: scoring", len(test.examples), "images") as report:
        for found in _rounds(test, stages, fitted, config, seconds):
            for i, wholes in enumerate(zip(*found.wholes, strict=True)):
                began = time.perf_counter()
                scores[i][done : done + len(wholes)] = [whole.score for whole in wholes]
                maps = [to_size(whole.anomaly_map, size) for whole in wholes]
                if found.known:
                    counted = [w.anomaly_map for w in wholes] if native else maps
                    counts[i].add([counted[j] for j in found.known], found.masks)
                metrics_seconds[i] += found.reading + time.perf_counter() - began
                if i == 0:
                    for j, (image, of_image) in enumerate(
                        zip(found.loaded, maps, strict=True), done
                    ):
                        _show(gallery, test.examples[j], image, of_image, scores[0][j])
                        shown.add(test.examples[j], image, of_image, scores[0][j])
                        if output.save_maps and output.files is not None:
                            _save_map(output.files, category.name, test.examples[j], of_image)
            for j, mask in zip(found.known, found.masks, strict=True):
                marked.update(masks.looks(test.examples[done + j], mask))
            done += len(found.wholes)
            report(len(found.wholes))

    if output.files is not None:
        gallery.save(
            lambda name: output.files.claim(figure_name(output.files, category.name, name))
        )
    labels = np.array([example.label for example in test.examples], bool)

    def measure(i: int) -> Scored:
        began = time.perf_counter()
        ranked = counts[i].rankings(scores[i], labels)
        measured = metrics.measure(*ranked)
        spent = metrics_seconds[i] + time.perf_counter() - began
        points = None if ranked.pixels is None else curves.thin(ranked.pixels, ranked.regions)
        return Scored(scores[i], measured, points, seconds[solvers[i]], spent)

    def measure_all() -> list[Scored]:
        # Sorting lets go of Python's lock.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(measure, range(len(solvers))))

    return measure_all


class _Round(NamedTuple):
    """Some images in order, and what is made of them."""

    wholes: list[tuple[assembly.Whole, ...]]  # of each image, by every solver
    loaded: list[images.Loaded]
    known: list[int]  # which of the images have a mask
    masks: list[np.ndarray]  # of these, at the size that pixels are counted at
    reading: float  # seconds that it took to read them


def _rounds(
    test: splits.Split,
    stages: Stages,
    fitted: fitting.Fitted,
    config: Config,
    seconds: dict[str, float],
) -> Iterator[_Round]:
    """All images, those of every process; adds the time that scoring took to `seconds`.

    Each process scores its own images and then knows those of all; where there is one, its own are
    all.
    """
    batch_size = stages.services.batch_size
    own = test.take(processes.deal(len(test.examples), batch_size))

    def spent(solver: str, more: float) -> None:
        seconds[solver] += more

    found = looks.whole_images(own, stages, fitted.states, spent)
    readable, done = _readable(own, config, stages), 0
    scored, mine = iter(own.examples), iter(own.examples)
    while done < len(test.examples):
        # None in the last round, if that is without this process.
        wholes = list(itertools.islice(found, batch_size))
        for of_image in wholes:
            looks.check_finite(next(scored), of_image)
        began = time.perf_counter()
        loaded = [next(readable) for _ in wholes]
        masks = [image.mask for image in loaded if image.mask is not None]
        if config.evaluation.native:
            pairs = zip(itertools.islice(mine, len(wholes)), loaded, strict=True)
            masks = _native_masks([e for e, image in pairs if image.mask is not None])
        wholes, loaded, masks = (processes.joined(items) for items in (wholes, loaded, masks))
        known = [j for j, image in enumerate(loaded) if image.mask is not None]
        yield _Round(wholes, loaded, known, masks, time.perf_counter() - began)
        done += len(wholes)
    next(found, None)  # the end, at which embeddings that have gone by are kept


def _readable(own: splits.Split, config: Config, stages: Stages) -> Iterator[images.Loaded]:
    """Images and masks at the size that pixels are counted at."""
    min_side = settle.largest_stride(config.method, config.network)
    return splits.iterate(own, config.method.image_size, min_side, workers=stages.services.workers)


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


def map_name(output: written.Output, category: str, example: Example) -> str:
    """Where the map of a test image goes, below the work directory."""
    return output.name("maps", f"{category}/{example.name}", ".npy")


def figure_name(output: written.Output, category: str, name: str) -> str:
    """Where a figure of `gallery.names` goes, below the work directory."""
    return output.name("figures", f"{category}/{name}", ".png")


def _save_map(output: written.Output, category: str, example: Example, found: np.ndarray) -> None:
    name = map_name(output, category, example)
    np.save(output.claim(name), found)
    output.seal(name)


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
        size = " at the images' own sizes" if config.evaluation.native else ""
        notes.append(
            f"pixel metrics{size} are streamed: scores counted in 2^20 bins (--metrics=streaming)"
        )
    return notes
