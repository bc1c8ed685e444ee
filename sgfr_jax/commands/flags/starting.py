"""How commands begin, and how they end where the user made a mistake."""

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
from absl import flags

from sgfr_jax import datasets
from sgfr_jax.commands.files import cache
from sgfr_jax.commands.flags import checking, launching, options
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.host import compilation, devices, gpu, interruption, processes, terminal
from sgfr_jax.commands.host.machine import Resources
from sgfr_jax.datasets import batches
from sgfr_jax.errors import ArgumentError


def start(argv: Sequence[str], what_next: str = interruption.RESUMED) -> None:
    """What every command begins with: no stray arguments, a quiet log, an end without a mess.

    Args:
      argv: what is left of the command line.
      what_next: as of `interruption.exit_at_once`.
    """
    terminal.make_plain()
    if len(argv) > 1:
        sys.exit(f"error: unexpected arguments: {' '.join(argv[1:])}; flags start with --")
    gpu.avoid_slow_autotuning()
    # JAX tells at this level of every platform that it tried in vain.
    logging.getLogger("jax").setLevel(logging.WARNING)
    interruption.exit_at_once(_clean_up, what_next)


def resources_from_flags(workdir: Path) -> Resources:
    """What the flags allow a run to use; compiled programs are kept from here on.

    Raises:
      ConfigError: if a flag cannot be understood.
    """
    devices.parse(options.MESH.value)
    cache_dir = _cache_dir()
    if cache_dir is None and flags.FLAGS[options.CACHE_GB.name].present:
        raise ConfigError(
            f"--cache_gb={options.CACHE_GB.value:g} must be left out with --cache_dir=: nothing is"
            " kept"
        )
    if cache_dir is not None:
        cache.remove_abandoned(cache_dir)
        compilation.keep_in(cache_dir / "compiled")
    return Resources(
        workdir,
        batch_size=options.BATCH_SIZE.value,
        mesh=options.MESH.value,
        workers=options.WORKERS.value,
        num_figures=options.NUM_FIGURES.value,
        num_review=options.NUM_REVIEW.value,
        save_maps=options.SAVE_MAPS.value,
        save_model=options.SAVE_MODEL.value,
        diagnose=options.DIAGNOSE.value,
        cache_dir=cache_dir,
        cache_bytes=int(min(options.CACHE_GB.value, 1e9) * 1e9),
        accept_license=options.ACCEPT_LICENSE.value,
    )


def foreseen(error: Exception) -> bool:
    """Whether an error is the user's to mend; anything else deserves its traceback."""
    from sgfr_jax.backbones import WeightsError
    from sgfr_jax.saving import SavingError

    # The system's own: a full disk, a name too long, a directory out of reach.
    mistakes = ConfigError | ArgumentError | datasets.DatasetError | WeightsError | SavingError
    return isinstance(error, mistakes | OSError) or _is_of_memory(error)


def _is_of_memory(error: Exception) -> bool:
    """Whether memory has run out, of the host or of a device."""
    of_device = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    return isinstance(error, MemoryError) or of_device


@contextlib.contextmanager
def exit_on_mistakes(into: str) -> Iterator[None]:
    """Turns every foreseen mistake into one line and an exit status, of all processes.

    Args:
      into: as of `launching.told`.
    """
    with processes.ending_together():
        try:
            yield
        except Exception as error:
            if not foreseen(error):
                raise
            if _is_of_memory(error):
                why = (str(error).splitlines() or ["without a word"])[0]
                sys.exit(f"error: memory has run out ({why}): lower --batch_size or --image_size")
            sys.exit(launching.told(error, into))


def _clean_up() -> None:
    batches.end_workers()
    cache_dir = _cache_dir()
    if cache_dir is not None:
        cache.remove_unfinished(cache_dir)


def _cache_dir() -> Path | None:
    value = options.CACHE_DIR.value
    return checking.path("cache_dir", value) if value else None
