"""BTAD, the beanTech data set, in its official directory (Mishra et al., ISIE 2021)."""

from collections.abc import Sequence
from pathlib import Path

from sgfr_jax.datasets.layout import Layout, category_directories, list_category
from sgfr_jax.datasets.listing import require_directory
from sgfr_jax.datasets.problems import refuse
from sgfr_jax.datasets.recognition import refuse_other
from sgfr_jax.datasets.selection import select_categories
from sgfr_jax.datasets.types import Category, DatasetError

LAYOUT = """\
BTAD is offered at https://avires.dimi.uniud.it/papers/btad/btad.zip by beanTech and the
University of Udine, without a licence (ask the authors). Unpack it so that the files lie like
this, each image .bmp or .png, whatever its mask is:
  DIR/<01, 02 or 03>/train/ok/0000.bmp
  DIR/<01, 02 or 03>/test/ok/0000.bmp
  DIR/<01, 02 or 03>/test/ko/0000.bmp
  DIR/<01, 02 or 03>/ground_truth/ko/0000.png"""

_LAYOUT = Layout(good="ok")


def list_btad(
    data_dir: Path | None, *, categories: Sequence[str] | None, split_seed: int
) -> tuple[Category, ...]:
    """Returns the products under `data_dir`, which may also be one product's own directory.

    `ok` becomes 'good'; every defect is of the kind 'ko'. Masks pair by stem, so their endings may
    differ from the images'. The split is the official one, so `split_seed` changes nothing.
    """
    del split_seed
    data_dir = require_directory(data_dir, dataset="btad", layout=LAYOUT)
    refuse_other(data_dir, dataset="btad", layout=LAYOUT)
    directories = category_directories(data_dir, _LAYOUT)
    if not directories:
        raise DatasetError(f"there is no category in '{data_dir}' (`data_dir`).\n{LAYOUT}")
    problems = []
    found = tuple(
        list_category(
            name,
            directories[name],
            data_dir,
            masks_required=True,
            problems=problems,
            layout=_LAYOUT,
        )
        for name in select_categories(directories, categories, dataset="btad")
    )
    refuse(problems)
    return found
