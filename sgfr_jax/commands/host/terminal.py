"""What is printed: text alone, whatever file names and other input hold."""

import re
import sys
from typing import Any, TextIO

# Control characters, by which a terminal is told what to do, but for the ends of lines and tabs;
# and those that turn the direction of text. A file's name may have any of them.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """The text with control characters as Python writes them, such as `\\x1b`."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """The same, and without a line's end that could begin another message."""
    return plain(text).replace("\n", "\\n")


class Plain:
    """A stream of text that writes `plain` text to another, and is that one otherwise."""

    def __init__(self, stream: TextIO):
        """Writes to `stream`."""
        self.stream = stream

    def write(self, text: str) -> int:
        """Writes a text."""
        self.stream.write(plain(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        """Whatever else the other stream has."""
        return getattr(self.stream, name)


def make_plain() -> None:
    """From here on what is printed is plain, and what the encoding has not is escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        if not isinstance(stream, Plain):
            setattr(sys, name, Plain(stream))


def control(stream: TextIO) -> TextIO:
    """The stream for what means to control the terminal, such as a progress bar."""
    return stream.stream if isinstance(stream, Plain) else stream
