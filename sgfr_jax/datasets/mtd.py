"""The magnetic tile defect set (Huang et al., The Visual Computer 36, 2020)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sgfr_jax.datasets.listing import image_files, require_directory
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
# The masks are antialiased; "not zero" would mark 2.4% more area than the drawn outline holds.
_MASK_THRESHOLD = 128


def list_mtd(
    data_dir: Path | None, *, categories: Sequence[str] | None, split_seed: int
) -> tuple[Category, ...]:
    """Returns one category, `mtd`, split as the literature does.

    There is no official split. 80% of the defect-free images train, chosen by
    `RandomState(split_seed).permutation` of their sorted stems; the other 20% and every defective
    image are the test. The same tile was photographed several times, so this split puts near
    twins of training images into the test.
    """
    select_categories(["mtd"], categories, dataset="mtd")
    data_dir = require_directory(data_dir, dataset="mtd", layout=LAYOUT)
    missing = [f"MT_{kind}/Imgs" for kind in (_FREE, *_DEFECTS) if not _images(data_dir, kind)]
    if missing:
        raise DatasetError(
            f"there are no images in {', '.join(missing)} of '{data_dir}' (--data_dir).\n{LAYOUT}"
        )
    free = _examples(data_dir, _FREE)
    order = np.random.RandomState(split_seed).permutation(len(free))
    num_train = int(_TRAIN_FRACTION * len(free))
    if not num_train:
        raise DatasetError(
            f"'{data_dir / 'MT_Free'}' leaves no training image: it holds {len(free)}, of which "
            f"{_TRAIN_FRACTION:.0%} train."
        )
    train = sorted(free[i] for i in order[:num_train])
    test = sorted(free[i] for i in order[num_train:])
    for kind in _DEFECTS:
        test += _examples(data_dir, kind)
    return (Category("mtd", tuple(train), tuple(test)),)


def _images(data_dir: Path, kind: str) -> list[Path]:
    files = image_files(data_dir / f"MT_{kind}" / "Imgs", recursive=False)
    return [path for path in files if path.suffix.lower() == ".jpg"]


def _examples(data_dir: Path, kind: str) -> list[Example]:
    directory = data_dir / f"MT_{kind}" / "Imgs"
    files = image_files(directory, recursive=False)
    masks = {path.stem: path for path in files if path.suffix.lower() == ".png"}
    examples = []
    for image in sorted(_images(data_dir, kind), key=lambda path: path.stem):
        mask = masks.pop(image.stem, None)
        if mask is None:
            expected = image.with_suffix(".png")
            raise DatasetError(f"the image '{image}' has no mask; '{expected}' was expected.")
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
    if masks:
        mask = min(masks.values())
        expected = mask.with_suffix(".jpg")
        raise DatasetError(f"the mask '{mask}' has no image; '{expected}' was expected.")
    return examples
