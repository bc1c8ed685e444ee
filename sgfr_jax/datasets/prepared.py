"""Prepared data: reading what the TFDS builders wrote.

The files lie in `<prepared_dir>/<builder>/<config>/<version>`, as TFDS has it. Which images there
are is read from the metadata, so that listing reads no image; pixels are read from the records,
undecoded, and decoded as those of any file are.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from sgfr_jax import checked_json, names
from sgfr_jax.datasets.layout import GOOD
from sgfr_jax.datasets.problems import refuse
from sgfr_jax.datasets.selection import select_categories
from sgfr_jax.datasets.types import Category, DatasetError, Encoded, Example

# Raised when what is written changes.
VERSION = "1.1.0"
# The name of each data set's builder.
BUILDERS = {
    "btad": "btad",
    "mtd": "mtd",
    "mvtec": "mvtec_ad",
    "mvtec2": "mvtec_ad_2",
    "visa": "visa",
}
# The splits of a builder, and which field of a `Category` each is.
SPLITS = {"train": "train", "test": "test", "validation": "validation", "private": "private"}


def config_name(dataset: str, category: str, split_seed: int) -> str:
    """Returns the name of a builder's config: the category, and the seed where it splits."""
    if dataset == "mtd" and split_seed:
        return f"{category}_seed{split_seed}"
    return category


def config_directory(prepared_dir: Path, dataset: str, config: str) -> Path:
    """Returns where a config's prepared files lie."""
    return prepared_dir / BUILDERS[dataset] / config / VERSION


def prepared_categories(prepared_dir: Path, dataset: str, split_seed: int) -> tuple[str, ...]:
    """Returns the categories that have been prepared whole, sorted."""
    root = prepared_dir / BUILDERS[dataset]
    infos = root.glob(f"*/{VERSION}/dataset_info.json")
    configs = {info.parent.parent.name for info in infos}
    suffix = config_name(dataset, "", split_seed)
    return tuple(
        sorted(
            config.removesuffix(suffix)
            for config in configs
            if config.endswith(suffix) and (suffix or "_seed" not in config)
        )
    )


def list_prepared(
    dataset: str,
    prepared_dir: Path,
    *,
    categories: Sequence[str] | None = None,
    split_seed: int = 0,
) -> tuple[Category, ...]:
    """Returns the prepared categories; they have the pixels, names and order of the files.

    Args:
      dataset: a key of `BUILDERS`.
      prepared_dir: where the builders wrote (`prepared_dir`).
      categories: the names of those wanted; `None` for all that are prepared.
      split_seed: as when they were prepared.
    """
    if dataset not in BUILDERS:
        raise DatasetError(names.unknown_name("data set with a builder", dataset, BUILDERS))
    known = prepared_categories(prepared_dir, dataset, split_seed)
    if not known:
        raise DatasetError(
            f"no prepared data set '{dataset}' lies in '{prepared_dir}' (`prepared_dir`); give "
            "`data_dir` too, and it is prepared."
        )
    problems, found = [], []
    for name in select_categories(known, categories, dataset=dataset):
        config = config_name(dataset, name, split_seed)
        directory = config_directory(prepared_dir, dataset, config)
        try:
            found.append(_category(name, directory))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            problems.append(
                f"'{directory}' is damaged ({type(error).__name__}: {error}); remove it and "
                "prepare it again."
            )
    refuse(problems)
    return tuple(found)


def _category(name: str, directory: Path) -> Category:
    written = (directory / "metadata.json").read_bytes()
    metadata = checked_json.verified(checked_json.parse(written))
    info = json.loads((directory / "dataset_info.json").read_text(encoding="utf-8"))
    lengths = {s["name"]: sum(map(int, s["shardLengths"])) for s in info["splits"]}
    listed = {split: len(rows) for split, rows in metadata["examples"].items()}
    if listed != lengths:
        raise ValueError(f"{listed} images are listed and {lengths} stored")
    parts = {
        SPLITS[split]: tuple(
            _example(directory, split, index, *row) for index, row in enumerate(rows)
        )
        for split, rows in metadata["examples"].items()
    }
    return Category(name, **{"train": (), "test": (), **parts})


def _example(directory: Path, split: str, index: int, name: str, label: int, kind: str) -> Example:
    if label not in (-1, 0, 1) or (label == 0) != (kind == GOOD):
        raise ValueError(f"'{name}' has the label {label} and the kind '{kind}'")
    # Results are named like images and kinds, and stay below their directory.
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "/" in kind:
        raise ValueError(f"'{name}' of kind '{kind}' names no file below a directory")

    def encoded(field: str) -> Encoded:
        read = functools.partial(_read_field, directory, split, index, field)
        return Encoded(f"{directory}, {split} {index} ({name}): {field}", read)

    mask = None if label < 0 else encoded("mask")
    return Example(name, encoded("image"), label, kind, mask)


def _read_field(directory: Path, split: str, index: int, field: str) -> bytes:
    try:
        return _source(directory, split)[index][field]
    except Exception as error:  # TFDS, protobuf and array_record raise all kinds on damaged files
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DatasetError(
            f"'{directory}' is damaged (its record {split} {index} cannot be read: {why}); remove "
            "it and prepare it again."
        ) from error


@functools.lru_cache(maxsize=64)
def _source(directory: Path, split: str):
    """Returns the records, opened once a process."""
    import tensorflow_datasets as tfds  # a third of a second, and only prepared data needs it

    raw = tfds.decode.SkipDecoding()
    builder = tfds.builder_from_directory(directory)
    return builder.as_data_source(split, decoders={"image": raw, "mask": raw})
