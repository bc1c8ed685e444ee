"""Anyone's own images, as a table names them."""

from collections.abc import Sequence
from pathlib import Path

from sgfr_jax.datasets import rows
from sgfr_jax.datasets.formats import SUFFIXES
from sgfr_jax.datasets.layout import GOOD, NOMINAL, name_of
from sgfr_jax.datasets.listing import real
from sgfr_jax.datasets.masks import mask_threshold
from sgfr_jax.datasets.paths import within
from sgfr_jax.datasets.problems import refuse
from sgfr_jax.datasets.selection import select_categories
from sgfr_jax.datasets.types import Category, Example

FORMAT = """\
A manifest is a CSV file with a header, or JSON lines, with these columns, which are separated by
commas, semicolons or tabs:
  path      the image; this and `mask` are relative to `data_dir`, or else to the manifest
  split     train, validation or test
  label     good, ok, pass or 0, or bad, ng, fail or 1; may be empty in train and validation
  mask      optional: the mask, not zero where the defect is
  category  optional: the product, where there are several
  kind      optional: the kind of defect"""

_REQUIRED, _OPTIONAL = ("path", "split"), ("label", "mask", "category", "kind")
# 0.0 and 1.0 are what pandas makes of a column of integers with a gap.
_NOMINAL = (*NOMINAL, "0", "0.0")
_DEFECTIVE = (
    "bad", "ng", "nok", "ko", "fail", "failed", "defect", "defective", "anomaly", "anomalous",
    "1", "1.0",
)  # fmt: skip
_LABELS = {**dict.fromkeys(_NOMINAL, 0), **dict.fromkeys(_DEFECTIVE, 1)}
_SPLITS = ("train", "test", "validation")


def list_manifest(
    manifest: Path, data_dir: Path | None = None, *, categories: Sequence[str] | None = None
) -> tuple[Category, ...]:
    """Returns the categories that a table of images names, each in the table's order.

    Args:
      manifest: the table; see `FORMAT`.
      data_dir: what its paths are relative to and must not leave; `None` for its directory.
      categories: the names of those wanted; `None` for all.
    """
    root = manifest.parent if data_dir is None else data_dir
    problems = []
    table = rows.read_rows(manifest, required=_REQUIRED, optional=_OPTIONAL, problems=problems)
    known = {row.fields["category"] or manifest.stem for row in table}
    wanted = select_categories(known, categories, dataset="folder") if known else ()
    found = {name: {split: [] for split in _SPLITS} for name in wanted}
    first_row = {}
    for row in table:
        name = row.fields["category"] or manifest.stem
        if name not in found:
            continue
        said_by = rows.place(manifest, row.number)
        _check_name("category", name, said_by, problems)
        example = _example(row, root, said_by, problems)
        if example is None:
            continue
        first = first_row.setdefault((name, real(example.image)), row.number)
        if first != row.number:
            problems.append(f"{said_by} names '{example.name}' again, as row {first} does.")
        found[name][row.fields["split"].lower()].append(example)
    if not problems:
        problems += [
            f"'{manifest}' names no training image of '{name}'."
            for name, parts in found.items()
            if not parts["train"]
        ]
    refuse(problems, remedy=FORMAT)
    return tuple(Category(name, *map(tuple, parts.values())) for name, parts in found.items())


def _example(row, root, said_by, problems):
    fields, before = row.fields, len(problems)
    split, label_text = fields["split"].lower(), fields["label"].lower()
    if split not in _SPLITS:
        problems.append(f"{said_by} has the split '{fields['split']}'; {', '.join(_SPLITS)}?")
    if not label_text and split != "test":
        label_text = "good"
    label = _LABELS.get(label_text)
    if label is None:
        problems.append(
            f"{said_by} has the label '{fields['label']}'; {', '.join(_NOMINAL)} are those of "
            f"nominal images, {', '.join(_DEFECTIVE)} of defective ones."
        )
    elif label and split != "test":
        problems.append(f"{said_by} is defective, but {split} images must all be good.")
    kind = fields["kind"] or ("defect" if label else GOOD)
    if kind.lower() in _NOMINAL:
        kind = GOOD
    if label is not None and (kind == GOOD) != (label == 0):
        problems.append(f"{said_by} has the kind '{kind}', which contradicts its label.")
    _check_name("kind", kind, said_by, problems)
    image = within(root, fields["path"], problems, said_by=said_by)
    mask = None
    if fields["mask"]:
        mask = within(root, fields["mask"], problems, said_by=said_by)
    for path in (image, mask):
        if path is not None and path.suffix.lower() not in SUFFIXES:
            problems.append(f"{said_by} names '{path}', which is no image by its suffix.")
    if len(problems) > before:
        return None
    threshold = mask_threshold(mask)
    return Example(name_of(image, root), image, label, kind, mask, threshold)


def _check_name(column, name, said_by, problems):
    """Results lie in directories and files of these names."""
    if name in (".", "..") or any(mark in name for mark in "/\\\0"):
        problems.append(f"{said_by} has the {column} '{name}'; it names files: leave out / and \\.")
