"""Telling by its directories which data set lies somewhere, to name a mistaken one."""

from pathlib import Path

from sgfr_jax.datasets.listing import subdirectories
from sgfr_jax.datasets.types import DatasetError


def recognise(data_dir: Path) -> str | None:
    """Returns the data set whose layout `data_dir` (or one category's directory) has, or None.

    MVTec AD's layout is also that of anyone's own images, so the others are tried first.
    """
    if (data_dir / "MT_Free").is_dir():
        return "mtd"
    within = (data_dir, *subdirectories(data_dir))
    if (data_dir / "split_csv").is_dir() or any((d / "Data" / "Images").is_dir() for d in within):
        return "visa"
    if any(_is_mvtec2(directory) for directory in within):
        return "mvtec2"
    if any((d / "train" / "ok").is_dir() for d in within):
        return "btad"
    if any((d / "train" / "good").is_dir() for d in within):
        return "mvtec"
    return None


def _is_mvtec2(directory: Path) -> bool:
    # The second line is a copy that lacks its test; with `test` it is someone's own layout.
    return (directory / "test_public").is_dir() or (
        (directory / "validation" / "good").is_dir() and not (directory / "test").is_dir()
    )


def _has_public_test(data_dir: Path) -> bool:
    return any((d / "test_public").is_dir() for d in (data_dir, *subdirectories(data_dir)))


def _has_defects_of_btad(data_dir: Path) -> bool:
    within = (data_dir, *subdirectories(data_dir))
    return any((d / part / "ko").is_dir() for d in within for part in ("test", "ground_truth"))


def refuse_other(data_dir: Path, *, dataset: str, layout: str) -> None:
    """Raises if `data_dir` holds another data set than `dataset`, or one a level further down.

    Args:
      data_dir: an existing directory.
      dataset: what it should hold.
      layout: how the files must lie, for the message.
    """
    found = recognise(data_dir)
    if found is None:
        below = [path for path in subdirectories(data_dir) if recognise(path) == dataset]
        if below and dataset != "folder":
            raise DatasetError(
                f"there is no '{dataset}' in '{data_dir}' (`data_dir`), but there is in "
                f"'{below[0]}': use data_dir={below[0]}."
            )
        return
    if dataset == "folder" and found == "mvtec2" and not _has_public_test(data_dir):
        return  # anyone's own images, with validation and without a test
    if dataset == "folder" and found == "btad" and not _has_defects_of_btad(data_dir):
        return  # anyone's own images, of which the nominal ones are called `ok`
    if found != dataset and {found, dataset} != {"mvtec", "folder"}:
        raise DatasetError(
            f"'{data_dir}' (`data_dir`) looks like data set '{found}', not '{dataset}'; use "
            f"dataset={found}, or another directory.\n{layout}"
        )
