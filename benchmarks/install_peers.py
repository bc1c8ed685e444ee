"""Makes the peers' virtual environment: anomalib, torch, FAISS, adeval, scikit-learn; 6.5 GB.

    python -m benchmarks.install_peers [--path=.venv-peers] [--python=python3.11]

The versions are those that were measured; torch's wheel from PyPI brings CUDA along, which is not
used. A machine with a GPU can use the same environment.
"""

import argparse
import subprocess
from collections.abc import Sequence
from pathlib import Path

# torch first and by itself: what others ask for then takes the one that is there.
_TORCH = ("torch==2.14.1", "torchvision==0.29.1")
_OTHERS = (
    "anomalib==2.7.0",
    "adeval==1.1.0",
    "faiss-cpu==1.15.1",
    "scikit-learn==1.9.1",
    "timm==1.0.31",
)


def commands(path: Path, python: str) -> list[list[str]]:
    """What makes the environment, in order."""
    pip = [str(path / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    return [[python, "-m", "venv", str(path)], [*pip, *_TORCH], [*pip, *_OTHERS]]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--path", type=Path, default=Path(".venv-peers"))
    parser.add_argument("--python", default="python3.11", help="an interpreter that torch supports")
    options = parser.parse_args(argv)
    for command in commands(options.path, options.python):
        print(*command, flush=True)
        subprocess.run(command, check=True)
    print(f"--peers={options.path}/bin/python")


if __name__ == "__main__":
    main()
