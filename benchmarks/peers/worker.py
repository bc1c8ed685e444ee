"""Answers requests, one a line; started by `benchmarks.workers`, not by hand.

    {"make": "module:function", "arguments": {...}}   -> {"handle": 0} or {"missing": "..."}
    {"run": 0, "number": 5}                           -> {"seconds": 0.1, "value": ...}
    {"forget": true}                                  -> {}
    {"versions": true}                                -> {"torch": "...", ...}

An array is `{"array": PATH}`; what raises is answered by `{"error": traceback}`.
"""

import gc
import importlib
import importlib.metadata
import itertools
import json
import os
import sys
import traceback
from pathlib import Path

import numpy as np

from benchmarks import timing

_PACKAGES = ("anomalib", "torch", "timm", "faiss-cpu", "adeval", "scikit-learn", "numpy")


def main(folder: Path) -> None:
    """Serves until the input ends.

    Args:
      folder: where arrays are written.
    """
    # Libraries print; only answers may reach the reader.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    contenders, counter = [], itertools.count()

    def answer(request: dict) -> dict:
        if "make" in request:
            try:
                contenders.append(_make(request["make"], request["arguments"]))
            except ImportError as error:
                return {"missing": str(error)}
            return {"handle": len(contenders) - 1}
        if "run" in request:
            sample = contenders[request["run"]](request["number"])
            return {"seconds": sample.seconds, "value": pack(sample.value)}
        if "forget" in request:
            contenders[:] = [None] * len(contenders)
            gc.collect()
            return {}
        return {name: version for name in _PACKAGES if (version := _version(name))}

    def pack(value):
        if not isinstance(value, np.ndarray):
            return value
        # Two files in turn: the reader loads one before it asks for the next.
        path = folder / f"answer{next(counter) % 2}.npy"
        np.save(path, value)
        return {"array": str(path)}

    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception:
            reply = {"error": traceback.format_exc()}
        print(json.dumps(reply), file=answers, flush=True)


def _make(target: str, arguments: dict) -> timing.Contender:
    module, function = target.split(":")
    given = {
        key: np.load(value["array"]) if isinstance(value, dict) else value
        for key, value in arguments.items()
    }
    make = getattr(importlib.import_module(f"benchmarks.peers.{module}"), function)
    return timing.contender(make(**given))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
