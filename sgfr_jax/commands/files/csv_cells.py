"""Text in CSV files, such that no program takes a file's name for a formula, or for a command.

Spreadsheets compute a cell that begins with `=`, and terminals obey control characters. Text with
either stands after an apostrophe, control characters and backslashes escaped as in Python; all
other text stands as it is. So `text` finds the exact name again.
"""

import re

_MARK = "'"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", _MARK)
# A lone surrogate has no place in UTF-8.
_CONTROL = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_ESCAPED = re.compile(rf"[{_CONTROL}\\]")


def cell(text: str) -> str:
    """The cell that stands for a text."""
    # Spreadsheets skip blanks before a formula.
    if not text.lstrip().startswith(_FORMULA) and not re.search(f"[{_CONTROL}]", text):
        return text
    return _MARK + _ESCAPED.sub(lambda found: _escape(found[0]), text)


def text(cell: str) -> str:
    """The text that a cell stands for.

    Raises:
      ValueError: if `cell` has made no such cell.
    """
    if not cell.startswith(_MARK):
        return cell
    escaped = r"\\(?:\\|u[0-9a-f]{4})"
    if re.fullmatch(rf"(?:[^\\]|{escaped})*", cell, re.DOTALL) is None:
        raise ValueError(f"{cell!r} is no text: it has a backslash that escapes nothing")
    return re.sub(escaped, lambda found: _unescape(found[0]), cell[1:])


def _escape(character: str) -> str:
    return "\\\\" if character == "\\" else f"\\u{ord(character):04x}"


def _unescape(escaped: str) -> str:
    return "\\" if escaped == "\\\\" else chr(int(escaped[2:], 16))
