"""The embedded default: real textures with drawn defects, made in a moment without any file.

The nominal images are crops of three photographs that scikit-image ships (brick, grass and
gravel, 512 x 512, CC0), slightly rotated and lit differently. Test crops come from one third of a
photograph and training crops from the other two, so no pixel is in both. The thirds that test were
chosen so that training shows all that is nominal: those in the middle, between both sides of brick
and gravel, and the right one of grass, because the middle has broad leaves found nowhere else.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from sgfr_jax.datasets.defects import DEFECTS
from sgfr_jax.datasets.defects import patch as patch_defect
from sgfr_jax.datasets.selection import select_categories
from sgfr_jax.datasets.types import Category, DatasetError, Example

CATEGORIES = ("brick", "grass", "gravel")
CROP = 128
NUM_TRAIN, NUM_GOOD, NUM_PER_KIND = 100, 16, 5
_LEFT, _MIDDLE, _RIGHT = slice(0, 170), slice(170, 342), slice(342, 512)
TRAIN_COLUMNS = {
    "brick": (_LEFT, _RIGHT),
    "grass": (_LEFT, _MIDDLE),
    "gravel": (_LEFT, _RIGHT),
}
TEST_COLUMNS = {"brick": _MIDDLE, "grass": _RIGHT, "gravel": _MIDDLE}

MAX_DEGREES = 8.0
GAIN = (0.95, 1.05)
BIAS = (-5.0, 5.0)  # grey levels
GRADIENT = (0.0, 8.0)  # grey levels from one side of the crop to the other


def list_demo(
    data_dir: Path | None, *, categories: Sequence[str] | None, split_seed: int
) -> tuple[Category, ...]:
    """Returns brick, grass and gravel, images uint8 `[128, 128]`.

    Every image has a generator of its own, seeded with `split_seed` and its place, so an image does
    not depend on which others are made.
    """
    if data_dir is not None:
        raise DatasetError(
            f"data set 'demo' is built in and takes no data directory (data_dir='{data_dir}'); "
            "for your own images use data set 'folder'."
        )
    names = select_categories(CATEGORIES, categories, dataset="demo")
    return tuple(_category(name, split_seed) for name in names)


def random_crop(rng: np.random.Generator, region: np.ndarray) -> np.ndarray:
    """Returns a crop `[CROP, CROP]` of `region` `[H, W]`, turned and lit at random; uint8.

    The whole turned square lies within the region: nothing is filled in.
    """
    angle = np.deg2rad(rng.uniform(-MAX_DEGREES, MAX_DEGREES))
    cos, sin = np.cos(angle), np.sin(angle)
    # Half the side of the turned square's bounding box, and 2 pixels for bicubic interpolation.
    margin = CROP / 2 * (cos + abs(sin)) + 2
    height, width = region.shape
    assert 2 * margin <= min(height, width), (margin, region.shape)
    x0, y0 = rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)
    half = CROP / 2
    # Pillow wants the map from the crop's pixels to the region's, by rows.
    rotation = (cos, -sin, x0 - cos * half + sin * half, sin, cos, y0 - sin * half - cos * half)
    crop = Image.fromarray(region).transform(
        (CROP, CROP), Image.Transform.AFFINE, rotation, Image.Resampling.BICUBIC
    )
    return _relit(rng, np.asarray(crop, float))


def _category(name: str, split_seed: int) -> Category:
    photographs = {other: _photograph(other) for other in CATEGORIES}
    train_regions = [photographs[name][:, columns] for columns in TRAIN_COLUMNS[name]]
    test_region = photographs[name][:, TEST_COLUMNS[name]]
    seed = (split_seed, CATEGORIES.index(name))
    others = [photographs[other] for other in CATEGORIES if other != name]

    train = []
    for i in range(NUM_TRAIN):
        image = random_crop(_rng(*seed, 0, i), train_regions[i % len(train_regions)])
        train.append(Example(f"train/good/{i:03d}", image, 0, "good", None))
    test = []
    for i in range(NUM_GOOD):
        image = random_crop(_rng(*seed, 1, i), test_region)
        test.append(Example(f"test/good/{i:03d}", image, 0, "good", None))
    for kind_index, (kind, draw) in enumerate(sorted(DEFECTS.items())):
        for i in range(NUM_PER_KIND):
            rng = _rng(*seed, 2 + kind_index, i)
            if kind == "patch":
                draw = partial(patch_defect, donor=others[rng.integers(len(others))])
            image, mask = draw(rng, random_crop(rng, test_region))
            test.append(Example(f"test/{kind}/{i:03d}", image, 1, kind, mask))
    return Category(name, tuple(train), tuple(test))


def _rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _photograph(name: str) -> np.ndarray:
    """Returns one of scikit-image's own photographs, uint8 `[512, 512]`; nothing is downloaded."""
    import skimage.data  # slow to import, and only this data set needs it

    return getattr(skimage.data, name)()


def _relit(rng: np.random.Generator, crop: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:CROP, :CROP] / CROP - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    gradient = rng.uniform(*GRADIENT) * (np.cos(angle) * x + np.sin(angle) * y)
    lit = rng.uniform(*GAIN) * crop + rng.uniform(*BIAS) + gradient
    return np.clip(np.round(lit), 0, 255).astype(np.uint8)
