"""Fits anomalib's Patchcore to a folder of images and ends: what `benchmarks.memory` starts.

python -m benchmarks.peers.fit_folder FOLDER WEIGHTS
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.peers import patchcore

_RATIO = 0.01


def main(folder: Path, weights: str) -> None:
    """Reads all images, which a data loader would not hold at once, and fits."""
    images = np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])
    fit = patchcore.fitter("patchcore", "resnet18", weights, ["layer2", "layer3"], images, _RATIO)
    print(fit())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
