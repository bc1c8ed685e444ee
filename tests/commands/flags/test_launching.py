"""What commands call themselves, and how they start and end."""

import configparser
import errno
import importlib
import re
import sys
from pathlib import Path

import pytest
from absl import app, flags

from sgfr_jax.commands import report, run
from sgfr_jax.commands.flags import launching, options, starting
from sgfr_jax.commands.host import interruption

ROOT = Path(__file__).parents[3]
WITH_ABSL = [name for name in launching.NAMES if name not in ("export", "report")]


@pytest.fixture
def scripts():
    """The functions that a wheel's console scripts call, by the scripts' names."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    lines = settings["options.entry_points"]["console_scripts"].strip().splitlines()
    return {name.strip(): place.strip() for name, place in (line.split("=") for line in lines)}


@pytest.fixture(autouse=True)
def parse_alone(monkeypatch):
    """Only the flags are read: what a command would do then is not this test's."""
    monkeypatch.setattr(app, "run", lambda main, flags_parser: flags_parser(sys.argv))


def test_every_command_has_a_script(scripts):
    assert sorted(scripts) == [f"sgfr-{name}" for name in launching.NAMES]


@pytest.mark.parametrize("asked", ["--help", "-h", "--helpshort", "-help"])
@pytest.mark.parametrize("name", launching.NAMES)
def test_help_is_no_failure(scripts, monkeypatch, capsys, name, asked):
    """It goes to the standard output, and names commands as they were typed."""
    if name not in WITH_ABSL and asked not in ("--help", "-h"):
        return
    monkeypatch.setattr(sys, "argv", [f"/usr/bin/sgfr-{name}", asked])
    module, _, function = scripts[f"sgfr-{name}"].partition(":")
    with pytest.raises(SystemExit) as stopped:
        getattr(importlib.import_module(module), function)()
    said = capsys.readouterr()
    assert stopped.value.code == 0 and not said.err
    assert f"sgfr-{name} --" in said.out  # its own example
    assert "python -m" not in said.out and "experiments." not in said.out.replace(
        "experiments/", ""
    )


def asked_for(help, monkeypatch, capsys):
    """What `experiments.run` prints."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/experiments/run.py", help])
    with pytest.raises(SystemExit) as stopped:
        launching.launch(run.main, "sgfr_jax.commands.run")
    assert stopped.value.code == 0
    return capsys.readouterr().out


def test_help_is_of_a_few_flags_and_full_help_of_all(monkeypatch, capsys):
    few, full = (asked_for(help, monkeypatch, capsys) for help in ("--help", "--helpfull"))
    assert "python -m experiments.run" in few and "python -m experiments.run" in full
    listed, known = (set(re.findall(r"^  --(?:\[no\])?(\w+):", x, re.M)) for x in (few, full))
    assert known == {flag.name for flag in flags.FLAGS.get_key_flags_for_module(options)}
    assert {"dataset", "layers", "workdir"} < listed < known
    assert f"--helpfull lists these and {len(known - listed)} more." in few


@pytest.mark.parametrize(
    "given, words",
    [
        (["--data_dirs=x"], "Unknown command line flag 'data_dirs'. Did you mean: data_dir"),
        (["--data_dir"], "Missing value for flag --data_dir"),
        (["--data_dir", "--save_maps"], "--data_dir needs a value, and got the next flag: --save_"),
        (["--layers=--x"], "--layers needs a value"),
        (["--batch_size=many"], "--batch_size=many"),
    ],
)
def test_flags_that_cannot_be_read(monkeypatch, given, words):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/sgfr-run", *given])
    before = {name: (flags.FLAGS[name].value, flags.FLAGS[name].present) for name in flags.FLAGS}
    try:
        with pytest.raises(SystemExit) as stopped:
            launching.launch(run.main, "sgfr_jax.commands.run")
    finally:
        for name, (value, present) in before.items():
            flags.FLAGS[name].value, flags.FLAGS[name].present = value, present
    message = stopped.value.code
    assert message.startswith("error: ") and words in message and "\n" not in message


@pytest.mark.parametrize(
    "text, expected",
    [
        ("python -m experiments.report --workdir=x", "sgfr-report --workdir=x"),
        ("run experiments.sweep first.", "run sgfr-sweep first."),
        ("(`experiments.run`) of experiments.run.", "(`sgfr-run`) of sgfr-run."),
        ("experiments.running, experiments.run.py", None),
        ("/home/me/experiments.run/a.png is experiments.run/a.png", None),
        ("sgfr_jax.commands.sweeping.validation", None),
    ],
)
def test_names(monkeypatch, text, expected):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/sgfr-run"])
    assert launching.as_typed(text) == (expected or text)
    monkeypatch.setattr(sys, "argv", ["/checkout/experiments/run.py"])
    assert launching.as_typed(text) == text


def test_mistakes_name_commands_as_they_were_typed(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/sgfr-report"])
    with pytest.raises(SystemExit, match="run sgfr-sweep with it first"):
        report.main([f"--workdir={tmp_path}"])


_FULL = "No space left on device"


@pytest.mark.parametrize(
    "error, said",
    [
        (OSError(errno.ENOSPC, _FULL), f"{_FULL}; results go to --workdir=w: make room"),
        (OSError("9 requested and 3 written"), "9 requested and 3 written; results go to --work"),
        (OSError(errno.ENOSPC, _FULL, "w/a"), rf"\[Errno \d+\] {_FULL}: 'w/a'$"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), r"\[Errno \d+\] Broken pipe$"),
    ],
)
def test_errors_of_the_system_say_where(error, said):
    with (
        pytest.raises(SystemExit, match=f"^error: {said}"),
        starting.exit_on_mistakes("--workdir=w"),
    ):
        raise error


@pytest.mark.parametrize(
    "name, said",
    [
        ("predict", "nothing was scored yet"),
        ("run", "goes on after the last finished category"),
        ("select", "goes on after the last finished candidate"),
        ("sweep", "goes on after the last finished point"),
        ("update", "the same command begins anew"),
    ],
)
def test_an_interrupted_command_says_what_comes_next(monkeypatch, name, said):
    asked = []
    monkeypatch.setattr(
        interruption, "exit_at_once", lambda _, what_next: sys.exit(asked.append(what_next))
    )
    with pytest.raises(SystemExit):
        importlib.import_module(f"sgfr_jax.commands.{name}").main([name])
    assert said in asked[0]


@pytest.mark.parametrize("name", launching.NAMES)
def test_an_unknown_flag_is_one_line(scripts, monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", [f"/usr/bin/sgfr-{name}", "--unheard_of=1"])
    module, _, function = scripts[f"sgfr-{name}"].partition(":")
    with pytest.raises(SystemExit) as stopped:
        getattr(importlib.import_module(module), function)()
    said = capsys.readouterr().err or f"{stopped.value.code}\n"
    assert stopped.value.code == 1 or stopped.value.code == said.rstrip("\n")
    assert said.startswith("error: ") and said.endswith("; see --help\n")
    assert said.count("\n") == 1
