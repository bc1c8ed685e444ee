"""The flags of commands that use a fitted model, and which flags of a run these still take."""

from collections.abc import Iterable

from absl import flags

from sgfr_jax.backbones import hub
from sgfr_jax.commands.flags import checking, options
from sgfr_jax.commands.flags.checking import ConfigError

MODEL = flags.DEFINE_string("model", None, "The directory of a model that --save_model wrote.")
IMAGES = flags.DEFINE_string(
    "images", None,
    "An image, a directory, a pattern in quotes, or a text file with a path in each line.",
)  # fmt: skip


def check(needed: Iterable[flags.FlagHolder], shared: Iterable[str]) -> None:
    """Checks that a command has what it needs, and nothing that its model has settled.

    Args:
      needed: flags that must be given.
      shared: names of a run's flags that do not change what a model is.

    Raises:
      ConfigError: names the flag.
    """
    for flag in needed:
        if not flag.value:
            raise ConfigError(f"--{flag.name} must be given; see --help")
    fixed = {flag.name for flag in flags.FLAGS.flags_by_module_dict()[options.__name__]}
    for name in sorted(fixed - set(shared)):
        if flags.FLAGS[name].present:
            raise ConfigError(f"--{name} belongs to the model, which has its own: leave it out")


def weights() -> str | None:
    """Where the weights of a model's network lie now, if `--weights` says so."""
    named = options.WEIGHTS.value
    if named is None or hub.is_address(named):
        return named
    return str(checking.path("weights", named))
