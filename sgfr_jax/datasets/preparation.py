"""Preparing a data set: running its TFDS builder once for each category."""

from collections.abc import Sequence
from pathlib import Path

from sgfr_jax import names
from sgfr_jax.datasets import fetch
from sgfr_jax.datasets.counts import PUBLISHED
from sgfr_jax.datasets.listers import DATASETS
from sgfr_jax.datasets.prepared import BUILDERS, config_name, prepared_categories
from sgfr_jax.datasets.types import DatasetError


def prepare(
    dataset: str,
    data_dir: Path | None,
    prepared_dir: Path,
    *,
    categories: Sequence[str] | None = None,
    split_seed: int = 0,
    accept_license: bool = False,
    report: fetch.Report = fetch.silent,
) -> tuple[str, ...]:
    """Writes the records of each category that is not there yet; returns those that are then.

    A category is written whole or not at all: an interrupted one is begun again.

    Args:
      dataset: a key of `prepared.BUILDERS`.
      data_dir: the official archive or directory, as of `fetch.obtain`; may be `None` if all that
        is wanted has been prepared.
      prepared_dir: where to write.
      categories: the names of those wanted; `None` for all that the data set has.
      split_seed: chooses the split of a data set that has no official one.
      accept_license: whether to download what is missing; as of `fetch.obtain`.
      report: called as downloading gets on.
    """
    if dataset not in BUILDERS:
        raise DatasetError(names.unknown_name("data set with a builder", dataset, BUILDERS))
    done = prepared_categories(prepared_dir, dataset, split_seed)
    if categories is None:
        # Of a directory that is not given, what has been prepared is all that can be meant.
        all_done = bool(done) and (data_dir is None or set(done) >= set(_published(dataset)))
    else:
        all_done = set(categories) <= set(done)
    if all_done:
        return done if categories is None else tuple(categories)
    if data_dir is None:
        raise DatasetError(
            f"'{prepared_dir}' (`prepared_dir`) lacks some or all of data set '{dataset}'; give "
            "`data_dir` too, and it is prepared."
        )
    from sgfr_jax.datasets import builders  # imports TFDS

    root = fetch.obtain(dataset, data_dir, accept_license=accept_license, report=report)
    found = DATASETS[dataset](root, categories=categories, split_seed=split_seed)
    for category in found:
        if category.name not in done:
            builders.run(
                dataset, config_name(dataset, category.name, split_seed), root, prepared_dir
            )
    return tuple(category.name for category in found)


def _published(dataset: str) -> Sequence[str]:
    return tuple(PUBLISHED.get(dataset, (dataset,)))
