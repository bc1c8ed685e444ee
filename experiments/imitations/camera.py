"""What turns a rendered surface into a photograph, and two renderings into a mask."""

import numpy as np
from PIL import Image
from scipy import ndimage

SIDE = 256
VISIBLE = 6.0  # grey levels in any channel, before the noise


def photograph(
    rng: np.random.Generator,
    clean: np.ndarray,
    marked: np.ndarray | None,
    *,
    blur: float,
    gain: tuple[float, float],
    gradient: float,
    noise: float,
    reach: int,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the photograph of one of two renderings, and where they differ.

    Args:
      rng: consumed.
      clean: the product without a defect, float `[H, W]` or `[H, W, 3]` in grey levels.
      marked: the same with a defect; `None` for a nominal image.
      blur: standard deviation of the optics' blur, in pixels.
      gain: the brightness is multiplied by a draw from between the two.
      gradient: the light may fall off by this share, at most, from one side to the other.
      noise: standard deviation of the sensor's noise, in grey levels.
      reach: gaps in the mask of up to twice so many pixels are closed.

    Returns:
      `(image, mask)`: uint8 like `clean`, and bool `[H, W]` or `None`.
    """
    y, x = np.mgrid[: clean.shape[0], : clean.shape[1]] / max(clean.shape) - 0.5
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, gradient)
    light = rng.uniform(*gain) * (1 + slope * (np.cos(angle) * x + np.sin(angle) * y))
    light = light.reshape(light.shape + (1,) * (clean.ndim - 2))
    grain = rng.normal(0, noise, clean.shape)

    seen = [
        np.clip(light * _blurred(surface, blur), 0, 255)
        for surface in (clean, marked)
        if surface is not None
    ]
    image = np.clip(np.round(seen[-1] + grain), 0, 255).astype(np.uint8)
    if marked is None:
        return image, None
    difference = np.abs(seen[1] - seen[0])
    if difference.ndim == 3:
        difference = difference.max(axis=2)
    mask, window = np.pad(difference >= VISIBLE, reach), 2 * reach + 1
    mask = ndimage.minimum_filter(ndimage.maximum_filter(mask, window), window)
    return image, mask[reach:-reach, reach:-reach]


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], sigma: float | tuple[float, float]
) -> np.ndarray:
    """Returns Gaussian noise blurred by `sigma` (for both axes or each), of unit deviation.

    Where the blur is wide, it is made on a coarser grid and enlarged.
    """
    sigma = np.broadcast_to(sigma, 2)
    steps = np.maximum(sigma // 2, 1).astype(int)
    coarse = rng.standard_normal(-(-np.array(shape) // steps) + 1, np.float32)
    coarse = ndimage.gaussian_filter(coarse, sigma / steps)
    noise = np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC))
    return (noise / noise.std()).astype(float)


def _blurred(surface: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(surface, (sigma, sigma, 0)[: surface.ndim])
