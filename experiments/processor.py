"""What NumPy must know of the processor before it is imported."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

# NumPy's names for AVX-512, of its versions up to 2.3 and from 2.4.
_AVX512 = "AVX512_SKX AVX512_ICL AVX512_SPR X86_V4"
_VARIABLE = "NPY_DISABLE_CPU_FEATURES"


def avoid_slow_sort() -> None:
    """Keeps NumPy from AVX-512 on AMD's Zen 4, if NumPy has not been imported yet.

    Its sort there consists of stores that this processor is slow at (a hundred cycles each;
    numpy/x86-simd-sort issue 6): 36 million scores take 2.07 s where AVX2 takes 0.31 s, and the
    exact metrics are a sort. What the variable says already stays.
    """
    if "numpy" not in sys.modules and is_zen_4(_first_core()):
        os.environ.setdefault(_VARIABLE, _AVX512)


def is_zen_4(core: Mapping[str, str]) -> bool:
    """Whether a core, as `/proc/cpuinfo` describes it, is of AMD's family 25 and has AVX-512."""
    family = core.get("vendor_id"), core.get("cpu family")
    return family == ("AuthenticAMD", "25") and "avx512f" in core.get("flags", "").split()


def _first_core() -> dict[str, str]:
    """The first block of `/proc/cpuinfo`; nothing where there is none."""
    try:
        block = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    except OSError:
        return {}
    lines = (line.partition(":") for line in block.splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}
