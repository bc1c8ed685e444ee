"""Tables of images: CSV files with a header, and JSON lines, with the row of every mistake.

Fields of a CSV file may be separated by commas, by semicolons, as Excel does where the comma is the
decimal sign, or by tabs; the header tells which.
"""

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sgfr_jax import names
from sgfr_jax.datasets.types import DatasetError

# JSON can escape them one by one; UTF-8 has them only in pairs, as one character.
_SURROGATE = re.compile("[\ud800-\udfff]")
_CSV = (".csv", ".tsv")
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


class Row(NamedTuple):
    """One line of a table."""

    number: int  # of its (last) line in the file; the header is line 1
    fields: dict[str, str]  # every known column, stripped; '' where the file says nothing


def read_rows(
    path: Path, *, required: Sequence[str], optional: Sequence[str], problems: list[str]
) -> list[Row]:
    """Returns the rows of a table; a file that is none raises `DatasetError`.

    Args:
      path: ends in `.csv`, `.tsv`, `.jsonl` or `.ndjson`; UTF-8, with or without a byte order mark.
      required: the columns that must be there.
      optional: those that may be.
      problems: a sentence with the row's number is appended for each row that cannot be used.
    """
    suffix = path.suffix.lower()
    if suffix not in (*_CSV, ".jsonl", ".ndjson"):
        raise DatasetError(
            f"'{path}' must be a CSV file (.csv) or JSON lines (.jsonl); a spreadsheet can be "
            "saved as CSV UTF-8."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DatasetError(f"the file '{path}' does not exist.") from None
    except OSError as error:
        raise DatasetError(f"the file '{path}' cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"the file '{path}' is not UTF-8 (at byte {error.start}); save it as CSV UTF-8."
        ) from None
    parse = _csv_rows if suffix in _CSV else _json_rows
    rows = parse(text, path, (*required, *optional), required, problems)
    if not rows and not problems:
        raise DatasetError(f"the file '{path}' has no rows.")
    return rows


def place(path: Path, number: int) -> str:
    """Returns how a message names a row."""
    return f"row {number} of '{path}'"


def _csv_rows(text, path, known, required, problems):
    separator = _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    rows, header = [], None
    try:
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            if header is None and separator.join(values).lower() == f"sep={separator}":
                continue  # tells Excel what separates fields
            if header is None:
                header = [value.strip().lower() for value in values]
                _check_columns(header, known, required, path)
            elif len(values) != len(header):
                problems.append(
                    f"{place(path, reader.line_num)} has {len(values)} fields; the header has "
                    f"{len(header)}, separated by {_SEPARATORS[separator]}."
                )
            else:
                given = dict(zip(header, (value.strip() for value in values), strict=True))
                rows.append(Row(reader.line_num, {name: given.get(name, "") for name in known}))
    except csv.Error as error:
        problems.append(f"{place(path, reader.line_num)} is not CSV: {error}.")
    if header is None and not problems:
        raise DatasetError(f"the file '{path}' is empty; its first line must name the columns.")
    return rows


def _separator(text: str) -> str:
    """What the header has most of; a comma if it has none."""
    lines = (line for line in text.splitlines() if line.strip())
    first = next(lines, "")
    if first.strip().lower().startswith("sep=") and len(first.strip()) <= 5:
        first = first.rstrip("\r\n")[4:] or "\t"
    return max(_SEPARATORS, key=first.count)


def _json_rows(text, path, known, required, problems):
    rows = []
    # Not splitlines, which also splits at characters that JSON allows within a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            given = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.append(f"{place(path, number)} is not JSON: {error}.")
            continue
        fault = _fault(given, known, required)
        if fault:
            problems.append(f"{place(path, number)} {fault}.")
            continue
        fields = {name: "" if given.get(name) is None else str(given[name]) for name in known}
        rows.append(Row(number, {name: value.strip() for name, value in fields.items()}))
    return rows


def _fault(given, known, required):
    if not isinstance(given, dict):
        return "is not a JSON object"
    for name in given:
        if name not in known:
            return f"has an {names.unknown_name('field', name, known)}".rstrip(".")
    for name in required:
        if given.get(name) is None:
            return f"lacks the field '{name}'"
    for name, value in given.items():
        if value is not None and not isinstance(value, str | int):
            return f"has {type(value).__name__} for '{name}'; text or an integer is needed"
        if isinstance(value, str) and _SURROGATE.search(value):
            return f"has half a character, {value!r}, for '{name}'; no file can be named so"
    return None


def _check_columns(header, known, required, path):
    for name in header:
        if name not in known:
            raise DatasetError(f"{names.unknown_name('column', name, known)} See '{path}'.")
    if len(set(header)) < len(header):
        raise DatasetError(f"the header of '{path}' names a column twice: {', '.join(header)}.")
    missing = [name for name in required if name not in header]
    if missing:
        raise DatasetError(f"the header of '{path}' lacks: {', '.join(missing)}.")
