"""The layout that MVTec AD made common: `train/good`, `test/<kind>`, `ground_truth/<kind>`."""

from pathlib import Path

from sgfr_jax.datasets.listing import SUFFIXES, image_files, pair_masks, subdirectories
from sgfr_jax.datasets.types import Category, DatasetError, Example

GOOD = "good"
# JPEG blurs a mask's edge over 8 x 8 blocks, so there "not zero" would mark far too much.
_LOSSY_SUFFIXES = frozenset({".jpg", ".jpeg"})
_LOSSY_THRESHOLD = 128


def category_directories(data_dir: Path) -> dict[str, Path]:
    """Returns the categories' directories by name: those under `data_dir`, or itself alone.

    A directory is a category if it holds any of `train`, `test` and `ground_truth`, so that an
    incomplete one is reported later instead of being passed over; licences and the like are not.
    """
    if _is_category(data_dir):
        return {data_dir.resolve().name: data_dir}
    return {path.name: path for path in subdirectories(data_dir) if _is_category(path)}


def list_category(name: str, directory: Path, root: Path, *, masks_required: bool) -> Category:
    """Returns the images under `directory`, named relative to `root`.

    Args:
      name: the category's name.
      directory: holds `train/good` (or images in `train` itself), and perhaps `test/<kind>` and
        `ground_truth/<kind>`. Directories within these are searched too.
      root: the data directory.
      masks_required: whether a defective test image without a mask is an error.
    """
    train = [
        Example(_name(path, root), path, label=0, kind=GOOD, mask=None)
        for path in _training_images(directory / "train")
    ]
    test = []
    _refuse_loose_images(directory / "test")
    _refuse_loose_images(directory / "ground_truth")
    kinds = {path.name for path in subdirectories(directory / "test")}
    # A kind may have masks and no images: then pairing reports the first mask.
    for kind in sorted(kinds | {path.name for path in subdirectories(directory / "ground_truth")}):
        images_root, masks_root = directory / "test" / kind, directory / "ground_truth" / kind
        images = image_files(images_root)
        mask_of = pair_masks(images, images_root, image_files(masks_root), masks_root)
        for image in images:
            mask = mask_of.get(image)
            if mask is None and kind != GOOD and masks_required:
                expected = masks_root / f"{image.stem}_mask.png"
                raise DatasetError(f"the image '{image}' has no mask; '{expected}' was expected.")
            lossy = mask is not None and mask.suffix.lower() in _LOSSY_SUFFIXES
            test.append(
                Example(
                    _name(image, root),
                    image,
                    label=int(kind != GOOD),
                    kind=kind,
                    mask=mask,
                    mask_threshold=_LOSSY_THRESHOLD if lossy else 1,
                )
            )
    return Category(name, tuple(train), tuple(test))


def _is_category(directory: Path) -> bool:
    return any((directory / part).is_dir() for part in ("train", "test", "ground_truth"))


def _training_images(directory: Path) -> list[Path]:
    good = directory / GOOD
    # Whoever has only nominal images may put them into `train` itself.
    root = good if good.is_dir() or subdirectories(directory) else directory
    images = image_files(root)
    # Training is on nominal images alone. What lies beside `good` would be left out, or be
    # defective: only the user knows which.
    strays = sorted(set(image_files(directory)) - set(images))
    if strays:
        raise DatasetError(
            f"'{strays[0]}' lies in '{directory}' but not in '{good}'; nominal training images "
            f"belong in '{good}', and there must be no others in '{directory}'."
        )
    if not images:
        raise DatasetError(
            f"there are no training images in '{good}'; it must hold nominal images "
            f"({', '.join(SUFFIXES)})."
        )
    return images


def _refuse_loose_images(directory: Path) -> None:
    loose = image_files(directory, recursive=False)
    if loose:
        raise DatasetError(
            f"'{loose[0]}' lies in '{directory}' itself; it belongs in a directory named for its "
            f"kind, '{directory / GOOD}' if it shows no defect, else '{directory}/<defect>'."
        )


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
