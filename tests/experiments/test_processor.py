import os
import subprocess
import sys

import pytest

from experiments import processor

ZEN_4 = {"vendor_id": "AuthenticAMD", "cpu family": "25", "flags": "fpu avx2 avx512f"}
OTHERS = {
    "Zen 3": ZEN_4 | {"flags": "fpu avx2"},
    "Zen 5": ZEN_4 | {"cpu family": "26"},
    "Intel": ZEN_4 | {"vendor_id": "GenuineIntel"},
    "no /proc": {},
}
SHOW = "import os, experiments; print(os.environ.get('NPY_DISABLE_CPU_FEATURES'))"


def test_zen_4_is_told_from_others():
    assert processor.is_zen_4(ZEN_4)
    assert not any(map(processor.is_zen_4, OTHERS.values()))


def test_the_first_core_is_read(monkeypatch, tmp_path):
    found = tmp_path / "cpuinfo"
    block = "\n".join(f"{name}\t: {value}" for name, value in ZEN_4.items())
    found.write_text(f"{block}\n\n{block.replace('25', '26')}\n\n")
    monkeypatch.setattr(processor, "Path", lambda name: found)
    assert processor.is_zen_4(processor._first_core())


@pytest.mark.parametrize("given", [None, "AVX2"])
def test_numpy_is_told_before_it_is_imported(given):
    environment = {k: v for k, v in os.environ.items() if k != "NPY_DISABLE_CPU_FEATURES"}
    environment |= {"NPY_DISABLE_CPU_FEATURES": given} if given else {}
    ran = subprocess.run(
        [sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, check=True
    )
    expected = processor._AVX512 if processor.is_zen_4(processor._first_core()) else None
    assert ran.stdout.strip() == str(given or expected)
