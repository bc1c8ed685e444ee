"""What XLA must know of GPUs before it starts."""

import os
from importlib import metadata
from pathlib import Path

_NAME = "xla_gpu_enable_triton_gemm"
# XLA ends the process at a flag that it does not know: only versions that are known to know it.
_KNOWN_TO = ((0, 10), (0, 13))
_DEVICES = "dev/nvidia*", "dev/dxg"  # as Linux and Windows' subsystem for it show them


def avoid_slow_autotuning() -> None:
    """Leaves matrix products on a GPU to cuBLAS, unless `XLA_FLAGS` says otherwise.

    By default XLA compiles dozens of Triton kernels for every shape of a product and times them,
    while a run has few products of each shape: on an H100 greedy k-center of 25,600 patches took
    9.2 s to compile and 0.19 s to run, without them 0.6 s and 0.02 s. Must be called before JAX
    looks for devices; what is set later has no effect.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _NAME not in flags and known(metadata.version("jaxlib")) and any_gpu():
        os.environ["XLA_FLAGS"] = f"{flags} --{_NAME}=false".strip()


def known(version: str) -> bool:
    """Whether the XLA in that version of jaxlib is known to have the flag."""
    least, below = _KNOWN_TO
    return least <= tuple(int(part) for part in version.split(".")[:2]) < below


def any_gpu(root: Path = Path("/")) -> bool:
    """Whether there is a GPU of NVIDIA's that JAX may use."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    wanted = not platforms or any(name in platforms for name in ("cuda", "gpu"))
    return wanted and any(True for pattern in _DEVICES for _ in root.glob(pattern))
