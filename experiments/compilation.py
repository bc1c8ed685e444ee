"""Compiled programs on disk, so that a later run starts at once."""

from pathlib import Path

import jax


def keep_in(directory: Path) -> None:
    """Makes JAX look for compiled programs in a directory, and put there what it compiles.

    Must be called before anything is compiled. Trouble with the directory is a warning of JAX's,
    never an error.
    """
    jax.config.update("jax_compilation_cache_dir", str(directory))
    # A run compiles a few dozen small programs; by default only slow ones would be kept.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
