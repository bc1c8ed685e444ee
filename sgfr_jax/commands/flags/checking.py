"""Mistakes on the command line: one line each, which names the flag and what would be right."""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

from sgfr_jax import names
from sgfr_jax.detector.method import Method

# What the library calls an argument and a command line a flag, beside the fields of `Method`.
_ARGUMENTS = frozenset((
    *(field.name for field in dataclasses.fields(Method)), "accept_license", "baseline",
    "batch_size", "category", "data_dir", "dataset", "images", "manifest", "mask_glob", "model",
    "prepared_dir", "shots", "skip_bad_images", "split", "split_seed", "test_glob", "train_glob",
))  # fmt: skip
# No part of a path, such as /data/split=test/0.png.
_NAMED = re.compile(rf"`({'|'.join(_ARGUMENTS)})`|(?<![\w./\\-])({'|'.join(_ARGUMENTS)})(?==)")


class ConfigError(ValueError):
    """A flag that cannot be honoured; the message says which and what would be right."""


def as_flags(text: str) -> str:
    """A message of the library, in which arguments are flags."""
    return _NAMED.sub(lambda found: f"--{found[1] or found[2]}", text)


def message(error: Exception) -> str:
    """What an error says, in flags: the commands' own names them, and the system's names files."""
    text = str(error)
    return text if isinstance(error, ConfigError | OSError) else as_flags(text)


def path(flag: str, text: str) -> Path:
    """The path that a flag names, with the home directory in place of `~`.

    Raises:
      ConfigError: if nothing says where that is, or the flag names nothing.
    """
    check_named(flag, text)
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"--{flag}={text}: the home directory is not known: give the path without ~"
        ) from error


def check_named(flag: str, text: str) -> None:
    """Raises ConfigError if a flag for a path is empty, which would be the current directory."""
    if not text:
        raise ConfigError(f"--{flag}= is empty: name a path, such as . for the current directory")


def check_known(flag: str, what: str, name: str, known: Iterable[str]) -> None:
    """Raises ConfigError, with the known names and the nearest one, if `name` is not known."""
    known = list(known)
    if name not in known:
        raise ConfigError(f"--{flag}: {names.unknown_name(what, name, known)}")
