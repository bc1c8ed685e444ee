"""The pixel metrics on a device, compiled: what evaluating there costs.

The same definitions as `sgfr_jax.metrics`, read off one sort of all scores; counts are integers,
areas float32, so the last digits differ from the host's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class PixelMetrics(NamedTuple):
    """As in `sgfr_jax.metrics.Metrics`; `[]` each."""

    pixel_auroc: jax.Array
    pixel_ap: jax.Array
    pixel_f1_max: jax.Array
    aupro: jax.Array  # up to a false positive rate of 0.3


def evaluate(scores: jax.Array, labels: jax.Array, weights: jax.Array) -> PixelMetrics:
    """All of them, of at least one positive and one negative.

    Args:
      scores: `[P]`, finite.
      labels: `[P]` bool; True is defective.
      weights: `[P]`; of a positive, one over the pixels of its region; 0 for negatives.
    """
    order = jax.lax.sort((-scores, labels.astype(jnp.int32), weights), num_keys=1)
    descending, labels, weights = order
    # A threshold takes all of one score or none: curves have a vertex at the last of each tie.
    vertex = jnp.append(descending[1:] != descending[:-1], True)
    true = jnp.cumsum(labels)
    false = jnp.arange(1, len(labels) + 1, dtype=jnp.int32) - true
    regions = jnp.cumsum(weights)
    positives, negatives = true[-1].astype(jnp.float32), false[-1].astype(jnp.float32)
    recall, fall_out = true / positives, false / negatives

    precision = true / (true + false)
    steps = (true - _before(true, vertex)) / positives
    f1 = 2 * true / (true + false + positives)
    return PixelMetrics(
        pixel_auroc=_area(fall_out, recall, vertex, 1.0),
        pixel_ap=jnp.sum(jnp.where(vertex, steps * precision, 0)),
        pixel_f1_max=jnp.max(jnp.where(vertex, f1, 0)),
        aupro=_area(fall_out, regions / regions[-1], vertex, 0.3),
    )


def _area(x: jax.Array, y: jax.Array, vertex: jax.Array, limit: float) -> jax.Array:
    """Below the polygon through the origin and the vertices, up to `x = limit`, over `limit`."""
    x0, y0 = _before(x, vertex), _before(y, vertex)
    share = jnp.clip((limit - x0) / jnp.where(x > x0, x - x0, 1), 0, 1)
    areas = share * (x - x0) * (y0 + share * (y - y0) / 2)
    return jnp.sum(jnp.where(vertex, areas, 0)) / limit


def _before(values: jax.Array, vertex: jax.Array) -> jax.Array:
    """The value at the vertex before each element, of values that never fall; 0 before the first.

    Held back by one: the largest vertex value among all earlier elements.
    """
    reached = jax.lax.cummax(jnp.where(vertex, values, 0))
    return jnp.concatenate([jnp.zeros(1, values.dtype), reached[:-1]])
