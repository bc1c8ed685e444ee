"""Data sets as lists of examples (NumPy and Pillow alone; nothing here imports jax).

A data set is a function `(data_dir, *, categories, split_seed) -> tuple[Category, ...]` that lists
what there is without decoding it; `sgfr_jax.datasets.images` then reads the pixels.
"""

from collections.abc import Sequence
from pathlib import Path

from sgfr_jax import names
from sgfr_jax.datasets.demo import list_demo
from sgfr_jax.datasets.folder import list_folder
from sgfr_jax.datasets.images import Loaded, read_example, read_examples, read_image, read_mask
from sgfr_jax.datasets.mtd import list_mtd
from sgfr_jax.datasets.mvtec import list_mvtec
from sgfr_jax.datasets.types import Category, DatasetError, Example

__all__ = [
    "DATASETS",
    "Category",
    "DatasetError",
    "Example",
    "Loaded",
    "load",
    "read_example",
    "read_examples",
    "read_image",
    "read_mask",
]

DATASETS = {
    "demo": list_demo,
    "folder": list_folder,
    "mtd": list_mtd,
    "mvtec": list_mvtec,
}


def load(
    name: str,
    data_dir: Path | str | None = None,
    *,
    categories: Sequence[str] | None = None,
    split_seed: int = 0,
) -> tuple[Category, ...]:
    """Returns the categories of the data set `name`, sorted by name.

    Args:
      name: a key of `DATASETS`.
      data_dir: where the files lie; `demo` needs none and takes none.
      categories: the names of those wanted; `None` for all.
      split_seed: chooses the split (or the crops) of a data set that has no official one.
    """
    if name not in DATASETS:
        raise DatasetError(names.unknown_name("data set", name, DATASETS))
    if not 0 <= split_seed < 2**32:
        raise DatasetError(f"split_seed must lie in 0 .. 2**32 - 1, not {split_seed}.")
    if data_dir is not None:
        data_dir = Path(data_dir).expanduser()
    return DATASETS[name](data_dir, categories=categories, split_seed=split_seed)
