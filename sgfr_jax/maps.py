"""From patch scores to anomaly maps and image scores."""

import jax
import jax.numpy as jnp

from sgfr_jax import extents as of_squares
from sgfr_jax import filters, linalg


def anomaly_map(
    scores: jax.Array,
    size: tuple[int, int],
    *,
    sigma: float,
    extents: jax.Array | None = None,
) -> jax.Array:
    """Patch scores resized bilinearly to the image and blurred.

    Args:
      scores: `[B, h, w]`.
      size: `(H, W)` of the image in pixels.
      sigma: standard deviation of the blur in pixels; 0 for none.
      extents: `[B, 2]`: the shares of height and width that images fill, from the top left; the
        scores of padding do not count, and the map carries on the image's there. None: all.

    Returns:
      `[B, H, W]`, in the unit of the scores and within their range; all NaN where a score of the
      image is, as in `patches.merge_levels`.

    Raises:
      ValueError: if scores are not `[B, h, w]` or sigma is negative.
    """
    if scores.ndim != 3:
        raise ValueError(f"scores must be [B, h, w], got {scores.shape}")
    if not sigma >= 0:
        raise ValueError(f"sigma={sigma}; it must be 0 or positive")
    if extents is not None:
        scores = of_squares.extend(scores, extents)
    rows, columns = (
        filters.gaussian_matrix(new_size, sigma) @ filters.resize_matrix(cells, new_size)
        for cells, new_size in zip(scores.shape[1:], size, strict=True)
    )
    return filters.apply(rows, columns, scores[..., None])[..., 0]


def image_score(maps: jax.Array, extents: jax.Array | None = None) -> jax.Array:
    """The largest value of every map.

    Args:
      maps: `[B, H, W]`.
      extents: as of `anomaly_map`; what is padded does not count.

    Returns:
      `[B]`; NaN for a map that holds NaN.
    """
    if extents is not None:
        maps = jnp.where(of_squares.inside(extents, maps.shape[1:]), maps, -jnp.inf)
    return linalg.max_or_nan(maps, axis=(1, 2))
