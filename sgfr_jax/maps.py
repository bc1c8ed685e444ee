"""From patch scores to anomaly maps and image scores."""

import jax
import jax.numpy as jnp

from sgfr_jax import checks, filters, linalg
from sgfr_jax import extents as of_squares


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


def image_score(
    maps: jax.Array, extents: jax.Array | None = None, *, share: float | jax.Array = 0.0
) -> jax.Array:
    """The largest value of every map, or the mean of its largest values.

    Args:
      maps: `[B, H, W]`.
      extents: as of `anomaly_map`; what is padded does not count.
      share: of the square's pixels whose values are averaged, one at least: several are less noisy
        than one. Where padding leaves fewer, these. May be traced, at the cost of sorting all
        pixels; their number is rounded, so that its gradient is zero.

    Returns:
      `[B]`; NaN for a map that holds NaN.

    Raises:
      ValueError: if share is not in [0, 1].
    """
    checks.share(share=share)
    maps = linalg.at_least_float32(maps)
    if extents is not None:
        maps = jnp.where(of_squares.inside(extents, maps.shape[1:]), maps, -jnp.inf)
    flat = maps.reshape(len(maps), -1)
    largest = linalg.max_or_nan(flat, axis=1)
    if isinstance(share, jax.core.Tracer):
        most = flat.shape[1]
        num = jnp.maximum(jnp.round(share * most), 1)
    else:
        most = num = round(float(share) * flat.shape[1])
        if num < 2:
            return largest
    highest, _ = jax.lax.top_k(flat, most)
    shown = (highest > -jnp.inf) & (jnp.arange(most) < num)[None]
    mean = jnp.mean(highest, axis=1, where=shown)
    return jnp.where(jnp.isnan(largest), jnp.nan, mean)


def halo(scores: jax.Array, nominal: jax.Array, *, share: float | jax.Array) -> jax.Array:
    """How much defects lift the whole maps of their images: what is to be taken off these.

    A defect raises the map not only where it is: it lies in the field of view of many patches, of
    deep levels in that of all, and the blur spreads it further. The stronger it is, the more of the
    image it lifts above what is nominal, and above weak defects of other images. A rule of this
    project (`docs/results.md`): `share * max(score - nominal, 0)`. Less that,
    `maps - halo(scores, ...)[:, None, None]`, the pixels of an image keep their order, and images
    that score as nominal ones do keep their maps.

    Args:
      scores: `[B]` of maps, in their unit, as of `image_score`.
      nominal: scalar: up to where scores are nominal, such as two standard deviations above the
        mean of nominal images'; where it is infinite, no map has a halo.
      share: in [0, 1]; 0 leaves all maps as they are.

    Returns:
      `[B]`, in the unit of the maps; not negative, NaN where a score is.

    Raises:
      ValueError: if share is not in [0, 1].
    """
    checks.share(share=share)
    return share * jnp.maximum(scores - nominal, 0)


def breadth(
    maps: jax.Array, extents: jax.Array | None = None, *, share: float | jax.Array
) -> jax.Array:
    """How widely images are anomalous: what is to be added to their maps.

    Of two images with one highest score, that whose whole map is high is defective in many places,
    the other in one, which has lifted what lies around it (`halo`). A rule of this project
    (`docs/results.md`): `share` times the mean of the map. With it,
    `maps + breadth(maps, ...)[:, None, None]`, the pixels of an image keep their order.

    Args:
      maps: `[B, H, W]`, zero where scores are the mean of nominal ones.
      extents: as of `anomaly_map`; what is padded does not count.
      share: at least 0, which leaves all maps as they are.

    Returns:
      `[B]`, in the unit of the maps; NaN for a map that holds NaN in what is not padded.

    Raises:
      ValueError: if share is negative.
    """
    checks.not_negative("such as 0.25", share=share)
    if extents is None:
        return share * jnp.mean(maps, axis=(1, 2))
    shown = of_squares.inside(extents, maps.shape[1:])
    return share * jnp.mean(maps, axis=(1, 2), where=shown)


def image_prior(scores: jax.Array, *, share: float | jax.Array) -> jax.Array:
    """What an image as a whole says of its pixels: what is to be added to its map.

    Pixels of an image that looks nominal are less likely to be defective than equal ones of an
    image that does not. A rule of this project (`docs/results.md`): `share * min(score, 1)`. So
    `maps + spread * image_prior(scores, ...)[:, None, None]`, with the spread of nominal maps,
    lowers the maps of images that are less than one spread above nominal ones, by more the less
    they stand out. Every image keeps the order of its pixels, and those that do stand out keep
    theirs together.

    Args:
      scores: `[B]` of images, in standard deviations above the mean of nominal images'.
      share: at least 0, which leaves all maps as they are.

    Returns:
      `[B]`, in spreads of nominal maps, at most `share`; NaN where a score is.

    Raises:
      ValueError: if share is negative.
    """
    checks.not_negative("such as 0.4", share=share)
    return share * jnp.minimum(scores, 1)
