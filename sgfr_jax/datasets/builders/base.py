"""What the builders share: one feature spec, a config per category, and how records are made."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from sgfr_jax import checked_json
from sgfr_jax.datasets import fetch, prepared
from sgfr_jax.datasets.archives import ARCHIVES, instructions
from sgfr_jax.datasets.counts import shortfalls
from sgfr_jax.datasets.encoding import encode
from sgfr_jax.datasets.listers import DATASETS
from sgfr_jax.datasets.problems import refuse
from sgfr_jax.datasets.types import Category, DatasetError, Example

_WORKERS = 4


class AnomalyBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Records `image`, `mask`, `label`, `defect`, `category` and `filename`, in listing order.

    A subclass names its `DATASET` and its `BUILDER_CONFIGS`. With `accept_license=True` a missing
    archive is downloaded, as of `sgfr_jax.datasets.fetch.obtain`.
    """

    VERSION = tfds.core.Version(prepared.VERSION)
    RELEASE_NOTES: ClassVar = {prepared.VERSION: "As published."}
    DATASET: ClassVar[str]

    def __init__(self, *, file_format: Any = None, accept_license: bool = False, **kwargs: Any):
        # The format that needs no TensorFlow; TFDS's own default is tfrecord.
        super().__init__(file_format=file_format or "array_record", **kwargs)
        self._accept_license = accept_license

    def _info(self) -> tfds.core.DatasetInfo:
        archive = ARCHIVES[self.DATASET]
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=["nominal", "defective"]),
                    "defect": tfds.features.Text(),
                    "category": tfds.features.Text(),
                    "filename": tfds.features.Text(),
                }
            ),
            description=f"{self.DATASET}: anomaly detection, {archive.publisher}.",
            homepage=archive.page,
            license=archive.licence,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _list(self, root: Path) -> Category:
        """Returns the config's category."""
        (found,) = DATASETS[self.DATASET](root, categories=[self.builder_config.name], split_seed=0)
        return found

    def _root(self, dl_manager: tfds.download.DownloadManager) -> Path:
        try:
            return fetch.obtain(self.DATASET, Path(dl_manager.manual_dir))
        except AssertionError:  # TFDS's, that there is no such directory; it has the instructions
            if not self._accept_license:
                raise
        directory = Path(dl_manager.download_dir) / self.DATASET
        return fetch.obtain(self.DATASET, directory, accept_license=True)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        category = self._list(self._root(dl_manager))
        refuse(shortfalls(self.DATASET, [category]), remedy="An incomplete copy is not prepared.")
        parts = {split: getattr(category, field) for split, field in prepared.SPLITS.items()}
        parts = {split: examples for split, examples in parts.items() if examples}
        listed = {
            split: [[e.name, e.label, e.kind] for e in examples]
            for split, examples in parts.items()
        }
        self.info.metadata.update(checked_json.with_checksum({"examples": listed}))
        return {
            split: self._generate_examples(category.name, examples)
            for split, examples in parts.items()
        }

    def _generate_examples(
        self, category: str, examples: Sequence[Example]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        problems = []
        for index, encoded in enumerate(_encode_ahead(examples)):
            if isinstance(encoded, DatasetError):
                problems.append(str(encoded))
            elif not problems:
                image, mask = encoded
                example = examples[index]
                yield (
                    index,
                    {
                        "image": image,
                        "mask": mask,
                        "label": example.label,
                        "defect": example.kind,
                        "category": category,
                        "filename": example.name,
                    },
                )
        refuse(problems)


def configs(categories: Sequence[str]) -> list[tfds.core.BuilderConfig]:
    """Returns a config per category."""
    return [tfds.core.BuilderConfig(name=name) for name in categories]


def manual_instructions(dataset: str) -> str:
    """Returns what TFDS says where the files are missing."""
    text = instructions(dataset, "manual_dir").replace("(`data_dir`)", "of the DownloadConfig")
    return text.replace("`accept_license`", "accept_license=True to `tfds.builder`")


def _encode_ahead(examples):
    """Yields each example's bytes, or what is wrong with it; a few are held at a time."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        pending = deque()
        for example in examples:
            pending.append(pool.submit(_encode_or_error, example))
            if len(pending) == 2 * _WORKERS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _encode_or_error(example):
    try:
        return encode(example)
    except DatasetError as error:
        return error
