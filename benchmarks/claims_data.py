"""The material of `benchmarks.claims`: features of MTD and of the demo, made once and kept."""

import functools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import jax
import numpy as np

import sgfr_jax as sgfr
from sgfr_jax import backbones, datasets, filters, linalg, patches
from sgfr_jax.commands.files import cache
from sgfr_jax.commands.sweeping import validation
from sgfr_jax.datasets.contents import content_hash

_NETWORK = "efficientnet_lite0"
LEVELS = ("block4", "block10", "block14")
_EMBEDDING = (backbones, datasets, filters, linalg, patches)  # what features follow from
_BATCH = 16
_VALIDATING = 0.25  # of the training images
PRODUCTS = ("brick", "grass", "gravel")  # of the demo
# What a mode of the demo does to an image; a defect's mask turns with it.
MODES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as shot": lambda image: image,
    "turned by 90 degrees": lambda image: np.rot90(image, axes=(0, 1)),
    "darkened to 0.6": lambda image: np.round(0.6 * image).astype(np.uint8),
}


class Setting(NamedTuple):
    """How large everything is."""

    image_size: int
    grid: int
    map_size: int  # of the maps that metrics are computed on
    num_good: int  # of the test images that are scored, at most
    num_per_kind: int
    num_train: int | None  # training images of the demo; None: all
    cache: Path | None


class Images(NamedTuple):
    """`B` images as features."""

    features: np.ndarray  # [B, P, D] float32, unit norm
    masks: np.ndarray  # [B, m, m] bool
    kinds: np.ndarray  # [B] str
    modes: np.ndarray  # [B] str: MTD's exposure, or a key of `MODES`

    def take(self, rows: Sequence[int] | np.ndarray) -> "Images":
        """Some of them."""
        return Images(*(part[rows] for part in self))

    @property
    def patches(self) -> np.ndarray:
        """All patches, `[B P, D]`."""
        return self.features.reshape(-1, self.features.shape[-1])


class Problem(NamedTuple):
    """One product: nominal images to fit on, and others to judge by."""

    train: Images
    test: Images


class Mtd:
    """All of MTD in memory, of which every split is a choice of rows."""

    def __init__(self, data_dir: str, setting: Setting):
        """Reads, embeds, or takes from the cache."""
        self._data_dir, self._setting = data_dir, setting
        (category,) = datasets.load("mtd", data_dir)
        self._examples = sorted(category.train + category.test, key=lambda example: example.name)
        self._rows = {example.name: row for row, example in enumerate(self._examples)}
        modes = [PurePosixPath(x.name).stem.partition("_")[0] for x in self._examples]
        self._images = _embedded("mtd", self._examples, modes, setting)

    def problem(self, seed: int, split: str) -> Problem:
        """The problem of one split; of its test a random part, all kinds of defect alike."""
        (category,) = datasets.load("mtd", self._data_dir, split_seed=seed, split=split)
        train = [self._rows[example.name] for example in category.train]
        test = [self._rows[example.name] for example in category.test]
        test = _balanced(np.array(test), self._images.kinds, self._setting, seed)
        return Problem(self._images.take(train), self._images.take(test))

    def exposure(self, seed: int, split: str, exposure: str) -> Images:
        """All test images of one exposure."""
        (category,) = datasets.load("mtd", self._data_dir, split_seed=seed, split=split)
        rows = np.array([self._rows[example.name] for example in category.test])
        return self._images.take(rows[self._images.modes[rows] == exposure])


def demo(setting: Setting, seed: int, modes: Iterable[str] = ("as shot",)) -> list[Problem]:
    """The products of the demo, in all of these modes."""
    found = []
    for category in datasets.load("demo", split_seed=seed):
        parts = []
        for part, examples in (("train", category.train[: setting.num_train]),
                               ("test", category.test)):  # fmt: skip
            read = []
            for mode in modes:
                name = f"demo-{category.name}-{seed}-{part}-{mode.replace(' ', '_')}"
                read.append(_embedded(name, examples, [mode] * len(examples), setting))
            parts.append(Images(*(np.concatenate(fields) for fields in zip(*read, strict=True))))
        keep = np.arange(len(parts[1].kinds))
        keep = _balanced(keep, parts[1].kinds, setting, seed)
        found.append(Problem(parts[0], parts[1].take(keep)))
    return found


def validations(
    setting: Setting, seed: int, mtd: str | None, split: str
) -> Iterable[tuple[str, Problem]]:
    """The problems that `experiments.select` poses: of training images alone, some spoilt.

    Args:
      setting: how large everything is.
      seed: of the data's split, of what validates and of the defects.
      mtd: its directory, if it is there.
      split: of MTD.
    """
    products = {f"demo {c.name}": c for c in datasets.load("demo", split_seed=seed)}
    if mtd:
        (category,) = datasets.load("mtd", mtd, split_seed=seed, split=split)
        products = {f"mtd {split}": category} | products
    for name, category in products.items():
        posed = validation.of_category(category, _VALIDATING, seed)
        parts = (posed.train[: setting.num_train], posed.test)
        yield name, Problem(*(embed(part, ["as shot"] * len(part), setting) for part in parts))


def embed(examples: Sequence[datasets.Example], modes: Sequence[str], setting: Setting) -> Images:
    """Features of examples, with the mode's change where `MODES` has one."""
    features = _network(setting.grid)
    rows, masks, batch = [], [], []
    step = setting.image_size // setting.map_size

    def flush():
        short = _BATCH - len(batch)
        images = np.concatenate([np.stack(batch), np.zeros((short, *batch[0].shape), np.uint8)])
        rows.append(np.asarray(features(images))[: len(batch)])
        batch.clear()

    for index, loaded in datasets.read_examples(examples, setting.image_size):
        if isinstance(loaded, datasets.DatasetError):
            raise loaded
        change = MODES.get(modes[index], MODES["as shot"])
        batch.append(change(loaded.image))
        mask = loaded.mask
        if mask is None or not examples[index].label:
            mask = np.zeros((setting.image_size,) * 2, bool)
        mask = np.rot90(mask) if modes[index].startswith("turned") else mask
        masks.append(mask[step // 2 :: step, step // 2 :: step])
        if len(batch) == _BATCH:
            flush()
    if batch:
        flush()
    kinds = np.array([example.kind for example in examples])
    return Images(np.concatenate(rows), np.stack(masks), kinds, np.array(modes))


@functools.cache
def _network(grid: int) -> Callable[[np.ndarray], jax.Array]:
    backbone = backbones.load(_NETWORK, levels=LEVELS)

    @jax.jit
    def features(state, images):
        levels = backbone.embed(state, images)
        merged = sgfr.merge_levels({level: levels[level] for level in LEVELS}, (grid, grid))
        return sgfr.unit_norm(merged).reshape(len(images), -1, merged.shape[-1])

    return partial(features, backbone.state)


def _balanced(rows, kinds, setting, seed):
    rng = np.random.default_rng(seed)
    kept = []
    for kind in np.unique(kinds[rows]):
        most = setting.num_good if kind == "good" else setting.num_per_kind
        own = rows[kinds[rows] == kind]
        kept.append(rng.permutation(own)[:most])
    return np.sort(np.concatenate(kept))


def _embedded(
    name: str, examples: Sequence[datasets.Example], modes: Sequence[str], setting: Setting
) -> Images:
    """As `embed`, from the cache where it has what would be made."""
    if setting.cache is None:
        return embed(examples, modes, setting)
    setting.cache.mkdir(parents=True, exist_ok=True)
    path = setting.cache / f"{name}-{_key(examples, modes, setting)[:16]}.npz"
    if path.exists():
        with np.load(path) as stored:
            return Images(*(stored[field] for field in Images._fields))
    images = embed(examples, modes, setting)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **images._asdict())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return images


def _key(examples, modes, setting):
    hashes = [[x.kind, x.label, content_hash(x.image), content_hash(x.mask)] for x in examples]
    return cache.key(
        examples=hashes,
        modes=list(modes),
        sizes=[setting.image_size, setting.grid, setting.map_size],
        weights=backbones.weights_digest(_NETWORK),
        levels=LEVELS,
        code=cache.source_digest(*_EMBEDDING, sys.modules[__name__]),
        platform=jax.default_backend(),
    )
