import os
import subprocess
import sys

import pytest

from sgfr_jax.commands.host import gpu

FLAG = "--xla_gpu_enable_triton_gemm=false"


@pytest.fixture
def device(tmp_path, monkeypatch):
    """A machine with a GPU, as far as its files tell."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()
    monkeypatch.setattr(gpu, "any_gpu", lambda found=gpu.any_gpu: found(tmp_path))
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.delenv("XLA_FLAGS", raising=False)


def flags():
    gpu.avoid_slow_autotuning()
    return os.environ.get("XLA_FLAGS")


def test_products_are_left_to_cublas(device):
    assert flags() == FLAG
    assert flags() == FLAG  # once


def test_other_flags_stay(device, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/somewhere")
    assert flags() == f"--xla_dump_to=/somewhere {FLAG}"


def test_what_the_user_says_stays(device, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_triton_gemm=true")
    assert flags() == "--xla_gpu_enable_triton_gemm=true"


@pytest.mark.parametrize("platforms,given", [("cpu", None), ("cuda,cpu", FLAG), ("gpu", FLAG)])
def test_only_where_the_gpu_may_be_used(device, monkeypatch, platforms, given):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    assert flags() == given


def test_without_a_gpu_nothing_is_set(device, monkeypatch, tmp_path):
    (tmp_path / "dev" / "nvidiactl").unlink()
    assert flags() is None


def test_versions_that_may_not_know_the_flag(device, monkeypatch):
    known = {"0.10.0", "0.11.2", "0.11.3.dev20261120", "0.12.0.1"}
    assert {v for v in (*known, "0.9.2", "0.13.0", "1.0") if gpu.known(v)} == known
    monkeypatch.setattr(gpu.metadata, "version", lambda name: "0.13.0")
    assert flags() is None


def test_xla_knows_the_flag():
    """It would end the process if not."""
    environment = os.environ | {"XLA_FLAGS": FLAG}
    script = "import jax; print(jax.jit(lambda x: x + 1)(1))"
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert ran.stdout.strip() == b"2"
