"""One category from images to record: embed, sample, score, measure, draw."""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import choices, figures, loading, progress, stages
from experiments.config import Config
from sgfr_jax import backbones, metrics
from sgfr_jax.datasets import Category, Example


class Output(NamedTuple):
    """What a run writes beside its numbers."""

    workdir: Path
    num_figures: int  # of the most and of the least certain images, per kind
    save_maps: bool


class Scored(NamedTuple):
    """What one solver found in the test images."""

    maps: np.ndarray  # [B, S, S] float32
    scores: np.ndarray  # [B] float32
    seconds: float


def run(
    category: Category,
    images: loading.Loaded,
    backbone: backbones.Backbone,
    config: Config,
    output: Output,
    *,
    batch_size: int,
) -> dict[str, Any]:
    """Fits on the training images, scores the test images, writes figures and maps.

    Returns:
      `results`, `baselines`, `images` and `notes` of the category's `Record`.

    Raises:
      DatasetError: if features are not finite.
    """
    embed = stages.make_embedder(backbone, config)

    start = time.perf_counter()
    train_images = [loaded.image for loaded in images.train]
    names = [example.name for example in category.train]
    with progress.bar(f"{category.name}: embedding", len(names), "images") as report:
        patches = stages.embed_all(embed, train_images, names, batch_size, report)
    embed_seconds = time.perf_counter() - start

    start = time.perf_counter()
    num_atoms = config.num_atoms(patches.shape[0])
    key = jax.random.key(config.seed)
    with progress.bar(f"{category.name}: sampling", num_atoms, "atoms") as report:
        sampler = choices.SAMPLERS[config.sampler]
        bank = jax.block_until_ready(stages.sample(sampler, key, patches, num_atoms, report))
    sample_seconds = time.perf_counter() - start
    del patches

    solvers = (config.solver, *config.baselines)
    scored = _score(category, images, embed, bank, solvers, config, batch_size)
    labels = np.array([example.label for example in category.test], bool)

    def results(found: Scored) -> dict[str, Any]:
        start = time.perf_counter()
        measured = _measure(found, labels, images, category.test)
        return measured._asdict() | {
            "num_train": len(category.train),
            "num_test": len(category.test),
            "num_atoms": num_atoms,
            "seconds": {
                "embed_train": embed_seconds,
                "sample": sample_seconds,
                "score_test": found.seconds,
                "metrics": time.perf_counter() - start,
            },
        }

    own, *others = scored
    baselines = dict(zip(config.baselines, others, strict=True))
    outcome = {
        "results": results(own),
        "baselines": {name: results(found) for name, found in baselines.items()},
        "images": [
            {"file": example.name, "label": example.label, "kind": example.kind}
            | {"score": float(own.scores[i])}
            | {f"score_{name}": float(found.scores[i]) for name, found in baselines.items()}
            for i, example in enumerate(category.test)
        ],
        "notes": _notes(category.test),
    }
    _draw(category, images, own, output)
    if output.save_maps:
        for example, found in zip(category.test, own.maps, strict=True):
            # Appended, as `a.png` and `a.jpg` are two images.
            path = output.workdir / "maps" / category.name / f"{example.name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, found)
    return outcome


def _score(
    category: Category,
    images: loading.Loaded,
    embed: Callable,
    bank: Any,
    solvers: Sequence[str],
    config: Config,
    batch_size: int,
) -> list[Scored]:
    """Scores the test images with every solver, embedding them once.

    A solver's seconds are those of the embedding, which it would need anyway, and its own.
    """
    names = [example.name for example in category.test]
    test_images = [loaded.image for loaded in images.test]
    scorers = [stages.make_scorer(config, solver) for solver in solvers]
    size = config.image_size
    maps = [np.empty((len(names), size, size), np.float32) for _ in solvers]
    scores = [np.empty(len(names), np.float32) for _ in solvers]
    own_seconds = [0.0] * len(solvers)
    done, start = 0, time.perf_counter()
    with progress.bar(f"{category.name}: scoring", len(names), "images") as report:
        for count, patches in stages.embed_in_batches(embed, test_images, names, batch_size):
            for i, scorer in enumerate(scorers):
                began = time.perf_counter()
                found = jax.device_get(scorer(bank, patches))
                maps[i][done : done + count], scores[i][done : done + count] = (
                    part[:count] for part in found
                )
                own_seconds[i] += time.perf_counter() - began
            done += count
            report(count)
    shared = time.perf_counter() - start - sum(own_seconds)
    return [
        Scored(*found, shared + own) for *found, own in zip(maps, scores, own_seconds, strict=True)
    ]


def _measure(
    found: Scored, labels: np.ndarray, images: loading.Loaded, examples: Sequence[Example]
) -> metrics.Metrics:
    if not len(examples):
        return metrics.Metrics(*[None] * len(metrics.Metrics._fields))
    known = [i for i, loaded in enumerate(images.test) if loaded.mask is not None]
    masks = np.stack([images.test[i].mask for i in known]) if known else None
    # Indexing copies: leave the maps alone where all masks are known.
    maps = found.maps if len(known) == len(examples) else found.maps[known]
    return metrics.evaluate(found.scores, labels, maps, masks)


def _notes(test: Sequence[Example]) -> list[str]:
    """Why some metrics are null, or rest on fewer images."""
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
    return notes


def _draw(category: Category, images: loading.Loaded, found: Scored, output: Output) -> None:
    directory = output.workdir / "figures" / category.name
    shutil.rmtree(directory, ignore_errors=True)
    if not category.test or not output.num_figures:
        return
    labels = np.array([example.label for example in category.test])
    kinds = [example.kind for example in category.test]
    low, high = np.quantile(found.maps[:: max(1, len(kinds) // 100)], (0.02, 0.999))
    chosen = figures.choose(found.scores, kinds, labels, output.num_figures)
    with progress.bar(f"{category.name}: figures", len(chosen), "figures") as report:
        for i, name in chosen.items():
            title = f"{category.test[i].name}   {kinds[i]}   score {found.scores[i]:.4f}"
            panel = figures.Panel(title, images.test[i].image, images.test[i].mask, found.maps[i])
            figures.save(directory, name, panel, low, high)
            report(1)
