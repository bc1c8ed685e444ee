"""What a result was made with."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

import sgfr_jax
from sgfr_jax.commands.files import cache
from sgfr_jax.version import __version__


def describe() -> dict[str, Any]:
    """Versions, devices and the commit, as JSON takes them."""
    devices = jax.devices()
    return {
        "sgfr_jax": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "device": devices[0].device_kind,
        "num_devices": len(devices),
        **{
            package: importlib.metadata.version(package)
            for package in ("jax", "jaxlib", "flax", "numpy", "scipy", "pillow")
        },
    }


def _commit() -> str | None:
    """The checkout's commit, with `+changes` where files differ from it; None outside git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    try:
        return subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def source() -> str:
    """A hash of the code that results depend on; the commit does not tell two edits apart."""
    return cache.source_digest(sgfr_jax)
