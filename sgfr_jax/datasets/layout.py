"""The layout that MVTec AD made common: `train/good`, `test/<kind>`, `ground_truth/<kind>`."""

from pathlib import Path
from typing import NamedTuple

from sgfr_jax.datasets import left_out
from sgfr_jax.datasets.formats import SUFFIXES
from sgfr_jax.datasets.listing import (
    duplicate_stems,
    image_files,
    pair_masks,
    real,
    subdirectories,
)
from sgfr_jax.datasets.masks import mask_threshold
from sgfr_jax.datasets.types import Category, Example

GOOD = "good"
# What nominal images are called, by their directory or in a manifest, in any case.
NOMINAL = (GOOD, "ok", "normal", "nominal", "pass", "passed")


class Layout(NamedTuple):
    """What the directories of a category are called, relative to it."""

    train: str = "train"
    test: str = "test"
    masks: str = "ground_truth"
    good: str = GOOD  # the directory of nominal images within `train` and `validation`
    validation: str | None = None


def category_directories(data_dir: Path, layout: Layout = Layout()) -> dict[str, Path]:  # noqa: B008
    """Returns the categories' directories by name: those under `data_dir`, or itself alone.

    A directory is a category if it holds any of the layout's, so that an incomplete one is
    reported later instead of being passed over; licences and the like are not.
    """
    if _is_category(data_dir, layout):
        return {real(data_dir).name: data_dir}
    return {path.name: path for path in subdirectories(data_dir) if _is_category(path, layout)}


def list_category(
    name: str,
    directory: Path,
    root: Path,
    *,
    masks_required: bool,
    problems: list[str],
    layout: Layout = Layout(),  # noqa: B008
) -> Category:
    """Returns the images under `directory`, named relative to `root`.

    Args:
      name: the category's name.
      directory: holds `train/good` (or another of `NOMINAL`, or images in `train` itself), and
        perhaps `test/<kind>` and `ground_truth/<kind>`. Directories within these are searched too.
        The kinds of `NOMINAL` are no defects.
      root: the data directory.
      masks_required: whether a defective test image without a mask is a problem.
      problems: a sentence is appended for everything that is wrong; the result is then of no use.
      layout: what these directories are called.
    """
    train = _nominal(directory / layout.train, root, layout.good, problems)
    validation = []
    if layout.validation is not None and (directory / layout.validation).is_dir():
        validation = _nominal(directory / layout.validation, root, layout.good, problems)
    test_root, mask_root = directory / layout.test, directory / layout.masks
    _refuse_loose_images(test_root, layout.good, problems)
    _refuse_loose_images(mask_root, layout.good, problems)
    # A kind may have masks and no images: then pairing reports them.
    kinds = {path.name for path in subdirectories(test_root) if path != mask_root}
    kinds |= {path.name for path in subdirectories(mask_root)}
    test = []
    for kind in sorted(kinds):
        test += _examples_of_kind(
            test_root / kind, mask_root / kind, root, masks_required, problems
        )
    parts = (layout.train, layout.validation or layout.train, layout.test, layout.masks)
    notes = left_out.notes_below(directory / part for part in parts)
    return Category(name, tuple(train), tuple(test), tuple(validation), notes=notes)


def is_nominal(directory: str) -> bool:
    """Whether images in a directory of that name are nominal."""
    return directory.lower() in NOMINAL


def _examples_of_kind(images_root, masks_root, root, masks_required, problems):
    images = image_files(images_root)
    problems += duplicate_stems(images)
    mask_of = pair_masks(images, images_root, image_files(masks_root), masks_root, problems)
    examples = []
    for image in images:
        mask = mask_of.get(image)
        within = image.relative_to(images_root).parent
        nominal = any(map(is_nominal, (images_root.name, *within.parts)))
        if mask is None and not nominal and masks_required:
            expected = masks_root / within / f"{image.stem}_mask.png"
            problems.append(f"the image '{image}' has no mask; '{expected}' was expected.")
        kind = GOOD if nominal else images_root.name
        examples.append(
            Example(
                name_of(image, root),
                image,
                label=int(not nominal),
                kind=kind,
                mask=mask,
                mask_threshold=mask_threshold(mask),
            )
        )
    return examples


def _is_category(directory: Path, layout: Layout) -> bool:
    return any((directory / part).is_dir() for part in (layout.train, layout.test, layout.masks))


def _nominal(directory: Path, root: Path, good_name: str, problems: list[str]) -> list[Example]:
    good = directory / good_name
    called_otherwise = [path for path in subdirectories(directory) if is_nominal(path.name)]
    if not good.is_dir() and len(called_otherwise) == 1:
        (good,) = called_otherwise
    # Whoever has only nominal images may put them into `train` itself.
    source = good if good.is_dir() or subdirectories(directory) else directory
    images = image_files(source)
    # Training is on nominal images alone. What lies beside `good` would be left out, or be
    # defective: only the user knows which.
    problems += [
        f"'{stray}' lies in '{directory}' but not in '{good}'; nominal {directory.name} images "
        f"belong in '{good}', and there must be no others in '{directory}'."
        for stray in sorted(set(image_files(directory)) - set(images))
    ]
    if not images:
        what = "training" if directory.name == "train" else directory.name
        problems.append(
            f"there are no {what} images in '{good}'; it must hold nominal images "
            f"({', '.join(SUFFIXES)})."
        )
    problems += duplicate_stems(images)
    return [Example(name_of(path, root), path, label=0, kind=GOOD, mask=None) for path in images]


def _refuse_loose_images(directory: Path, good: str, problems: list[str]) -> None:
    problems += [
        f"'{loose}' lies in '{directory}' itself; it belongs in a directory named for its kind, "
        f"'{directory / good}' if it shows no defect, else '{directory}/<defect>'."
        for loose in image_files(directory, recursive=False)
    ]


def name_of(path: Path, root: Path) -> str:
    """Returns an example's name: its POSIX path relative to the data directory."""
    return path.relative_to(root).as_posix()
