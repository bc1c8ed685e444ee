"""Which images of MTD show one tile: makes `sgfr_jax/datasets/mtd_tiles.txt`.

python -m tests.datasets.mtd_tiles ../shared/data/mtd > sgfr_jax/datasets/mtd_tiles.txt
"""

import re
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import fft
from scipy.ndimage import gaussian_filter
from scipy.sparse.csgraph import connected_components

GAP, SIDE, SHIFT, LEAST = 200, 128, 12, 0.35


def number(path):
    return int(re.search(r"num_(\d+)", path.stem)[1])


def texture(path):
    """What is fine in an image, without contrast and stripes: `[SIDE, SIDE]` of unit norm."""
    image = Image.open(path).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    pixels = np.asarray(image, np.float32)
    fine = gaussian_filter(pixels, 0.7) - gaussian_filter(pixels, 3)
    fine = fine / (np.sqrt(gaussian_filter(fine**2, 6)) + 0.5)
    fine = fine - fine.mean(axis=1, keepdims=True)
    fine = fine - fine.mean(axis=0, keepdims=True)
    return np.float32(fine / np.linalg.norm(fine))


def alike(textures):
    """`[N, N]`: the largest correlation of every two textures, shifted up to `SHIFT` pixels."""
    spectra = fft.rfft2(textures)  # of float32 in half the time of NumPy's
    near = np.r_[0 : SHIFT + 1, -SHIFT:0]
    found = []
    for spectrum in spectra:
        correlation = fft.irfft2(spectrum.conj() * spectra, s=(SIDE, SIDE))
        found.append(correlation[:, near][:, :, near].max(axis=(1, 2)))
    return np.stack(found)


def tiles(directory):
    """Lists of stems, one for each tile, in the order of their smallest numbers."""
    files = sorted((directory / "MT_Free/Imgs").glob("*.jpg"), key=lambda p: (number(p), p.stem))
    numbers = np.array([number(path) for path in files])
    run = np.concatenate([[0], np.cumsum(np.diff(numbers) > GAP)])
    linked = (run[:, None] == run) | (alike(np.stack([texture(p) for p in files])) > LEAST)
    _, tile = connected_components(linked)
    groups = {}
    for path, of in zip(files, tile, strict=True):
        groups.setdefault(of, []).append(path.stem)
    return list(groups.values())


if __name__ == "__main__":
    for stems in tiles(Path(sys.argv[1])):
        print(*stems)
