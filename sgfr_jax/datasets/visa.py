"""VisA in its official directory (Zou et al., ECCV 2022), split as `split_csv/1cls.csv` says."""

from collections.abc import Sequence
from pathlib import Path

from sgfr_jax.datasets import rows
from sgfr_jax.datasets.layout import GOOD, name_of
from sgfr_jax.datasets.listing import require_directory
from sgfr_jax.datasets.paths import within
from sgfr_jax.datasets.problems import refuse
from sgfr_jax.datasets.recognition import refuse_other
from sgfr_jax.datasets.selection import select_categories
from sgfr_jax.datasets.types import Category, DatasetError, Example

LAYOUT = """\
VisA is offered at https://github.com/amazon-science/spot-diff (licence CC BY 4.0). Unpack it so
that the files lie like this:
  DIR/split_csv/1cls.csv
  DIR/<object>/Data/Images/Normal/0000.JPG
  DIR/<object>/Data/Images/Anomaly/000.JPG
  DIR/<object>/Data/Masks/Anomaly/000.png"""

SPLIT = Path("split_csv", "1cls.csv")
_COLUMNS = ("object", "split", "label", "image", "mask")
_LABELS = {"normal": 0, "anomaly": 1}


def list_visa(
    data_dir: Path | None, *, categories: Sequence[str] | None, split_seed: int
) -> tuple[Category, ...]:
    """Returns the objects that `split_csv/1cls.csv` names: 90% of the nominal images train.

    Every defect is of the kind 'anomaly'. A mask's values are small codes of the kind of defect,
    so all that is not zero is defect. The split is official, so `split_seed` changes nothing.
    """
    del split_seed
    data_dir = require_directory(data_dir, dataset="visa", layout=LAYOUT)
    refuse_other(data_dir, dataset="visa", layout=LAYOUT)
    split = data_dir / SPLIT
    if not split.is_file():
        raise DatasetError(
            f"there is no '{split}' (`data_dir`), which says what trains and what tests.\n{LAYOUT}"
        )
    problems = []
    table = rows.read_rows(split, required=_COLUMNS, optional=(), problems=problems)
    wanted = select_categories({row.fields["object"] for row in table}, categories, dataset="visa")
    found = {name: ([], []) for name in wanted}
    first_row = {}
    for row in table:
        name = row.fields["object"]
        if name not in found:
            continue
        said_by = rows.place(split, row.number)
        example = _example(row, data_dir, said_by, problems)
        if example is None:
            continue
        first = first_row.setdefault(example.image, row.number)
        if first != row.number:
            problems.append(f"{said_by} names '{example.name}' again, as row {first} does.")
        found[name][row.fields["split"] == "test"].append(example)
    for name, (train, _) in found.items():
        if not train and not problems:
            problems.append(f"'{split}' names no training image of '{name}'.")
    refuse(problems)
    return tuple(Category(name, *map(_sorted, parts)) for name, parts in found.items())


def _example(row, data_dir, said_by, problems):
    fields = row.fields
    if fields["split"] not in ("train", "test") or fields["label"] not in _LABELS:
        problems.append(
            f"{said_by} has the split '{fields['split']}' and the label '{fields['label']}'; "
            "train or test, and normal or anomaly, are known."
        )
        return None
    label = _LABELS[fields["label"]]
    if label and fields["split"] == "train":
        problems.append(f"{said_by} trains on an anomaly.")
    image = within(data_dir, fields["image"], problems, said_by=said_by)
    mask = None
    if fields["mask"]:
        mask = within(data_dir, fields["mask"], problems, said_by=said_by)
    elif label:
        problems.append(f"{said_by} is an anomaly without a mask.")
    if image is None:
        return None
    return Example(name_of(image, data_dir), image, label, GOOD if label == 0 else "anomaly", mask)


def _sorted(examples: list[Example]) -> tuple[Example, ...]:
    # The file's own order is shuffled; a sorted one is that of the other data sets.
    return tuple(sorted(examples, key=lambda example: example.name))
