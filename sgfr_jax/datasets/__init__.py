"""Data sets as lists of examples (nothing here imports jax or, at once, TFDS).

A data set is a function `(data_dir, *, categories, split_seed) -> tuple[Category, ...]` that lists
what there is without decoding it; `sgfr_jax.datasets.images` then reads the pixels. The TFDS
builders (`sgfr_jax.datasets.builders`) are registered as soon as TFDS is imported.
"""

from collections.abc import Sequence
from pathlib import Path

import wrapt

from sgfr_jax import names
from sgfr_jax.datasets import depth
from sgfr_jax.datasets.fetch import obtain
from sgfr_jax.datasets.globs import list_globs
from sgfr_jax.datasets.images import Loaded, read_example, read_examples, read_image, read_mask
from sgfr_jax.datasets.listers import DATASETS
from sgfr_jax.datasets.manifest import list_manifest
from sgfr_jax.datasets.mtd import SPLITS
from sgfr_jax.datasets.preparation import prepare
from sgfr_jax.datasets.prepared import BUILDERS, list_prepared
from sgfr_jax.datasets.types import Category, DatasetError, Encoded, Example

__all__ = [
    "DATASETS",
    "Category",
    "DatasetError",
    "Encoded",
    "Example",
    "Loaded",
    "list_globs",
    "list_manifest",
    "load",
    "prepare",
    "read_example",
    "read_examples",
    "read_image",
    "read_mask",
]


@wrapt.when_imported("tensorflow_datasets")
def _register_builders(_: object) -> None:
    # Not at once: TFDS takes a third of a second, and a `--help` needs none of it.
    import sgfr_jax.datasets.builders  # noqa: F401


def load(
    name: str,
    data_dir: Path | str | None = None,
    *,
    categories: Sequence[str] | None = None,
    split_seed: int = 0,
    prepared_dir: Path | str | None = None,
    accept_license: bool = False,
    train_glob: str | None = None,
    test_glob: str | None = None,
    mask_glob: str | None = None,
    manifest: Path | str | None = None,
    split: str = "random",
) -> tuple[Category, ...]:
    """Returns the categories of the data set `name`, sorted by name.

    No image is decoded, but for those of 16 bits: `depth.with_white` finds how many they use.

    Args:
      name: a key of `DATASETS`.
      data_dir: where the files lie; `demo` needs none and takes none.
      categories: the names of those wanted; `None` for all.
      split_seed: chooses the split (or the crops) of a data set that has no official one.
      prepared_dir: read prepared records from here; what is missing is prepared from `data_dir`.
      accept_license: the licence has been read and is accepted, so a missing archive may be
        downloaded into `data_dir` and unpacked there; as of `fetch.obtain`.
      train_glob: of data set `folder`, with the next two: as of `list_globs`.
      test_glob: as above.
      mask_glob: as above.
      manifest: of data set `folder`: as of `list_manifest`.
      split: of data set `mtd`: `random` or `grouped`, as of `list_mtd`.
    """
    if name not in DATASETS:
        raise DatasetError(names.unknown_name("data set", name, DATASETS))
    if not 0 <= split_seed < 2**32:
        raise DatasetError(f"split_seed must lie in 0 .. 2**32 - 1, not {split_seed}.")
    if split not in SPLITS:
        raise DatasetError(names.unknown_name("split", split, SPLITS))
    if split != "random" and (name != "mtd" or prepared_dir is not None):
        raise DatasetError(
            f"split={split} is for data set 'mtd' from its `data_dir`; the others, and prepared "
            "records, have one split."
        )
    globs = {"train_glob": train_glob, "test_glob": test_glob, "mask_glob": mask_glob}
    _check_routes(name, globs, manifest, prepared_dir, accept_license)
    data_dir = _expanded("data_dir", data_dir)
    prepared_dir = _expanded("prepared_dir", prepared_dir)
    manifest = _expanded("manifest", manifest)
    if manifest is not None:
        found = list_manifest(manifest, data_dir, categories=categories)
    elif train_glob is not None:
        found = list_globs(data_dir, **globs, categories=categories)
    elif prepared_dir is not None:
        wanted = prepare(
            name,
            data_dir,
            prepared_dir,
            categories=categories,
            split_seed=split_seed,
            accept_license=accept_license,
        )
        found = list_prepared(name, prepared_dir, categories=wanted, split_seed=split_seed)
    else:
        if accept_license and data_dir is not None:
            data_dir = obtain(name, data_dir, accept_license=True)
        more = {"split": split} if name == "mtd" else {}
        found = DATASETS[name](data_dir, categories=categories, split_seed=split_seed, **more)
    return tuple(map(depth.with_white, found))


def _expanded(flag: str, path: Path | str | None) -> Path | None:
    if path == "":
        raise DatasetError(f"{flag}= is empty: name a path, such as . for the current directory.")
    try:
        return None if path is None else Path(path).expanduser()
    except RuntimeError as error:
        raise DatasetError(
            f"'{path}': the home directory is not known: give the path without ~."
        ) from error


def _check_routes(name, globs, manifest, prepared_dir, accept_license):
    own = [flag for flag, value in (*globs.items(), ("manifest", manifest)) if value is not None]
    if own and name != "folder":
        raise DatasetError(f"`{own[0]}` is for data set 'folder', not for '{name}'.")
    if manifest is not None and len(own) > 1:
        raise DatasetError(f"`manifest` and `{own[0]}` both say which images there are; give one.")
    if own and manifest is None and globs["train_glob"] is None:
        raise DatasetError(f"`{own[0]}` needs `train_glob`: a detector learns from its images.")
    if name not in BUILDERS and (prepared_dir is not None or accept_license):
        flag = "accept_license" if prepared_dir is None else "prepared_dir"
        raise DatasetError(f"`{flag}` is for {', '.join(BUILDERS)}, not for data set '{name}'.")
