"""Anyone's own images, found by patterns."""

import os
from collections.abc import Sequence
from pathlib import Path

from sgfr_jax.datasets import left_out
from sgfr_jax.datasets.layout import GOOD, is_nominal, name_of
from sgfr_jax.datasets.listing import duplicate_stems, is_image, is_other, pair_masks, real
from sgfr_jax.datasets.masks import mask_threshold
from sgfr_jax.datasets.outputs import photographs
from sgfr_jax.datasets.problems import refuse
from sgfr_jax.datasets.selection import select_categories
from sgfr_jax.datasets.types import Category, DatasetError, Example

_WILD = frozenset("*?[")


def list_globs(
    data_dir: Path | None,
    *,
    train_glob: str,
    test_glob: str | None = None,
    mask_glob: str | None = None,
    categories: Sequence[str] | None = None,
) -> tuple[Category, ...]:
    """Returns one category, named like the data directory, of the images that patterns match.

    `*` and `?` match within a name, `**` any directories. A test image is nominal where one of the
    directories from the first wildcard on (or, without any, its own) is called one of
    `layout.NOMINAL`; else the last that a wildcard matches is the kind of defect. Masks pair by
    stem and by the directories from the first wildcard on: `masks/crack/7_mask.png` belongs to
    `test/crack/7.png` for `masks/*/*.png` and `test/*/*.png`. What is a mask is no image.

    Args:
      data_dir: what the patterns are relative to and must not leave; `None` for where we are.
      train_glob: the training images, all nominal.
      test_glob: the test images.
      mask_glob: their masks, not zero where the defect is (from 128 if their format loses, as
        JPEG's does).
      categories: may name the category, and nothing else.
    """
    root = Path() if data_dir is None else data_dir
    if not root.is_dir():
        raise DatasetError(f"the data directory (`data_dir`) '{root}' is not a directory.")
    if mask_glob is not None and test_glob is None:
        raise DatasetError("`mask_glob` needs `test_glob`: masks belong to test images.")
    name = real(root).name or "images"
    select_categories([name], categories, dataset="folder")
    patterns = {"train": train_glob, "test": test_glob, "mask": mask_glob}
    patterns = {which: text for which, text in patterns.items() if text is not None}
    refuse([fault for which, text in patterns.items() if (fault := _fault(which, text))])
    problems, others = [], set()
    matched = {
        which: _matches(root, which, text, problems, others) for which, text in patterns.items()
    }
    train, test, masks = (matched.get(which, []) for which in ("train", "test", "mask"))
    # Beside their images masks may match all patterns: what is a mask is no image.
    train, test = ([p for p in paths if p not in set(masks)] for paths in (train, test))
    problems += [
        f"all that {which}_glob={patterns[which]} matches, mask_glob={mask_glob} matches too."
        for which, paths in (("train", train), ("test", test))
        if matched.get(which) and not paths
    ]
    problems += [
        f"'{path}' matches `train_glob` and `test_glob`; it may be in one."
        for path in sorted(set(train) & set(test))
    ]
    problems += duplicate_stems(train)
    problems += duplicate_stems(test)
    mask_of = {}
    if masks:
        test_root, mask_root = _fixed(root, test_glob), _fixed(root, mask_glob)
        mask_of = pair_masks(test, test_root, masks, mask_root, problems)
    refuse(problems)
    return (
        Category(
            name,
            tuple(Example(name_of(path, root), path, 0, GOOD, None) for path in train),
            tuple(_test_example(path, root, test_glob, mask_of.get(path)) for path in test),
            notes=left_out.notes(others),
        ),
    )


def _test_example(path: Path, root: Path, pattern: str, mask: Path | None) -> Example:
    below = list(path.relative_to(_fixed(root, pattern)).parts[:-1])
    directories = below or [path.absolute().parent.name]
    nominal = any(map(is_nominal, directories))
    for part in reversed(Path(pattern).parts[:-1]):
        if _WILD & set(part) or len(below) == 1:
            break
        below = below[:-1]  # the same for all kinds, as `images` in `*/images/*.png`
    kind = GOOD if nominal else (below or directories)[-1]
    threshold = mask_threshold(mask)
    return Example(name_of(path, root), path, int(not nominal), kind, mask, threshold)


def _fault(which: str, pattern: str) -> str | None:
    if not pattern.strip() or not Path(pattern).parts or "\0" in pattern:
        return f"`{which}_glob` is empty; give a pattern such as '{which}/*.png'."
    if os.path.isabs(pattern) or ".." in Path(pattern).parts:
        return (
            f"{which}_glob={pattern} leaves the data directory; give `data_dir`, and the pattern "
            "relative to it."
        )
    return None


def _matches(
    root: Path, which: str, pattern: str, problems: list[str], others: set[Path]
) -> list[Path]:
    """The images that a pattern matches, sorted; visible files that are none go to `others`."""
    try:
        matched = list(root.glob(pattern))
        found = photographs(sorted(filter(is_image, matched)))
        others.update(filter(is_other, matched))
    except (ValueError, NotImplementedError) as error:  # such as 'a**'
        problems.append(f"{which}_glob={pattern} is not a pattern: {error}.")
        return []
    problems += [
        f"'{path}', which `{which}_glob` matches, is a link to '{real(path)}', outside of '{root}'."
        for path in found
        if not real(path).is_relative_to(real(root))
    ]
    if not found:
        problems.append(f"{which}_glob={pattern} matches no image in '{root.absolute()}'.")
    return found


def _fixed(root: Path, pattern: str) -> Path:
    """Returns the directories of a pattern up to the first that has a wildcard."""
    fixed = root
    for part in Path(pattern).parts[:-1]:
        if _WILD & set(part):
            break
        fixed /= part
    return fixed
