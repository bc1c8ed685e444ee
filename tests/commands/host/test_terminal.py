import io
import sys

from sgfr_jax.commands.host import terminal

NAME = "a\x1b[31mb\r\x9b2J\u202e\x7f.png"


def test_control_characters_are_shown_as_text():
    assert terminal.plain(NAME) == r"a\x1b[31mb\r\x9b2J\u202e\x7f.png"
    for text in ("plain\n", "\ttab", "größe 99 % ± 1", "写真.png", "", "\\x1b"):
        assert terminal.plain(text) == text
    assert terminal.one_line("a\nerror: all is lost\x07") == r"a\nerror: all is lost\x07"


def test_what_is_printed_is_plain(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    terminal.make_plain()
    terminal.make_plain()
    print(NAME)
    print(f"skipped: {NAME}", file=sys.stderr)
    terminal.control(sys.stderr).write("\r50%")
    printed = capsys.readouterr()
    assert printed.out == terminal.plain(NAME) + "\n"
    assert printed.err == f"skipped: {terminal.plain(NAME)}\n\r50%"


def test_what_an_encoding_has_not_is_escaped(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    terminal.make_plain()
    print("½ ± \udcff")
    sys.stdout.flush()
    assert written.getvalue() == rb"\xbd \xb1 \udcff" + b"\n"
