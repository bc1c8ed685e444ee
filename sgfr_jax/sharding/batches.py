"""Functions of a batch, each device on its own part."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from sgfr_jax.sharding.mesh import DATA


def data_parallel(function: Callable[[Any, Any], Any], mesh: Mesh) -> Callable[[Any, Any], Any]:
    """The same `(state, batch) -> result`, with the batch split over the mesh's data axis.

    No device waits for another: the compiled program has no collective.

    Args:
      function: whose rows `[B, ...]` of the result depend on the same rows of the batch and on the
        state alone.
      mesh: from `make_mesh`.

    Returns:
      A function of a replicated pytree and of a pytree of `[B, ...]`. It raises ValueError if a
      leaf of the latter has no axis, or the devices do not divide `B`; see `pad_rows`.
    """
    parts = mesh.shape[DATA]
    mapped = jax.shard_map(
        function, mesh=mesh, in_specs=(P(), P(DATA)), out_specs=P(DATA), check_vma=False
    )

    def split(state: Any, batch: Any) -> Any:
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batch)]
        if () in shapes:
            raise ValueError(
                f"a batch's arrays must be [B, ...], got {shapes}; what all rows share is state"
            )
        sizes = sorted({shape[0] for shape in shapes})
        if any(size % parts for size in sizes):
            raise ValueError(
                f"batches of {sizes} rows cannot be split over {parts} devices; pad them with"
                " `pad_rows`"
            )
        return mapped(state, batch)

    return split
