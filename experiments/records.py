"""Results on disk: one record a category, kept from the moment it is finished."""

import contextlib
import csv
import dataclasses
import io
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from experiments.choices import ConfigError
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


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, of text."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, whatever interrupts it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON that any reader takes: a NaN in it is an error here, not there."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read(path: Path, kind: Callable[..., _T]) -> _T | None:
    """What `write_json` has kept of a class, by its fields; None where there is no such thing."""
    try:
        return kind(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
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
    write_json(_path(workdir, record.digest), dataclasses.asdict(record))


def kept(workdir: Path, digest: str) -> Record | None:
    """The record of a category that an interrupted run had finished, or None."""
    return read(_path(workdir, digest), Record)


def begun(workdir: Path) -> bool:
    """Whether results of any category lie in a work directory, of a finished run or another."""
    return (workdir / "results.json").exists() or any(_unfinished(workdir).glob("*.json"))


def finished(workdir: Path) -> list[Record] | None:
    """The records of the run that came to its end in a work directory; None: none did.

    As far as results.json tells: without digests, and without the images' scores.
    """
    try:
        found = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return [
        Record(
            name, "", found["config"], found["environment"], results,
            {method: of["categories"][name] for method, of in found["baselines"].items()},
            [], found["notes"].get(name, []),
        )
        for name, results in found["categories"].items()
    ]  # fmt: skip


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
    write_json(
        workdir / "results.json",
        {
            "config": config,
            "environment": environment,
            **own,
            "baselines": summary,
            "notes": {record.category: record.notes for record in records if record.notes},
        },
    )
    write_json(workdir / "config.json", config)
    rows = [
        {"method": name or config["solver"], "category": category, **_flat(results)}
        for name, categories in methods.items()
        for category, results in categories.items()
    ]
    write_text(workdir / "results.csv", to_csv(rows, list(rows[0])))
    images = [
        {"category": record.category, **image} for record in records for image in record.images
    ]
    columns = ["category", "file", "label", "kind", "score"]
    columns += [f"score_{name}" for name in summary]
    write_text(workdir / "scores.csv", to_csv(images, columns))
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
    """A table with a header; what is None is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
