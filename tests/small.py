"""A small data set of photographs, and a configuration that fits on it in a second or two."""

import numpy as np
from PIL import Image

from sgfr_jax.commands.flags import config


def texture(rng, size=72):
    rows, columns = np.mgrid[:size, :size]
    wave = 40 * np.sin(rows / 3 + rng.uniform(0, 6)) + 20 * np.sin(columns / 5)
    return np.clip(120 + wave + rng.normal(0, 6, (size, size)), 0, 255).astype(np.uint8)


def write_folder(directory):
    """Two products with nominal and defective photographs, masks included."""
    rng = np.random.default_rng(0)
    for product in ("cap", "nut"):
        root = directory / "photographs" / product
        for split, kind, num in (("train", "good", 5), ("test", "good", 3), ("test", "dent", 3)):
            place = root / split / kind
            place.mkdir(parents=True)
            for i in range(num):
                image = texture(rng)
                if kind == "dent":
                    mask = np.zeros_like(image)
                    mask[20:40, 30 : 44 + i] = 255
                    image[mask > 0] = 255 - image[mask > 0]
                    path = root / "ground_truth" / kind / f"{i}_mask.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask).save(path)
                Image.fromarray(image).save(place / f"{i}.png")
    return directory / "photographs"


# Small enough to compile and run in a second or two.
SMALL = config.Config.of(
    dataset="folder", layers=("block2", "block4"), image_size=64, bank_size=20, num_neighbors=5
)
