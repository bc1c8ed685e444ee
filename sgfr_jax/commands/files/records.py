"""Results on disk: one record a category, kept from the moment it is finished.

What is read again has a checksum (`sgfr_jax.checked_json`): nothing is believed that was not
written here.
"""

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sgfr_jax import checked_json, unfinished
from sgfr_jax.checked_json import Damaged
from sgfr_jax.commands.files import csv_cells
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.metrics import Metrics

_T = TypeVar("_T")

FILES = ("results.json", "results.csv", "scores.csv", "config.json")


@dataclasses.dataclass(frozen=True)
class Record:
    """All that a run keeps of one category; it can live alone."""

    category: str
    digest: str  # of the configuration, the data and the weights it comes from
    config: dict[str, Any]
    environment: dict[str, Any]
    # The metrics, num_train, num_test, num_atoms, seconds, and diagnostics if they were asked for.
    results: dict[str, Any]
    baselines: dict[str, dict[str, Any]]  # name to the same
    images: list[dict[str, Any]]  # file, label, kind, score, and a score per baseline
    notes: list[str]


class Results(NamedTuple):
    """What results.json says of a finished run."""

    config: dict[str, Any]
    environment: dict[str, Any]
    categories: dict[str, dict[str, Any]]  # `Record.results`
    mean: dict[str, float | None]
    baselines: dict[str, dict[str, dict[str, Any]]]  # name to `categories` and `mean`
    notes: dict[str, list[str]]
    scores_sha256: str  # of scores.csv


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, of text."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, whatever interrupts it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in unfinished.abandoned(path.parent, path.name):
        left.unlink(missing_ok=True)
    temporary = path.with_name(unfinished.name_for(path.name))
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk's error names none
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON that any reader takes: a NaN in it is an error here, not there."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Writes fields of a class as JSON, with a checksum, for `read`."""
    write_text(path, checked_json.dumps(content, indent=2))


def read(path: Path, kind: Callable[..., _T]) -> _T | None:
    """What `write` has kept of a class; None where there is no such file.

    Raises:
      Damaged: if it is not what was written.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return checked_json.loads(data, kind)


def read_whole(path: Path, kind: Callable[..., _T]) -> _T | None:
    """As `read`, for what is made again where it is missing: None, with a message, if damaged."""
    try:
        return read(path, kind)
    except Damaged as error:
        print(
            f"{path} is damaged ({error}): left out, and made again where it is needed",
            file=sys.stderr,
        )
        return None


def open_workdir(workdir: Path) -> None:
    """Makes the work directory and tries to write there, before any work is done.

    Raises:
      ConfigError: if it cannot be written.
    """
    try:
        for directory in (workdir, workdir / "figures", workdir / "review", _unfinished(workdir)):
            directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=directory):
                pass
        for name in FILES:
            if (workdir / name).is_dir():
                raise IsADirectoryError(0, f"{name} is a directory")
    except OSError as error:
        raise ConfigError(
            f"--workdir={workdir} cannot be written ({error.strerror}): name another directory"
        ) from error


def keep(workdir: Path, record: Record) -> None:
    """Stores a finished category where `kept` finds it if the run is interrupted."""
    write(_path(workdir, record.digest), dataclasses.asdict(record))


def kept(workdir: Path, digest: str) -> Record | None:
    """The record of a category that an interrupted run had finished, or None."""
    found = read_whole(_path(workdir, digest), Record)
    return found if found is not None and found.digest == digest else None


def begun(workdir: Path) -> bool:
    """Whether results of any category lie in a work directory, of a finished run or another."""
    return (workdir / "results.json").exists() or any(_unfinished(workdir).glob("*.json"))


def finished(workdir: Path) -> list[Record] | None:
    """The records of the run that came to its end in a work directory; None: none did.

    As far as results.json tells: without digests, and without the images' scores.

    Raises:
      Damaged: if it is not what was written.
    """
    found = read(workdir / "results.json", Results)
    if found is None:
        return None
    return [
        Record(
            name, "", found.config, found.environment, results,
            {method: of["categories"][name] for method, of in found.baselines.items()},
            [], found.notes.get(name, []),
        )
        for name, results in found.categories.items()
    ]  # fmt: skip


def scores(workdir: Path, results: Results) -> list[dict[str, str]]:
    """The rows of the scores.csv that belongs to some results.

    Raises:
      Damaged: if it is another one, or edited.
      FileNotFoundError: if there is none.
    """
    content = (workdir / "scores.csv").read_bytes()
    if hashlib.sha256(content).hexdigest() != results.scores_sha256:
        raise Damaged("it is not the one that results.json was written with")
    rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
    return [{name: csv_cells.text(value) for name, value in row.items()} for row in rows]


def finish(
    workdir: Path,
    records: Sequence[Record],
    config: dict[str, Any],
    environment: dict[str, Any],
) -> None:
    """Writes the files of a finished run; its records are kept no longer.

    Args:
      workdir: where to write.
      records: of every category.
      config: of the run; a record's own may name other categories.
      environment: of the run.
    """
    methods = {
        "": {record.category: record.results for record in records},
        **{
            name: {record.category: record.baselines[name] for record in records}
            for name in records[0].baselines
        },
    }
    summary = {
        name: {"categories": categories, "mean": mean(list(categories.values()))}
        for name, categories in methods.items()
    }
    own = summary.pop("")
    images = [
        {"category": record.category, **image} for record in records for image in record.images
    ]
    columns = ["category", "file", "label", "kind", "score"]
    columns += [f"score_{name}" for name in summary]
    of_images = to_csv(images, columns)
    results = Results(
        config,
        environment,
        own["categories"],
        own["mean"],
        summary,
        {record.category: record.notes for record in records if record.notes},
        hashlib.sha256(of_images.encode()).hexdigest(),
    )
    write_json(workdir / "config.json", config)
    rows = [
        {"method": name or config["solver"], "category": category, **_flat(results)}
        for name, categories in methods.items()
        for category, results in categories.items()
    ]
    write_text(workdir / "results.csv", to_csv(rows, list(rows[0])))
    write_text(workdir / "scores.csv", of_images)
    write(workdir / "results.json", results._asdict())  # last: it says that all is there
    for record in records:
        _path(workdir, record.digest).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # another interrupted run may have records there
        _unfinished(workdir).rmdir()


def mean(
    results: Sequence[dict[str, Any]], names: Sequence[str] = Metrics._fields
) -> dict[str, float | None]:
    """The mean of every metric over the results that define it; None where none does."""
    means = {}
    for name in names:
        values = [r[name] for r in results if r[name] is not None]
        means[name] = sum(values) / len(values) if values else None
    return means


def _unfinished(workdir: Path) -> Path:
    return workdir / "unfinished"


def _path(workdir: Path, digest: str) -> Path:
    return _unfinished(workdir) / f"{digest}.json"


def _flat(results: dict[str, Any]) -> dict[str, Any]:
    seconds = {f"seconds_{stage}": spent for stage, spent in results["seconds"].items()}
    return {k: value for k, value in results.items() if not isinstance(value, dict)} | seconds


def to_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """A table with a header, whose text is `csv_cells.cell`; what is None is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({n: csv_cells.cell(v) if isinstance(v, str) else v for n, v in row.items()})
    return text.getvalue()
