"""The magnetic tile defect set (Huang et al., The Visual Computer 36, 2020)."""

import importlib.resources
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sgfr_jax.datasets.listing import image_files, require_directory
from sgfr_jax.datasets.problems import refuse
from sgfr_jax.datasets.selection import select_categories
from sgfr_jax.datasets.types import Category, DatasetError, Example

LAYOUT = """\
MTD is the public GitHub repository https://github.com/abin24/Magnetic-tile-defect-datasets.
(the full stop belongs to its name), by Huang, Qiu, Guo, Wang and Yuan, "Surface defect saliency
of magnetic tile", The Visual Computer 36 (2020). Its files must lie like this, each image with
its mask beside it:
  DIR/MT_Free/Imgs/<stem>.jpg       DIR/MT_Free/Imgs/<stem>.png
  DIR/MT_<class>/Imgs/<stem>.jpg    DIR/MT_<class>/Imgs/<stem>.png
for the classes Blowhole, Break, Crack, Fray and Uneven."""

_FREE = "Free"
_DEFECTS = ("Blowhole", "Break", "Crack", "Fray", "Uneven")
_TRAIN_FRACTION = 0.8
SPLITS = ("random", "grouped")
# The stems of `MT_Free` that show one tile, a line for each tile. Numbers in file names that
# follow each other within 200 are photographs of one tile, and so are groups of them with a
# normalised cross-correlation above 0.35 (`tests/datasets/mtd_tiles.py` computes both): within a
# tile three quarters exceed 0.26, between tiles one pair in a thousand 0.19.
_TILES = "mtd_tiles.txt"
# The stems of `MT_Free` that the random split of seed 0 tests on, `RandomState(0)`'s choice among
# all 952 of them: a copy that lacks some of the images is split in the same way.
_TEST = "mtd_test.txt"
# The masks are antialiased; "not zero" would mark 2.4% more area than the drawn outline holds.
_MASK_THRESHOLD = 128


def list_mtd(
    data_dir: Path | None,
    *,
    categories: Sequence[str] | None,
    split_seed: int,
    split: str = "random",
) -> tuple[Category, ...]:
    """Returns one category, `mtd`, of which 80% of the defect-free images train.

    There is no official split. `random` is the literature's: images are chosen by
    `RandomState(split_seed).permutation` of their sorted stems; the other 20% and every defective
    image are the test. With seed 0 they are those of a committed list, which holds for a copy with
    fewer of the images too. The same tile was photographed several times, so it puts near twins of
    training images into the test. `grouped` keeps the photographs of a tile together: tiles, in an
    order permuted likewise, train if all their images still fit into the 80%.
    """
    select_categories(["mtd"], categories, dataset="mtd")
    data_dir = require_directory(data_dir, dataset="mtd", layout=LAYOUT)
    missing = [f"MT_{kind}/Imgs" for kind in (_FREE, *_DEFECTS) if not _images(data_dir, kind)]
    if missing:
        raise DatasetError(
            f"there are no images in {', '.join(missing)} of '{data_dir}' (`data_dir`).\n{LAYOUT}"
        )
    problems: list[str] = []
    free = _examples(data_dir, _FREE, problems)
    defective = [example for kind in _DEFECTS for example in _examples(data_dir, kind, problems)]
    refuse(problems)
    train, test = _split(free, data_dir, split, split_seed)
    return (Category("mtd", tuple(sorted(train)), (*sorted(test), *defective)),)


def _split(
    free: list[Example], data_dir: Path, split: str, split_seed: int
) -> tuple[list[Example], list[Example]]:
    """Which defect-free images train, and which test."""
    if split == "random" and split_seed == 0:
        known = {stem for line in _lines(_TILES) for stem in line.split()}
        if known.issuperset(Path(example.name).stem for example in free):
            tested = set(_lines(_TEST))
            parts = [], []
            for example in free:
                parts[Path(example.name).stem in tested].append(example)
            if parts[0]:
                return parts
    num_train = int(_TRAIN_FRACTION * len(free))
    if not num_train:
        raise DatasetError(
            f"'{data_dir / 'MT_Free'}' leaves no training image: it holds {len(free)}, of which "
            f"{_TRAIN_FRACTION:.0%} train."
        )
    groups = [[i] for i in range(len(free))] if split == "random" else _tiles(free)
    chosen: list[int] = []
    for group in np.random.RandomState(split_seed).permutation(len(groups)):
        if len(chosen) + len(groups[group]) <= num_train:
            chosen += groups[group]
    if not chosen:
        raise DatasetError(
            f"'{data_dir / 'MT_Free'}' has no tile with {num_train} images or fewer to train on; "
            "use split=random."
        )
    others = set(range(len(free))) - set(chosen)
    return [free[i] for i in chosen], [free[i] for i in others]


def _lines(name: str) -> list[str]:
    return importlib.resources.files(__package__).joinpath(name).read_text().splitlines()


def _tiles(free: list[Example]) -> list[list[int]]:
    """The images of each tile, by their places in `free`; an unknown image is its own tile."""
    tile_of = {stem: tile for tile, line in enumerate(_lines(_TILES)) for stem in line.split()}
    tiles: dict[int | str, list[int]] = {}
    for i, example in enumerate(free):
        stem = Path(example.name).stem
        tiles.setdefault(tile_of.get(stem, stem), []).append(i)
    return list(tiles.values())


def _images(data_dir: Path, kind: str) -> list[Path]:
    files = image_files(data_dir / f"MT_{kind}" / "Imgs", recursive=False)
    return [path for path in files if path.suffix.lower() == ".jpg"]


def _examples(data_dir: Path, kind: str, problems: list[str]) -> list[Example]:
    directory = data_dir / f"MT_{kind}" / "Imgs"
    files = image_files(directory, recursive=False)
    masks = {path.stem: path for path in files if path.suffix.lower() == ".png"}
    examples = []
    for image in sorted(_images(data_dir, kind), key=lambda path: path.stem):
        mask = masks.pop(image.stem, None)
        if mask is None:
            expected = image.with_suffix(".png")
            problems.append(f"the image '{image}' has no mask; '{expected}' was expected.")
            continue
        examples.append(
            Example(
                name=image.relative_to(data_dir).as_posix(),
                image=image,
                label=int(kind != _FREE),
                kind="good" if kind == _FREE else kind.lower(),
                mask=mask,
                mask_threshold=_MASK_THRESHOLD,
            )
        )
    for mask in sorted(masks.values()):
        expected = mask.with_suffix(".jpg")
        problems.append(f"the mask '{mask}' has no image; '{expected}' was expected.")
    return examples
