"""MVTec AD in its official directory (Bergmann et al., IJCV 2021)."""

from collections.abc import Sequence
from pathlib import Path

from sgfr_jax.datasets.layout import category_directories, list_category
from sgfr_jax.datasets.listing import require_directory
from sgfr_jax.datasets.problems import refuse
from sgfr_jax.datasets.recognition import refuse_other
from sgfr_jax.datasets.selection import select_categories
from sgfr_jax.datasets.types import Category, DatasetError

LAYOUT = """\
MVTec AD is offered at https://www.mvtec.com/company/research/datasets/mvtec-ad (licence
CC BY-NC-SA 4.0). Unpack it so that the files lie like this:
  DIR/<category>/train/good/000.png
  DIR/<category>/test/good/000.png
  DIR/<category>/test/<kind>/000.png
  DIR/<category>/ground_truth/<kind>/000_mask.png"""


def list_mvtec(
    data_dir: Path | None, *, categories: Sequence[str] | None, split_seed: int
) -> tuple[Category, ...]:
    """Returns the categories under `data_dir`, which may also be one category's own directory.

    The split is the official one, so `split_seed` changes nothing.
    """
    del split_seed
    data_dir = require_directory(data_dir, dataset="mvtec", layout=LAYOUT)
    refuse_other(data_dir, dataset="mvtec", layout=LAYOUT)
    directories = category_directories(data_dir)
    if not directories:
        raise DatasetError(f"there is no category in '{data_dir}' (`data_dir`).\n{LAYOUT}")
    problems = []
    found = tuple(
        list_category(name, directories[name], data_dir, masks_required=True, problems=problems)
        for name in select_categories(directories, categories, dataset="mvtec")
    )
    refuse(problems)
    return found
