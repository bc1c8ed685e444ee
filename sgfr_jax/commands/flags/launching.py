"""How commands start, and what they call themselves and each other.

The same commands are typed in two ways: `python -m experiments.run` in a checkout, `sgfr-run` where
a wheel is installed. Help and messages name them in the way in which this one was typed.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from absl import app, flags

from sgfr_jax.commands.flags import checking

NAMES = ("export", "predict", "report", "run", "select", "sweep", "update")
_OF_A_RUN = "sgfr_jax.commands.flags.options"  # the module that defines a run's flags
_HELP = frozenset(("-h", "-?", "-help", "--help", "-helpshort", "--helpshort"))
_FULL_HELP = frozenset(("-helpfull", "--helpfull"))
# The flags of a run that a newcomer needs; `--helpfull` lists the rest.
_FIRST = {
    "Images": ("dataset", "data_dir", "category", "check_data"),
    "Method": ("layers", "image_size", "geometry", "bank_size", "solver"),
    "Results": ("workdir", "save_model", "save_maps", "seed"),
}
# No part of a path, or of a module's longer name.
_IN_CHECKOUT = re.compile(
    rf"(?<![\w./\\-])(?:python -m )?experiments\.({'|'.join(NAMES)})(?!\.?\w|[/\\])"
)


def as_typed(text: str) -> str:
    """A text that names commands of a checkout, with the names that the user knows them by."""
    if not Path(sys.argv[0]).name.startswith("sgfr-"):
        return text
    return _IN_CHECKOUT.sub(r"sgfr-\1", text)


def told(error: Exception, into: object) -> str:
    """What a command that ends with an error says of it.

    Args:
      error: that the user can mend.
      into: the flag that names where the command writes, with its value. It is named where the
        system's error names no file, as on a full disk.
    """
    if type(error) is OSError and error.filename is None:  # no kind that has to do with networks
        why = error.strerror or str(error)
        return f"error: {why}; results go to {into}: make room there, or name another"
    return f"error: {as_typed(checking.message(error))}"


class Parser(argparse.ArgumentParser):
    """Reads the flags of a command that has none of absl's; a mistake is one line, as of absl's."""

    def __init__(self, module: str, documented: str):
        """Of a command by its module, with the module's docstring as help."""
        super().__init__(
            prog=as_typed(f"python -m {module}"), description=as_typed(documented),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip

    def error(self, message: str) -> NoReturn:
        """Ends the process with status 1."""
        self.exit(1, f"error: {message}; see --help\n")


def launch(main: Callable[[Sequence[str]], None], module: str) -> None:
    """Runs `main` with the flags of the command line, and ends the process.

    Args:
      main: takes what is left of the command line.
      module: the module of the command; its docstring begins the help.
    """
    # absl knows the flags of the script alone.
    for flag in flags.FLAGS.get_key_flags_for_module(module):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    documented = sys.modules[module].__doc__
    app.run(main, flags_parser=lambda argv: _parse(argv, documented))


def _parse(argv: list[str], documented: str) -> list[str]:
    """Reads the flags. Asked for help, prints it and ends with 0, where absl ends with 1."""
    given = argv[1 : argv.index("--")] if "--" in argv else argv[1:]
    if _HELP.intersection(given):
        listed = _first_flags()
    elif _FULL_HELP.intersection(given):
        listed = "\n".join(map(_described, _key_flags().values()))
    else:
        return _parse_flags(argv)
    print(as_typed(f"{documented}\n{listed}"))
    sys.exit(0)


def _key_flags() -> dict[str, flags.Flag]:
    """The flags of this command, by name."""
    found = flags.FLAGS.get_key_flags_for_module(sys.argv[0])
    return {flag.name: flag for flag in sorted(found, key=lambda flag: flag.name)}


def _first_flags() -> str:
    """What `--help` lists: the command's own flags, and those that a newcomer needs, in groups."""
    known, owner = _key_flags(), flags.FLAGS.find_module_defining_flag
    own = [name for name in known if owner(name) != _OF_A_RUN]
    groups = {"Of this command": own} | {
        title: [name for name in names if name in known] for title, names in _FIRST.items()
    }
    shown = [
        f"{title}:\n" + "\n".join(_described(known[name]) for name in names)
        for title, names in groups.items()
        if names
    ]
    left = len(known) - sum(map(len, groups.values()))
    return "\n\n".join([*shown, f"--helpfull lists these and {left} more."])


def _described(flag: flags.Flag) -> str:
    """A flag with its help and default."""
    name = f"[no]{flag.name}" if flag.boolean else flag.name
    default = "" if flag.default is None else f" (default: {flag.default_as_str})"
    text = f"--{name}: {flag.help}{default}"
    return flags.text_wrap(text, indent="      ", firstline_indent="  ")


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        left = flags.FLAGS(argv)
    except flags.Error as error:
        why = " ".join(str(error).split()).rstrip(".")  # absl's may have several lines
        sys.exit(f"error: {why}; see --help")
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        values = flag.value if isinstance(flag.value, list) else [flag.value]
        if flag.present and any(isinstance(one, str) and one.startswith("--") for one in values):
            sys.exit(f"error: --{name} needs a value, and got the next flag: {flag.value}")
    return left
