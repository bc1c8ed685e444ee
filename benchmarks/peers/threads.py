"""As many threads as cores: torch does not look at the process's affinity by itself."""

import os

import torch

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def limit() -> None:
    """Gives torch one thread for each core that this process may use."""
    torch.set_num_threads(CORES)
