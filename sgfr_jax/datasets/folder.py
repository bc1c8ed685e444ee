"""Anyone's own images, in directories."""

from collections.abc import Sequence
from pathlib import Path

from sgfr_jax.datasets.layout import category_directories, list_category
from sgfr_jax.datasets.listing import require_directory
from sgfr_jax.datasets.problems import refuse
from sgfr_jax.datasets.recognition import refuse_other
from sgfr_jax.datasets.selection import select_categories
from sgfr_jax.datasets.types import Category, DatasetError

LAYOUT = """\
Put your images like this (or the same within DIR/<category>/ for several products):
  DIR/train/good/*                    nominal images to learn from
  DIR/test/good/*                     optional: nominal images to test
  DIR/test/<kind>/*                   optional: defective images to test, of any kinds
  DIR/ground_truth/<kind>/*_mask.png  optional: masks, not zero where the defect is
Instead of good: ok, normal, nominal, pass or passed.
Images that lie otherwise: `train_glob`, `test_glob` and `mask_glob`, or `manifest`."""


def list_folder(
    data_dir: Path | None, *, categories: Sequence[str] | None, split_seed: int
) -> tuple[Category, ...]:
    """Returns the category, named like `data_dir`, or the categories that lie there.

    Masks and test images are optional. Test images are nominal where `layout.is_nominal` says so of
    one of their directories. A mask is named like its image, with or without `_mask`; where it is
    neither zero nor transparent is defect (from 128 if its format loses, as JPEG's does). Masks in
    `ground_truth/good` are allowed. The directories are the split, so `split_seed` changes nothing.
    """
    del split_seed
    data_dir = require_directory(data_dir, dataset="folder", layout=LAYOUT)
    refuse_other(data_dir, dataset="folder", layout=LAYOUT)
    directories = category_directories(data_dir)
    if not directories:
        raise DatasetError(
            f"there is neither a directory 'train' nor '<category>/train' in '{data_dir}' "
            f"(`data_dir`).\n{LAYOUT}"
        )
    problems = []
    found = tuple(
        list_category(name, directories[name], data_dir, masks_required=False, problems=problems)
        for name in select_categories(directories, categories, dataset="folder")
    )
    refuse(problems)
    return found
