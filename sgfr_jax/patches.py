"""From the levels of a network to patch features."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from sgfr_jax import filters, linalg


def merge_levels(levels: Mapping[str, jax.Array], grid: tuple[int, int]) -> jax.Array:
    """All levels on one grid: averaged over 3 x 3 cells, resized, concatenated.

    The average makes a patch of every cell. Its conventions are those of PatchCore's reference
    implementation (Roth et al. 2022): cells beyond the border count as zeros, and resizing, after
    that low-pass, does not smooth again.

    Args:
      levels: name to `[B, h_l, w_l, D_l]`; concatenated in the mapping's order.
      grid: `(h, w)` of the result.

    Returns:
      `[B, h, w, D]` with `D = sum D_l`. NaN in a cell makes that feature NaN in the whole image,
      by a product with matrices that are mostly zeros (`filters.apply`); other images stay.

    Raises:
      ValueError: if a level is not `[B, h, w, D]` or batches differ.
    """
    shapes = {name: level.shape for name, level in levels.items()}
    if not levels or any(len(s) != 4 for s in shapes.values()):
        raise ValueError(f"levels must each be [B, h, w, D], got {shapes}")
    if len({shape[0] for shape in shapes.values()}) > 1:
        raise ValueError(f"levels must share the batch size, got {shapes}")

    def to_grid(level: jax.Array) -> jax.Array:
        rows, columns = (
            filters.resize_matrix(size, new_size) @ filters.mean_matrix(size, 3)
            for size, new_size in zip(level.shape[1:3], grid, strict=True)
        )
        return filters.apply(rows, columns, level)

    return jnp.concatenate([to_grid(level) for level in levels.values()], axis=-1)


def unit_norm(patches: jax.Array) -> jax.Array:
    """Patches scaled to unit l2 norm; a zero patch stays zero.

    Args:
      patches: `[..., D]`.

    Returns:
      `[..., D]`, float32 at least; NaN where a patch is not finite.
    """
    patches = linalg.at_least_float32(patches)
    # Divided by the largest first, so that squares neither overflow nor vanish.
    largest = jnp.max(jnp.abs(patches), axis=-1, keepdims=True)
    scaled = patches / jnp.where(largest > 0, largest, 1)
    squared = jnp.sum(scaled**2, axis=-1, keepdims=True)
    scaled = scaled * jax.lax.rsqrt(jnp.where(squared > 0, squared, 1))
    # Of the sum, which NaN and inf / inf survive; a long maximum may pass over NaN on a CPU.
    return jnp.where(jnp.isfinite(squared), scaled, jnp.nan)
