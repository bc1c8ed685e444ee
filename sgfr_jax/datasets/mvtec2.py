"""MVTec AD 2 in its official directory (Heckler-Kram et al., arXiv:2503.21622)."""

from collections.abc import Sequence
from pathlib import Path

from sgfr_jax.datasets.layout import Layout, category_directories, list_category, name_of
from sgfr_jax.datasets.listing import image_files, require_directory
from sgfr_jax.datasets.problems import refuse
from sgfr_jax.datasets.recognition import refuse_other
from sgfr_jax.datasets.selection import select_categories
from sgfr_jax.datasets.types import Category, DatasetError, Example

LAYOUT = """\
MVTec AD 2 is offered at https://www.mvtec.com/company/research/datasets/mvtec-ad-2 (licence
CC BY-NC-SA 4.0). Unpack it so that the files lie like this:
  DIR/<object>/train/good/000_regular.png
  DIR/<object>/validation/good/000_regular.png
  DIR/<object>/test_public/good/000_regular.png
  DIR/<object>/test_public/bad/000_overexposed.png
  DIR/<object>/test_public/ground_truth/bad/000_overexposed_mask.png
  DIR/<object>/test_private/000_regular.png        optional: no labels
  DIR/<object>/test_private_mixed/000_mixed.png    optional: no labels"""

PRIVATE = ("private", "private_mixed")
_LAYOUT = Layout(test="test_public", masks="test_public/ground_truth", validation="validation")


def list_mvtec2(
    data_dir: Path | None, *, categories: Sequence[str] | None, split_seed: int
) -> tuple[Category, ...]:
    """Returns the objects under `data_dir`, which may also be one object's own directory.

    `test` is the public test set. The private ones, whose labels only the publisher's server has,
    are `private`, of the kinds 'private' and 'private_mixed'. The split is the official one, so
    `split_seed` changes nothing.
    """
    del split_seed
    data_dir = require_directory(data_dir, dataset="mvtec2", layout=LAYOUT)
    refuse_other(data_dir, dataset="mvtec2", layout=LAYOUT)
    directories = category_directories(data_dir, _LAYOUT)
    if not directories:
        raise DatasetError(f"there is no category in '{data_dir}' (`data_dir`).\n{LAYOUT}")
    problems, found = [], []
    for name in select_categories(directories, categories, dataset="mvtec2"):
        directory = directories[name]
        problems += [
            f"there is no directory '{directory / part}'."
            for part in ("train", "validation", "test_public")
            if not (directory / part).is_dir()
        ]
        category = list_category(
            name, directory, data_dir, masks_required=True, problems=problems, layout=_LAYOUT
        )
        private = [
            Example(name_of(path, data_dir), path, label=-1, kind=kind, mask=None)
            for kind in PRIVATE
            for path in image_files(directory / f"test_{kind}")
        ]
        found.append(category._replace(private=tuple(private)))
    refuse(problems, remedy=LAYOUT if problems else "")
    return tuple(found)
